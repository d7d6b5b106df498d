"""ARP frames on Ethernet (RFC 826), made and read."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from functools import lru_cache

REQUEST, REPLY = 1, 2
ETHERTYPE = 0x0806
BROADCAST = b"\xff" * 6
NOBODY = bytes(4)
"""Sender of a question that must not change anybody's table (RFC 5227 section 2.1.1)."""
_HEAD = struct.Struct("!HHBBH")
_ETHERNET_IPV4 = (1, 0x0800, 6, 4)


@dataclass(frozen=True, slots=True)
class Told:
    """What a frame claims: this address is at this MAC."""

    address: str
    mac: str


def frame(operation: int, mac: bytes, sender: bytes, target: bytes, target_mac: bytes = bytes(6)) -> bytes:
    """A broadcast frame; addresses are packed IPv4."""
    head = _HEAD.pack(*_ETHERNET_IPV4, operation)
    return BROADCAST + mac + struct.pack("!H", ETHERTYPE) + head + mac + sender + target_mac + target


@lru_cache(maxsize=256)  # neighbours say the same a few times a second
def read(data: bytes) -> Told | None:
    """Who claims which address; None when the frame is no ARP for IPv4, or claims nothing."""
    if len(data) < 42 or data[12:20] != struct.pack("!HHHBB", ETHERTYPE, *_ETHERNET_IPV4):
        return None
    sender = data[28:32]
    return None if sender == NOBODY else Told(str(ipaddress.IPv4Address(sender)), data[22:28].hex(":"))
