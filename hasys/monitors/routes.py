"""The default gateways of each interface, from /proc/net/route and /proc/net/ipv6_route (proc(5)): the main table."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/proc/thread-self/net")
_RTF_UP, _RTF_GATEWAY = 0x1, 0x2


def gateways(folder: Path = FOLDER) -> dict[str, tuple[str, ...]]:
    """Interface -> gateways of its default routes. Reads files; a kernel without IPv6 has only one of them."""
    found: dict[str, list[str]] = {}
    for interface, address in (*_of_ipv4(_lines(folder / "route")), *_of_ipv6(_lines(folder / "ipv6_route"))):
        found.setdefault(interface, []).append(address)
    return {interface: tuple(sorted(set(addresses))) for interface, addresses in found.items()}


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text("ascii").splitlines()]
    except OSError:
        return []


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
