"""Real engines on loopback: members that come and go, reads, handing over, and old leaders that come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.config import Member, NodeConfig
from hasys.model.errors import HasysError, Refused, Unavailable
from hasys.model.timing import PROFILES
from hasys.store.port import ChangingEngine
from hasys.store.raft.engine import RaftEngine
from tests.certs import Authority
from tests.unit.raft.test_engine import NAMES, Cluster, _free_ports

pytestmark = pytest.mark.anyio
TIMING = PROFILES["default"]


class Growing(Cluster):
    """Three members, and a fourth that only its own node.yaml knows."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (port,) = _free_ports(1)
        self.fourth = Member("n4", "Voter", ("127.0.0.1", "127.0.0.2"), raft_port=port)

    def config(self, name: str, ca: Authority | None = None) -> NodeConfig:
        if name != "n4":
            return super().config(name, ca)
        return replace(super().config("n4", ca), members=(*self.members, self.fourth))

    def led(self) -> RaftEngine:
        """The leader's engine."""
        name = self.leader()
        assert name is not None
        return self.running[name].engine

    def led_lines(self) -> list[bytes]:
        """What the leader has applied."""
        return self.running[self.leader() or ""].machine.lines

    def voters(self) -> tuple[str, ...]:
        return self.led().status().voters if self.leader() is not None else ()

    async def grow(self) -> None:
        self.start("n4")
        await self.led().add_member(self.fourth, timeout=5)
        await self.until(lambda: "n4" in self.voters())
        await self.led().propose(b"hence that is committed", timeout=5)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Growing]:
    cluster = Growing(tmp_path)
    for name in NAMES:
        cluster.start(name)
    await cluster.until(lambda: cluster.leader() is not None)
    yield cluster
    await cluster.stop()


async def test_a_member_is_reached_by_all_without_a_restart_and_votes(cluster: Growing) -> None:
    engine: ChangingEngine = cluster.led()  # the type checker proves that the engine fits its port
    assert engine.members() is None, "until the first change node.yaml names the members"
    applied = await cluster.led().propose(b"before", timeout=5)
    await cluster.grow()
    fourth = cluster.running["n4"]
    await cluster.until(
        lambda: fourth.engine.status().applied >= applied.index and fourth.engine.status().role != "NonVoting"
    )
    assert b"before" in fourth.machine.lines
    await cluster.until(lambda: set(fourth.engine.status().connected) == set(NAMES))
    assert fourth.engine.members() == (*cluster.members, cluster.fourth)


async def test_a_dead_member_is_replaced_and_the_next_may_die(cluster: Growing) -> None:
    dead = next(n for n in NAMES if n != cluster.leader())
    await cluster.running.pop(dead).stop()
    await cluster.grow()
    await cluster.led().remove_member(dead, timeout=5)
    assert dead not in cluster.voters()
    other = next(n for n in NAMES if n not in (dead, cluster.leader()))
    await cluster.running.pop(other).stop()
    await cluster.led().propose(b"with two of three", timeout=5)


async def test_a_removed_member_ceases_to_dial_and_is_heard_again_when_it_is_added(
    cluster: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasys.store.raft.transport.BACKOFF_LAST", 0.05)
    await cluster.grow()
    gone = cluster.running["n4"]
    await cluster.led().remove_member("n4", timeout=5)
    transport = gone.engine._transport
    assert transport is not None
    await cluster.until(lambda: transport.unwanted_by == set(NAMES))
    assert "no member any more" in gone.engine.status().message
    assert not gone.engine.status().member
    assert cluster.led().status().member
    refusals = cluster.led().refusals
    await asyncio.sleep(0.3)
    assert cluster.led().refusals == refusals, "it dialled six times in this time before"
    await cluster.led().add_member(cluster.fourth, timeout=5)
    await cluster.until(lambda: "n4" in cluster.voters())
    await cluster.until(lambda: not transport.unwanted_by and set(gone.engine.status().connected) == set(NAMES))
    await cluster.until(lambda: gone.engine.status().message == "")  # it follows those that let it in
    assert gone.engine.status().member


async def test_a_member_that_hears_a_leader_is_one_whatever_a_member_that_lags_says(cluster: Growing) -> None:
    await cluster.grow()
    fourth = cluster.running["n4"].engine
    await cluster.until(lambda: fourth.status().quorum)
    assert fourth._transport is not None
    fourth._transport.unwanted_by |= {"n1"}
    assert fourth.status().member


async def test_a_member_that_was_down_when_it_was_removed_learns_it_from_the_first_that_it_dials(
    cluster: Growing,
) -> None:
    await cluster.grow()
    await cluster.running.pop("n4").stop()
    await cluster.led().remove_member("n4", timeout=5)
    cluster.start("n4")
    back = cluster.running["n4"].engine
    await cluster.until(lambda: "no member any more" in back.status().message)


async def test_what_is_unsafe_is_refused(cluster: Growing) -> None:
    leader = cluster.leader() or ""
    with pytest.raises(Unavailable, match="hands over first"):
        await cluster.led().remove_member(leader, timeout=1)
    with pytest.raises(Refused, match="no member"):
        await cluster.led().remove_member("n9", timeout=1)
    follower = next(r.engine for n, r in cluster.running.items() if n != leader)
    with pytest.raises(Unavailable, match="does not lead"):
        await follower.add_member(cluster.fourth, timeout=1)


async def test_reads_are_confirmed_by_the_leader_alone(cluster: Growing) -> None:
    await asyncio.gather(*(cluster.led().confirm(timeout=5) for _ in range(100)))
    for name, running in cluster.running.items():
        if name != cluster.leader():
            with pytest.raises(Unavailable):
                await running.engine.confirm(timeout=1)


async def test_a_leader_that_stops_hands_over_within_an_election(cluster: Growing) -> None:
    """Bound: the time until another member leads with authority; an election would take ``election_min`` at least."""
    loop, took = asyncio.get_running_loop(), []
    for _ in range(5):
        old = cluster.leader()
        begun = loop.time()
        await cluster.led().hand_over()
        await cluster.until(lambda old=old: cluster.leader() not in (None, old))  # type: ignore[misc]
        took.append(loop.time() - begun)
    assert sorted(took)[2] < TIMING.election_min


@pytest.mark.parametrize("trial", range(4))
async def test_an_old_leader_with_megabytes_that_nobody_has_rejoins(cluster: Growing, trial: int) -> None:
    old = cluster.leader() or ""
    engine = cluster.running[old].engine
    transport = engine._transport
    assert transport is not None
    send, transport.send = transport.send, lambda out: None  # type: ignore[method-assign]  # it is mute from now on
    tail = [asyncio.create_task(engine.propose(b"tail" * 16_384, timeout=20)) for _ in range(48)]
    await cluster.until(lambda: cluster.leader() not in (None, old))
    answers = [cluster.led().propose(b"%d" % i, timeout=5) for i in range(20 * (trial + 1))]
    last = max(a.index for a in await asyncio.gather(*answers))
    transport.send = send  # type: ignore[method-assign]
    await cluster.until(lambda: engine.status().applied >= last)
    for task in tail:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, HasysError):
            await task
    assert [line for line in cluster.running[old].machine.lines if not line.startswith(b"tail")] == [
        line for line in cluster.led_lines() if not line.startswith(b"tail")
    ]
