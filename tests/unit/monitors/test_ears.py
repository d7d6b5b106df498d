"""What an ear hears in one round."""

from __future__ import annotations

import ipaddress

from hasys.model import arp
from hasys.monitors.ears import ArpEar

ME, OTHER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
BUFFERED = 300
"""Frames: more than a packet socket holds by default (208 KiB at 768 bytes each)."""


class Buffer:
    """What waits in a socket."""

    def __init__(self, frames: list[bytes]) -> None:
        self._frames = iter(frames)

    def recv(self, size: int) -> bytes:
        try:
            return next(self._frames)[:size]
        except StopIteration:
            raise BlockingIOError from None


def frame(sender: str, operation: int, mac: bytes) -> bytes:
    packed = ipaddress.IPv4Address(sender).packed
    return arp.frame(operation, mac, packed, packed)


def test_an_answer_is_heard_behind_all_that_a_crowded_network_said_since_the_last_round() -> None:
    crowd = [frame("192.0.2.77", arp.REQUEST, OTHER)] * BUFFERED
    ear = ArpEar.__new__(ArpEar)
    ear.socket = Buffer([*crowd, frame("192.0.2.1", arp.REPLY, ME)])  # type: ignore[assignment]
    assert [told.address for told in ear.hear()][-1] == "192.0.2.1"
