"""The questions of the watcher are well-formed, and only true answers to them count."""

from __future__ import annotations

import ipaddress
import struct

from hasys.lab.frames import ARP_TAGS, Asker, parse_mac
from hasys.lab.probe import checksum

NODE = parse_mac("02:68:00:01:01:00")
ASKER = Asker(
    parse_mac("02:68:00:01:fa:00"), ipaddress.IPv4Address("10.77.0.250"), ipaddress.IPv6Address("fd77::fa"), ident=77
)


def arp_reply(tag: int, address: str = "10.77.0.100", operation: int = 2) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + NODE + ipaddress.IPv4Address(address).packed
    body += ASKER.mac + (ASKER.ipv4 - 1 - tag).packed
    return ASKER.mac + NODE + struct.pack("!H", 0x0806) + body


def echo_reply(request: bytes) -> bytes:
    """What a correct host answers to an IPv4 echo request (checksums aside: the asker trusts its own wire)."""
    head = request[14:34]
    return ASKER.mac + NODE + request[12:14] + head[:12] + head[16:20] + head[12:16] + b"\0" + request[35:]


def test_ipv4_checksums_of_a_question_are_right() -> None:
    frame = ASKER.echo(NODE, "10.77.0.100", 5)
    assert checksum(frame[14:34]) == 0
    assert checksum(frame[34:]) == 0


def test_ipv6_checksum_of_a_question_covers_the_pseudo_header() -> None:
    frame = ASKER.echo(NODE, "fd77::100", 5)
    message = frame[54:]
    assert checksum(frame[22:54] + struct.pack("!II", len(message), 58) + message) == 0


def test_an_echo_answer_names_its_question() -> None:
    reply = echo_reply(ASKER.echo(NODE, "10.77.0.100", 70_000))
    assert ASKER.echo_answer(reply) == ("10.77.0.100", 70_000)


def test_the_answer_to_somebody_else_does_not_count() -> None:
    other = Asker(ASKER.mac, ASKER.ipv4, ASKER.ipv6, ident=78)
    assert ASKER.echo_answer(echo_reply(other.echo(NODE, "10.77.0.100", 1))) is None


def test_an_arp_answer_carries_the_tag_of_its_question() -> None:
    for tag in range(ARP_TAGS):
        assert ASKER.arp_answer(arp_reply(tag)) == ("10.77.0.100", tag)


def test_an_arp_request_is_no_answer() -> None:
    assert ASKER.arp_answer(arp_reply(0, operation=1)) is None
