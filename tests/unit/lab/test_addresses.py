"""rtnetlink address messages are read as the kernel writes them (linux/if_addr.h), and anything else is left alone."""

from __future__ import annotations

import ipaddress
import struct

from hypothesis import given
from hypothesis import strategies as st

from hasys.lab.addresses import parse


def message(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    body = struct.pack("=BBBBI", 2, 24, 0, 0, 3)
    for number, value in attributes:
        body += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


IPV4 = ipaddress.ip_address("10.77.0.100").packed
IPV6 = ipaddress.ip_address("fd77::100").packed


def test_every_message_of_a_datagram_is_read() -> None:
    data = message(20, (1, IPV4), (2, IPV4), (3, b"eth0\0")) + message(21, (1, IPV6))
    assert list(parse(data)) == [("10.77.0.100", True), ("fd77::100", False)]


def test_the_local_address_counts_where_the_peer_differs() -> None:
    peer = ipaddress.ip_address("10.0.0.9").packed
    assert list(parse(message(20, (1, peer), (2, IPV4)))) == [("10.77.0.100", True)]


def test_messages_about_other_things_are_left_alone() -> None:
    assert list(parse(message(16, (1, IPV4)))) == []


@given(st.integers(0, 60))
def test_a_datagram_cut_anywhere_is_no_error(length: int) -> None:
    assert len(list(parse(message(20, (1, IPV4), (2, IPV4))[:length]))) <= 1
