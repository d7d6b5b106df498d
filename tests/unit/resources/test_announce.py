"""The frames that announce an address, and when they are sent."""

from __future__ import annotations

import ipaddress
import struct

from hypothesis import given
from hypothesis import strategies as st

from hasys.resources import announce
from hasys.resources.announce import BURST, Schedule

MAC = bytes.fromhex("020000000001")


def test_ipv4_is_announced_as_request_and_as_reply() -> None:
    request, reply = announce.frames("10.0.0.9", MAC)
    sender = bytes([10, 0, 0, 9])
    assert request == b"\xff" * 6 + MAC + bytes.fromhex("0806 0001 0800 06 04 0001") + MAC + sender + b"\0" * 6 + sender
    assert reply == b"\xff" * 6 + MAC + bytes.fromhex("0806 0001 0800 06 04 0002") + MAC + sender + MAC + sender


@given(st.integers(0, 2**128 - 1).map(lambda n: str(ipaddress.IPv6Address(n))), st.binary(min_size=6, max_size=6))
def test_an_advertisement_has_a_valid_checksum_and_hop_limit_255(address: str, mac: bytes) -> None:
    (frame,) = announce.frames(address, mac)
    head, body = frame[14:54], frame[54:]
    assert head[7] == 255
    assert struct.unpack("!H", head[4:6])[0] == len(body) == 32
    data = head[8:40] + struct.pack("!II", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
    assert body[8:24] == ipaddress.IPv6Address(address).packed


def test_a_takeover_is_announced_in_a_burst_and_then_every_interval() -> None:
    schedule = Schedule(30)
    assert schedule.next() is None
    schedule.restart(100)
    sent = []
    for _ in range(6):
        at = schedule.next()
        assert at is not None
        assert not schedule.due(at - 0.001)
        assert schedule.due(at)
        sent.append(round(at - 100, 6))
    assert sent == [*BURST, BURST[-1] + 30, BURST[-1] + 60]


def test_what_was_missed_while_asleep_is_not_made_up_for() -> None:
    schedule = Schedule(1)
    schedule.restart(0)
    assert schedule.due(100)
    following = schedule.next()
    assert following is not None
    assert 100 < following <= 101
