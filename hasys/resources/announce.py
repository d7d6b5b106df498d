"""Tells neighbours where an address lives now: gratuitous ARP (RFC 5227) and unsolicited neighbour advertisements (RFC
4861 section 7.2.6). Frames are built here and sent through a packet socket, so that no route or source address can
send them elsewhere; the guard's gate still drops them while the address is muted.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import weakref
from dataclasses import dataclass

from hasys.model import arp
from hasys.resources.addresses import Link

BURST = (0.0, 0.1, 0.4, 0.9)
"""Seconds after a take-over at which to announce: at once, and again in case a switch was still learning."""

_ALL_NODES_MAC = b"\x33\x33\x00\x00\x00\x01"
_ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
_ICMPV6 = 58
_OVERRIDE = 0x20000000


def frames(address: str, mac: bytes) -> tuple[bytes, ...]:
    """The Ethernet frames that announce ``address`` at ``mac``."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return (_advertisement(ip.packed, mac),)
    # Some systems update their tables from requests only, some from replies only: send both.
    sender = ip.packed
    return arp.frame(arp.REQUEST, mac, sender, sender), arp.frame(arp.REPLY, mac, sender, sender, mac)


class Announcer:
    """Sends on one socket that stays open: the kernel waits some 15 ms when a packet socket is closed, and a failover
    of a hundred addresses must not wait for that each time. For one network namespace."""

    def __init__(self) -> None:
        self._packets: socket.socket | None = None

    def send(self, address: str, link: Link) -> None:
        """Tell a link where the address is. Raises OSError; does not block."""
        if len(link.mac) != 6:
            return  # no Ethernet (loopback, tunnel): nobody to tell
        if self._packets is None:
            self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            weakref.finalize(self, self._packets.close)
        for frame in frames(address, link.mac):
            self._packets.sendto(frame, (link.name, 0))


def _advertisement(ip: bytes, mac: bytes) -> bytes:
    body = struct.pack("!BBHI", 136, 0, 0, _OVERRIDE) + ip + b"\x02\x01" + mac
    pseudo = ip + _ALL_NODES + struct.pack("!IHBB", len(body), 0, 0, _ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 0x60000000, len(body), _ICMPV6, 255) + ip + _ALL_NODES
    return _ALL_NODES_MAC + mac + b"\x86\xdd" + head + body


def _checksum(data: bytes) -> int:
    """RFC 1071; ``data`` has an even length here."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(slots=True)
class Schedule:
    """When to announce: a burst after each take-over, then every ``interval`` seconds. Pure; times in seconds."""

    interval: float
    begun: float | None = None
    sent: int = 0

    def restart(self, now: float) -> None:
        """The address was taken over at ``now`` (again)."""
        self.begun, self.sent = now, 0

    def next(self) -> float | None:
        """When the next announcement is due; None before :meth:`restart`."""
        if self.begun is None:
            return None
        if self.sent < len(BURST):
            return self.begun + BURST[self.sent]
        return self.begun + BURST[-1] + (self.sent - len(BURST) + 1) * self.interval

    def due(self, now: float) -> bool:
        """Is it time? If so it counts as sent; what a late caller missed is not made up for."""
        at = self.next()
        if at is None or now < at:
            return False
        self.sent += 1
        while (following := self.next()) is not None and following <= now:
            self.sent += 1
        return True
