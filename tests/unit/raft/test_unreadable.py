"""What a leader sends and this member cannot read changes nothing here, is said, and is taken once it can be read."""

from __future__ import annotations

import pytest

from hasys.model.timing import PROFILES
from hasys.store.machine import Machine
from hasys.store.raft.core import Core
from hasys.store.raft.foundation import ADMIT, MEMBERS, REGULAR
from hasys.store.raft.journal import open_journal
from hasys.v1 import raft_pb2 as pb
from tests.sim.raft_disk import SimulatedDisk


def follower() -> Core:
    opened = open_journal(SimulatedDisk())
    return Core("n1", ("n1", "n2", "n3"), timing=PROFILES["default"], opened=opened, machine=Machine(), now=1.0)


def receive(core: Core, **body: object) -> None:
    message = pb.Message(term=2, incarnation=7, voting=True, **body)  # type: ignore[arg-type]
    core.receive(core.now + 0.01, "n2", message)


def append(command: bytes) -> pb.Append:
    return pb.Append(request=1, prev_index=1, prev_term=0, entries=[pb.Entry(term=2, command=command)], commit=2)


@pytest.mark.parametrize("kind", [ADMIT, MEMBERS])
def test_an_entry_of_the_engine_that_makes_no_sense_is_not_taken(kind: bytes) -> None:
    core = follower()
    receive(core, append=append(kind + b"\xff"))
    assert core.tail(5) == []
    assert "entry 2" in core.why_not_voting()
    receive(core, append=append(REGULAR + b"x"))
    assert [index for _, index, _ in core.tail(5)] == [2]
    assert "entry 2" not in core.why_not_voting()


def test_a_snapshot_that_makes_no_sense_is_not_installed() -> None:
    core = follower()
    receive(core, snapshot_chunk=pb.SnapshotChunk(index=5, index_term=2, total=1, data=b"\xff"))
    assert core.committed == 1
    assert "snapshot" in core.why_not_voting()
    good = Machine().snapshot() or b""
    receive(core, snapshot_chunk=pb.SnapshotChunk(index=6, index_term=2, total=len(good), data=good))
    assert core.committed == 6
    assert "snapshot" not in core.why_not_voting()
