"""ARP frames: what is made is read again, everything else claims nothing."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasys.model import arp
from hasys.model.arp import NOBODY, REPLY, REQUEST, Told

MAC, IP = bytes.fromhex("020000000001"), ipaddress.IPv4Address("10.0.0.9").packed


@given(st.sampled_from([REQUEST, REPLY]), st.binary(min_size=6, max_size=6), st.ip_addresses(v=4))
def test_a_frame_claims_its_senders_address(operation: int, mac: bytes, sender: ipaddress.IPv4Address) -> None:
    told = arp.read(arp.frame(operation, mac, sender.packed, IP))
    assert told == (None if sender.packed == NOBODY else Told(str(sender), mac.hex(":")))


@given(st.binary(max_size=100))
def test_any_bytes_are_read_without_harm(data: bytes) -> None:
    arp.read(data)


FRAME = arp.frame(REPLY, MAC, IP, IP)


@pytest.mark.parametrize(
    "data",
    [
        FRAME[:41],
        FRAME[:12] + b"\x08\x00" + FRAME[14:],
        FRAME[:14] + b"\x00\x06" + FRAME[16:],
        FRAME[:18] + b"\x08" + FRAME[19:],
        arp.frame(REQUEST, MAC, NOBODY, IP),
    ],
    ids=["cut", "no ARP", "no Ethernet", "long addresses", "nobody's question"],
)
def test_what_claims_nothing_is_not_heard(data: bytes) -> None:
    assert arp.read(data) is None
