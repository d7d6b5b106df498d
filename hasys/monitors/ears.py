"""Asks neighbours on one interface for their MAC addresses and hears who claims which address.

IPv4 by ARP through a packet socket, IPv6 by neighbour solicitation through a raw ICMPv6 socket: both are answered by
the other machine's kernel, however busy its programs are, and both stay on the link.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TypeVar

from hasys.model import arp
from hasys.model.arp import Told

T = TypeVar("T")

_SO_BINDTODEVICE = 25
_ICMP6_FILTER, _SOL_ICMPV6 = 1, 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_MAC, _TARGET_MAC = 1, 2
_BATCH = 1024
"""Most frames read at a time: more than the kernel keeps for a socket (208 KiB, some 270 frames), so that a round hears
everything that was said before it, and bounded when more come meanwhile."""


class ArpEar:
    """IPv4. Raises ``OSError`` when made for an interface that is not there."""

    def __init__(self, interface: str) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self.socket.bind((interface, arp.ETHERTYPE))
        except OSError:
            self.socket.close()
            raise

    def ask(self, target: str, sender: str, mac: bytes) -> None:
        """Who has ``target``? ``sender`` is an address of ours, empty: nobody's. Raises ``OSError``."""
        self.socket.send(_question(target, sender, mac))

    def hear(self) -> Iterator[Told]:
        """What was said since the last call. Raises ``OSError`` when the interface went away."""
        for data in _batch(lambda: self.socket.recv(2048)):
            told = arp.read(data)
            if told is not None:
                yield told


class NeighbourEar:
    """IPv6, from the interface's link-local address. Raises ``OSError`` when it has none."""

    def __init__(self, interface: str) -> None:
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.encode() + b"\0")
            self.socket.setsockopt(_SOL_ICMPV6, _ICMP6_FILTER, _only(_ADVERTISEMENT))
            for option in (socket.IPV6_MULTICAST_HOPS, socket.IPV6_UNICAST_HOPS):
                self.socket.setsockopt(socket.IPPROTO_IPV6, option, 255)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            self._scope = socket.if_nametoindex(interface)
        except OSError:
            self.socket.close()
            raise

    def ask(self, target: str, sender: str, mac: bytes) -> None:
        """Who has ``target``? ``sender`` is a link-local address of ours. Raises ``OSError``."""
        packed = ipaddress.IPv6Address(target).packed
        group = str(ipaddress.IPv6Address(ipaddress.IPv6Address("ff02::1:ff00:0").packed[:13] + packed[13:]))
        option = struct.pack("!BB", _SOURCE_MAC, 1) + mac
        message = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + packed + option  # the kernel adds the checksum
        source = struct.pack("=16sI", ipaddress.IPv6Address(sender).packed, self._scope)
        ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source)]
        self.socket.sendmsg([message], ancillary, 0, (group, 0, 0, self._scope))

    def hear(self) -> Iterator[Told]:
        """What was said since the last call. Raises ``OSError``."""
        for data, ancillary, _, _ in _batch(lambda: self.socket.recvmsg(2048, 64)):
            hops = [int.from_bytes(value[:1], "little") for _, kind, value in ancillary if kind == socket.IPV6_HOPLIMIT]
            told = advertised(data) if hops == [255] else None  # RFC 4861 7.1.2: from this link
            if told is not None:
                yield told


Ear = ArpEar | NeighbourEar


def advertised(data: bytes) -> Told | None:
    """Who claims which address in an ICMPv6 message; None when it is no neighbour advertisement."""
    if len(data) < 24 or data[0] != _ADVERTISEMENT:
        return None
    return Told(str(ipaddress.IPv6Address(data[8:24])), _target_mac(data[24:]))


@lru_cache(maxsize=1024)
def _question(target: str, sender: str, mac: bytes) -> bytes:
    source = ipaddress.IPv4Address(sender).packed if sender else arp.NOBODY
    return arp.frame(arp.REQUEST, mac, source, ipaddress.IPv4Address(target).packed)


def _batch(receive: Callable[[], T]) -> Iterator[T]:
    with suppress(BlockingIOError):
        for _ in range(_BATCH):
            yield receive()


def _only(kind: int) -> bytes:
    """An ICMPv6 filter (RFC 3542 3.2) that lets one type pass: a bit set is a type blocked."""
    words = [0xFFFFFFFF] * 8
    words[kind >> 5] &= ~(1 << (kind & 31)) & 0xFFFFFFFF
    return struct.pack("=8I", *words)


def _target_mac(options: bytes) -> str:
    while len(options) >= 8:
        kind, length = options[0], options[1] * 8
        if kind == _TARGET_MAC:
            return options[2:8].hex(":")
        if not length:
            break
        options = options[length:]
    return ""
