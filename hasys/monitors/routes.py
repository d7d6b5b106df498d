"""The default gateways of each interface, from /proc/net/route and /proc/net/ipv6_route (proc(5)): the main table."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/proc/thread-self/net")
_FILES = ("route", "ipv6_route")
LOOK = 1.0
"""Seconds between two looks."""
_RTF_UP, _RTF_GATEWAY = 0x1, 0x2


def gateways(folder: Path = FOLDER) -> dict[str, tuple[str, ...]]:
    """Interface -> gateways of its default routes. Reads files; a kernel without IPv6 has only one of them."""
    found: dict[str, list[str]] = {}
    for interface, address in (*_of_ipv4(_lines(folder / _FILES[0])), *_of_ipv6(_lines(folder / _FILES[1]))):
        found.setdefault(interface, []).append(address)
    return {interface: tuple(sorted(set(addresses))) for interface, addresses in found.items()}


def changed(
    known: dict[str, tuple[str, ...]], over: threading.Event, folder: Path = FOLDER
) -> dict[str, tuple[str, ...]]:
    """Block until the gateways are others than the known ones, or until ``over``."""
    said = 0
    while not over.wait(LOOK):
        before, said = said, hash(tuple(_content(folder / name) for name in _FILES))
        if said != before and (found := gateways(folder)) != known:
            return found
    return known


def _lines(path: Path) -> list[list[str]]:
    return [line.split() for line in _content(path).decode("ascii").splitlines()]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _of_ipv4(lines: list[list[str]]) -> Iterator[tuple[str, str]]:
    for interface, destination, gateway, flags, _, _, _, mask, *_ in lines[1:]:
        if int(destination, 16) == int(mask, 16) == 0 and int(flags, 16) & _RTF_UP and int(flags, 16) & _RTF_GATEWAY:
            packed = int(gateway, 16).to_bytes(4, "little")  # printed in the byte order of the machine: x86-64, arm64
            yield interface, str(ipaddress.IPv4Address(packed))


def _of_ipv6(lines: list[list[str]]) -> Iterator[tuple[str, str]]:
    for destination, length, _, _, gateway, _, _, _, flags, interface in lines:
        default = int(destination, 16) == int(length, 16) == 0
        if default and int(flags, 16) & _RTF_UP and int(flags, 16) & _RTF_GATEWAY:
            yield interface, str(ipaddress.IPv6Address(bytes.fromhex(gateway)))
