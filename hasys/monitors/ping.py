"""Do other machines answer? ICMP echo to addresses, and to the node's default gateways."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import struct
import time

import anyio

from hasys.model.errors import HasysError
from hasys.monitors import routes
from hasys.monitors.port import Check, Found, judged
from hasys.v1 import monitors_pb2 as mpb

TRIES = 3
"""Requests within one look: one lost datagram says nothing about a machine."""
PAUSE = 0.3
"""Seconds to the next request."""
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}


class PingCheck(Check):
    """See the module."""

    def __init__(self, spec: mpb.PingMonitor) -> None:
        self._spec = spec

    async def look(self) -> Found:
        addresses = [str(ipaddress.ip_address(text)) for text in self._spec.addresses]
        if self._spec.gateway:
            found = {a for of_one in routes.gateways().values() for a in of_one if ":" not in a}
            if not found:
                return Found("this node has no default gateway")
            addresses += sorted(found)
        times: dict[str, float] = {}

        async def ask(address: str) -> None:
            took = await echo(address)
            if took is not None:
                times[address] = took

        # those that did not answer by the time-out are named; waiting for it is what TRIES are for
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                tasks.start_soon(ask, address)
        verdict = judged(self._spec.need, {a: "" if a in times else f"{a} does not answer" for a in addresses})
        slowest = max(times.values(), default=None)
        return Found(verdict.trouble, value=None if slowest is None else slowest * 1000, unit="ms")


async def echo(address: str) -> float | None:
    """Seconds until the machine answered; None: not within :data:`TRIES`. Raises ``HasysError`` without permission."""
    version = ipaddress.ip_address(address).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    try:
        asking = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    except PermissionError:
        raise HasysError("ping needs root or CAP_NET_RAW") from None
    identity = secrets.randbelow(0xFFFF) + 1
    with asking:
        for number in range(TRIES):
            sent = time.monotonic()
            try:
                asking.sendto(_request(version, identity, number), (address, 0))
            except OSError:
                await anyio.sleep(PAUSE)  # no route now: perhaps in a moment
                continue
            with anyio.move_on_after(PAUSE):
                await _answer(asking, version, identity, address)
                return time.monotonic() - sent
    return None


async def _answer(asking: socket.socket, version: int, identity: int, address: str) -> None:
    """Wait for the answer to any of our requests."""
    while True:
        await anyio.wait_readable(asking)
        try:
            data, sender = asking.recvfrom(2048)
        except OSError:
            continue
        if sender[0].partition("%")[0] == address and answers(data, version, identity):
            return


def answers(data: bytes, version: int, identity: int) -> bool:
    """Is this packet, which for IPv4 begins with its IP header, an echo reply to a request of ours?"""
    if version == 4 and data:
        data = data[(data[0] & 0x0F) * 4 :]
    return len(data) >= 8 and data[0] == _REPLY[version] and struct.unpack("!H", data[4:6])[0] == identity


def _request(version: int, identity: int, number: int) -> bytes:
    """An echo request. The kernel computes the checksum of ICMPv6."""
    payload = os.urandom(16)
    head = struct.pack("!BBHHH", _REQUEST[version], 0, 0, identity, number)
    return struct.pack("!BBHHH", _REQUEST[version], 0, _checksum(head + payload), identity, number) + payload


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return ~total & 0xFFFF
