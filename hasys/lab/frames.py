"""Ethernet frames that ask one machine, by its MAC address, whether it holds an IP address; how to read its answers."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from hasys.lab.probe import checksum, echo_request

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
ARP_TAGS = 8
"""An ARP answer carries no payload; the sender address of the request, one of this many, tells which one it answers."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: MAC and addresses of the observer's interface."""

    mac: bytes
    ipv4: ipaddress.IPv4Address
    ipv6: ipaddress.IPv6Address
    ident: int

    def echo(self, target: bytes, address: str, number: int) -> bytes:
        """ICMP or ICMPv6 echo request to ``address`` in a frame to ``target``'s MAC."""
        to = ipaddress.ip_address(address)
        if isinstance(to, ipaddress.IPv4Address):
            body = echo_request(8, self.ident, number)
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, socket.IPPROTO_ICMP, 0)
            head += self.ipv4.packed + to.packed
            head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
            return target + self.mac + struct.pack("!H", IPV4) + head + body
        body = _icmpv6(self.ipv6.packed, to.packed, echo_request(128, self.ident, number))
        head = struct.pack("!IHBB", 0x60000000, len(body), socket.IPPROTO_ICMPV6, 64) + self.ipv6.packed + to.packed
        return target + self.mac + struct.pack("!H", IPV6) + head + body

    def who_has(self, target: bytes, address: str, number: int) -> bytes:
        """ARP request for ``address`` in a frame to ``target``'s MAC alone, tagged with ``number`` modulo ARP_TAGS."""
        sender = self.ipv4 - 1 - number % ARP_TAGS
        body = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1) + self.mac + sender.packed
        body += bytes(6) + ipaddress.IPv4Address(address).packed
        return target + self.mac + struct.pack("!H", ARP) + body

    def echo_answer(self, frame: bytes) -> tuple[str, int] | None:
        """(address that answers, number of the question) when this is an echo reply to us."""
        kind = int.from_bytes(frame[12:14], "big")
        if kind == IPV4 and frame[23] == socket.IPPROTO_ICMP and frame[34] == 0:
            sender, body = str(ipaddress.IPv4Address(frame[26:30])), frame[34:]
        elif kind == IPV6 and frame[20] == socket.IPPROTO_ICMPV6 and frame[54] == 129:
            sender, body = str(ipaddress.IPv6Address(frame[22:38])), frame[54:]
        else:
            return None
        ident, number = struct.unpack("!4xH2xQ", body[:16])
        return (sender, number) if ident == self.ident else None

    def arp_answer(self, frame: bytes) -> tuple[str, int] | None:
        """(address that answers, tag of the question) when this is an ARP reply to us."""
        if int.from_bytes(frame[12:14], "big") != ARP or frame[20:22] != b"\0\2" or frame[32:38] != self.mac:
            return None
        tag = int(self.ipv4) - 1 - int.from_bytes(frame[38:42], "big")
        return (str(ipaddress.IPv4Address(frame[28:32])), tag) if 0 <= tag < ARP_TAGS else None


def _icmpv6(source: bytes, destination: bytes, message: bytes) -> bytes:
    """Put the ICMPv6 checksum (over the pseudo header) into a message."""
    bare = message[:2] + b"\0\0" + message[4:]
    pseudo = source + destination + struct.pack("!II", len(bare), socket.IPPROTO_ICMPV6)
    return bare[:2] + struct.pack("!H", checksum(pseudo + bare)) + bare[4:]


def parse_mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
