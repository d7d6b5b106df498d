"""The dialling end of a connection: what it keeps for a peer that does not read, and what it believes of its words."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from hasys.store.raft.links import (
    MAX_REFUSAL,
    MAX_URGENT,
    MAX_WAITING,
    WRITE_HIGH,
    BadPeer,
    NoMember,
    Sender,
    frame,
)
from hasys.v1 import raft_pb2 as pb

pytestmark = pytest.mark.anyio


class Connection:
    """A TLS connection to n2 that takes everything and sends nothing on."""

    def __init__(self) -> None:
        self.unsent = 0
        self.aborted = False

    def get_extra_info(self, name: str) -> object:
        subject = ((("organizationalUnitName", "node"),), (("commonName", "n2"),))
        return {"subject": subject} if name == "peercert" else None

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes) -> None:
        self.unsent += len(data)

    def abort(self) -> None:
        self.aborted = True


def connected() -> tuple[Sender, Connection]:
    sender, connection = Sender("n2", pb.Hello(name="n1"), lambda: None), Connection()
    sender.connection_made(cast(asyncio.Transport, connection))
    return sender, connection


async def test_a_peer_that_does_not_read_costs_no_more_than_the_bounds() -> None:
    sender, connection = connected()
    sender.pause_writing()  # asyncio says so at WRITE_HIGH
    connection.unsent = WRITE_HIGH
    block = bytes(1024 * 1024)
    assert [sender.send(block, bulk=True) for _ in range(20)] == [True] * 16 + [False] * 4
    assert sender._waiting_bytes == MAX_WAITING
    urgent = bytes(100 * 1024)
    taken = [sender.send(urgent, bulk=False) for _ in range(20)]
    assert connection.unsent <= MAX_URGENT + len(urgent)
    assert taken[0], "heartbeats do not stand behind bulk"
    assert not taken[-1]


async def test_a_refusal_is_understood() -> None:
    sender, connection = connected()
    sender.data_received(frame(pb.Refusal(no_member=True)))
    assert isinstance(await sender.closed, NoMember)
    assert connection.aborted


@pytest.mark.parametrize(
    "data",
    [
        frame(pb.Refusal()),
        frame(pb.Message(term=7)),
        b"\x00\x00\x00\x02\xff\xff",
        (MAX_REFUSAL + 1).to_bytes(4, "big"),
        b"\xff\xff\xff\xff",
    ],
    ids=["no reason", "a message", "no protobuf", "too long", "far too long"],
)
async def test_anything_else_against_the_direction_ends_the_connection(data: bytes) -> None:
    sender, connection = connected()
    sender.data_received(data)
    why = await sender.closed
    assert isinstance(why, BadPeer)
    assert not isinstance(why, NoMember)
    assert connection.aborted
