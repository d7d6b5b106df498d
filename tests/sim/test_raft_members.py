"""Changes of the members: what they promise, and histories full of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from hasys.api.server.calls import Call, Writer
from hasys.api.server.maintenance import Maintenance
from hasys.config import Member, NodeConfig
from hasys.model.errors import NotFound, Refused, Unavailable
from hasys.store.directory import Directory
from hasys.store.machine import Machine as StateMachine
from hasys.store.port import ChangingEngine
from hasys.store.raft.core import Core
from hasys.store.raft.journal import open_journal
from hasys.store.raft.membership import Membership, pack_snapshot, unpack_snapshot
from hasys.v1 import api_pb2
from tests.sim.raft_world import Ledger, Machine, World

HANDFUL = 0.05
ADMIN = cast(Call, SimpleNamespace(caller=SimpleNamespace(must_be_admin=lambda what: None)))


class ChangingWorld(World):
    """Members of the seed, and machines that may join. A member hears and reaches only whom it knows."""

    def __init__(self, count: int, joiners: int, seed: int) -> None:
        super().__init__(count, seed)
        self.seeded = tuple(self.machines)
        for number in range(count, count + joiners):
            name = f"n{number + 1}"
            self.machines[name] = self._machine(name)
        self.out: set[str] = set(self.machines) - set(self.seeded)
        """Machines that are no members, as far as the operator knows."""

    def make_core(self, machine: Machine) -> Core:
        machine.ledger = Ledger(self.truth)
        own = () if machine.name in self.seeded else (machine.name,)
        core = Core(
            machine.name, self.seeded + own, timing=self.timing, opened=open_journal(machine.disk),
            machine=machine.ledger, now=machine.local(self.now),
        )  # fmt: skip
        core.compact_bytes, core.compact_entries, core.keep_entries = 2000, 40, 10
        return core

    def _arrival(self, sender: str, to: str, raw: bytes, network: int) -> Callable[[], None]:
        inherited = super()._arrival(sender, to, raw, network)

        def arrive() -> None:
            core = self.machines[to].core
            if core is not None and sender in core.reachable_members().names:
                inherited()

        return arrive

    def change(self, what: Callable[[Core, float], int]) -> None:
        """Ask the leader. Raises what it refuses with."""
        leader = self.leader()
        if leader is None:
            raise Unavailable("no leader")
        machine = self.machines[leader]
        assert machine.core is not None
        try:
            what(machine.core, machine.local(self.now))
        finally:
            self._pump(machine)

    def add(self, name: str) -> None:
        self.change(lambda core, now: core.add_member(now, Member(name, "Voter", ())))
        self.out.discard(name)

    def remove(self, name: str) -> None:
        self.change(lambda core, now: core.remove_member(now, name))
        self.out.add(name)

    def voters(self) -> tuple[str, ...]:
        leader = self.leader()
        return core_of(self, leader).voters if leader is not None else ()

    def grow(self, name: str) -> None:
        """Add a machine and wait until it votes."""
        if self.machines[name].core is None:
            self.start(name)
        self.add(name)
        self.run_until(lambda: name in self.voters() and core_of(self, name).electable, 5.0)
        wrote(self)  # hence the change is committed


def core_of(world: World, name: str) -> Core:
    core = world.machines[name].core
    assert core is not None
    return core


def cluster(joiners: int = 1, seed: int = 1) -> ChangingWorld:
    world = ChangingWorld(3, joiners, seed)
    for name in world.seeded:
        world.start(name)
    world.run_until(lambda: world.leader() is not None, 3.0)
    world.run_until(lambda: all(core_of(world, n).voting for n in world.seeded), 3.0)
    wrote(world)
    return world


def wrote(world: World, limit: float = 3.0) -> None:
    """A write is acknowledged."""
    world._write_at_last(limit)


def served(world: World, leader: str) -> Maintenance:
    """What answers administrators on that member, beside its core."""
    core, machine = core_of(world, leader), world.machines[leader]

    async def hand_over() -> None:
        core.hand_over(machine.local(world.now))
        world._pump(machine)

    engine = cast(
        ChangingEngine,
        SimpleNamespace(
            members=lambda: core.membership.members, on_members=lambda callback: None, settled=core.members_settled,
            living=core.living, check_removal=lambda name: core.check_removal(machine.local(world.now), name),
            hand_over=hand_over,
        ),
    )  # fmt: skip
    voters = tuple(Member(name, "Voter", ()) for name in world.machines)
    config = cast(NodeConfig, SimpleNamespace(members=voters, voters=voters, name=leader, policy=""))
    state = StateMachine()
    directory = Directory(config, state, engine)
    directory.refresh()
    return Maintenance(config, state, engine, directory, cast(Writer, None))


def followers(world: ChangingWorld) -> list[str]:
    return [n for n in world.voters() if n != world.leader()]


def test_who_may_not_lead_names_no_leader_either_once_it_hears_none() -> None:
    """Whoever asks a learner would be passed on to a leader of the past for ever."""
    world = cluster()
    world.start("n4")
    world.add("n4")
    newcomer = core_of(world, "n4")
    world.run_until(lambda: newcomer.leader is not None, 3.0)
    world.isolate("n4")
    assert not newcomer.electable
    world.run(world.timing.election_max + HANDFUL)
    assert newcomer.leader is None
    world.heal()
    world.run_until(lambda: newcomer.leader is not None and newcomer.electable, 5.0)


def test_an_added_member_copies_the_log_then_votes() -> None:
    world = cluster()
    for _ in range(100):
        wrote(world)
    world.start("n4")
    world.run(1.0)
    assert core_of(world, "n4").role == "NonVoting"
    world.add("n4")
    assert "n4" not in world.voters(), "a learner does not count"
    world.run_until(lambda: "n4" in world.voters(), 5.0)
    world.run_until(lambda: core_of(world, "n4").electable, 1.0)
    ledger = world.machines["n4"].ledger
    assert ledger is not None
    assert all(ledger.entries[index] == command for command, index in world.acknowledged.items())


def test_a_member_that_never_comes_costs_the_majority_nothing() -> None:
    world = cluster()
    world.add("n4")
    world.run(3.0)
    assert world.voters() == ("n1", "n2", "n3")
    world.crash(followers(world)[0], power=True)
    wrote(world)
    world.remove("n4")
    world.run(0.5)
    assert "n4" not in core_of(world, str(world.leader())).membership.names


def test_a_dead_voter_is_replaced_and_another_may_then_die() -> None:
    world = cluster()
    dead = followers(world)[0]
    world.crash(dead, power=True)
    world.grow("n4")
    world.remove(dead)
    world.run_until(lambda: dead not in world.voters(), 2.0)
    assert len(world.voters()) == 3
    world.crash(followers(world)[0], power=True)
    wrote(world)
    world.crash(str(world.leader()), power=True)
    world.run(5.0)
    assert world.leader() is None, "one of three is no majority"


def test_a_change_that_would_lose_the_living_majority_is_refused_with_the_reason() -> None:
    world = cluster()
    world.crash(followers(world)[0], power=True)
    world.run(0.5)
    for alive in (n for n in world.seeded if world.machines[n].core is not None):  # the leader too
        with pytest.raises(Refused, match="a majority of 2 is needed"):
            world.remove(alive)


def test_a_leader_whose_others_have_just_fallen_silent_is_not_removed() -> None:
    world = cluster()
    core = core_of(world, str(world.leader()))
    for progress in core._progress.values():
        progress.connected = False
    with pytest.raises(Refused, match="n2, n3 that remain none answers, and a majority of 2 is needed"):
        core.check_removal(world.machines[core.name].local(world.now), core.name)


def test_the_leader_is_not_removed_before_it_handed_over() -> None:
    world = cluster()
    with pytest.raises(Unavailable, match="hands over first"):
        world.remove(str(world.leader()))


def test_a_second_change_waits_for_the_first() -> None:
    world = cluster(joiners=2)
    world.add("n4")
    with pytest.raises(Unavailable, match="not committed yet"):
        world.add("n5")
    world.run(0.5)
    with pytest.raises(Refused, match="has not caught up yet"):
        world.add("n5")


def test_a_new_leader_changes_nothing_before_an_entry_of_its_term_is_committed() -> None:
    """Else two leaders could each change the members of an old state: the known fault of one-at-a-time changes."""
    world = cluster()
    leader = str(world.leader())
    core = core_of(world, leader)
    core._SyncObj__noopIDx = core.applied + 1
    with pytest.raises(Unavailable, match="does not lead with a majority"):
        core.add_member(world.machines[leader].local(world.now), Member("n4", "Voter", ()))


def test_a_change_that_was_never_committed_is_taken_back() -> None:
    world = cluster()
    old = str(world.leader())
    for other in world.seeded:
        if other != old:
            world.cut |= {(old, other), (other, old)}
    world.add("n4")
    assert "n4" in core_of(world, old).membership.names
    world.run_until(lambda: world.leader() not in (None, old), 3.0)
    world.heal()
    wrote(world)
    world.run_until(lambda: core_of(world, old).leader == world.leader(), 3.0)
    world.run(0.5)
    assert core_of(world, old).membership.names == ("n1", "n2", "n3")


def test_a_member_that_missed_the_change_follows_a_leader_it_never_heard_of() -> None:
    world = cluster()
    away = followers(world)[0]
    world.crash(away, power=True)
    world.grow("n4")
    old = str(world.leader())
    other = next(n for n in followers(world) if n not in (away, "n4"))
    world.run_until(lambda: core_of(world, old)._progress["n4"].match == core_of(world, old)._journal.last, 2.0)
    world.cut |= {(old, other), (other, old)}  # so that n4 is the one that is asked to lead
    machine = world.machines[old]
    core_of(world, old)._progress[other].connected = False
    core_of(world, old).hand_over(machine.local(world.now))
    world._pump(machine)
    world.run_until(lambda: world.leader() == "n4", 2.0)
    world.heal()
    world.start(away)
    assert "n4" not in core_of(world, away).membership.names
    world.run_until(lambda: "n4" in core_of(world, away).membership.names, 10.0)
    assert core_of(world, away).leader == "n4"


def test_the_members_survive_snapshots_and_a_power_cut_of_all() -> None:
    world = cluster()
    world.grow("n4")
    gone = next(n for n in followers(world) if n != "n4")
    world.remove(gone)
    world.run(0.5)
    for _ in range(100):
        wrote(world)
    for name in world.machines:
        world.crash(name, power=True)
    for name in world.machines:
        if name != gone:
            world.start(name)
    world.run_until(lambda: world.leader() is not None, 5.0)
    assert core_of(world, "n4").journal_base > 1, "there must have been a snapshot"
    assert gone not in world.voters()
    assert "n4" in world.voters()
    wrote(world)


def test_a_removed_member_that_returns_disturbs_nobody() -> None:
    world = cluster()
    gone = followers(world)[0]
    world.remove(gone)
    world.run(0.5)
    leader, term = world.leader(), core_of(world, str(world.leader())).term
    world.crash(gone, power=False)
    world.start(gone)
    world.run(5.0)
    assert (world.leader(), core_of(world, str(leader)).term) == (leader, term)


def test_a_member_moves_to_other_addresses() -> None:
    world = cluster()
    moved = followers(world)[0]
    world.change(lambda core, now: core.add_member(now, Member(moved, "Voter", ("10.0.0.9",))))
    world.run(0.5)
    for name in world.seeded:
        member = core_of(world, name).membership.get(moved)
        assert member is not None
        assert member.addresses == ("10.0.0.9",)
    assert len(world.voters()) == 3


@pytest.mark.parametrize("seed", range(20))
def test_histories_of_changes_and_crashes_lose_no_acknowledged_write(seed: int) -> None:
    """Every check of the world runs after each step: one leader per term, equal logs, one command per index."""
    world = cluster(joiners=3, seed=1000 + seed)
    for _ in range(60):
        _something(world)
        world.run(world.rng.uniform(0.05, 0.6))
    world.heal()
    for name in world.machines:
        if world.machines[name].core is None:
            world.start(name)
    world.run_until(lambda: world.leader() is not None, 30.0)
    wrote(world, 10.0)
    world.run(3.0)
    for name in world.voters():
        ledger = world.machines[name].ledger
        assert ledger is not None
        for command, index in world.acknowledged.items():
            assert ledger.entries.get(index) == command, f"{name} has lost entry {index}"


def _something(world: ChangingWorld) -> None:
    rng = world.rng
    choice = rng.random()
    running = sorted(n for n, m in world.machines.items() if m.core is not None)
    down = sorted(n for n, m in world.machines.items() if m.core is None)
    with contextlib.suppress(Refused, Unavailable):
        if choice < 0.4 and running:
            world.write(rng.choice(running))
        elif choice < 0.55 and world.out:
            name = rng.choice(sorted(world.out))
            if world.machines[name].core is None:
                world.start(name)
            world.add(name)
        elif choice < 0.7 and world.voters():
            world.remove(rng.choice(world.voters()))
        elif choice < 0.8 and len(down) < 2 and running:
            world.crash(rng.choice(running), power=rng.random() < 0.5)
        elif choice < 0.9 and down:
            world.start(rng.choice(down))
        elif choice < 0.95 and running:
            world.isolate(rng.choice(running))
        else:
            world.heal()


def test_a_snapshot_keeps_members_and_state_apart() -> None:
    membership = Membership(
        (Member("n1", "Voter", ("10.0.0.1",), 1, 2, 3), Member("w", "Witness", ())), frozenset({"w"}), 7
    )
    assert unpack_snapshot(pack_snapshot(membership, b"state")) == (membership, b"state")
    assert unpack_snapshot(pack_snapshot(None, b"state")) == (None, b"state")
    assert (membership.voters, membership.names, membership.majority) == (("n1",), ("n1", "w"), 1)


@pytest.mark.anyio
async def test_a_removal_that_is_sent_again_before_it_is_committed_is_not_told_as_done() -> None:
    """A client takes "no such member" for the success of its removal whose answer was lost. Until it is committed it
    may still be undone."""
    world = World(3, 1)
    world.start_all()
    world.run_until(lambda: world.leader() is not None, 10)
    leader = world.leader()
    assert leader is not None
    core = world.machines[leader].core
    assert core is not None
    gone = next(name for name in world.machines if name != leader)
    core.remove_member(world.machines[leader].local(world.now), gone)  # in the log, and nobody else has it
    maintenance = served(world, leader)
    with pytest.raises(Unavailable, match="not committed yet"):
        await maintenance.remove_member(api_pb2.RemoveMemberRequest(name=gone), ADMIN)
    world.run_until(core.members_settled, 5)
    with pytest.raises(NotFound):
        await maintenance.remove_member(api_pb2.RemoveMemberRequest(name=gone), ADMIN)


@pytest.mark.anyio
async def test_a_removal_that_will_be_refused_does_not_move_the_leadership() -> None:
    """The next leader would refuse it; and who had asked through that one would have lost the answer of the first."""
    world = cluster()
    world.crash(followers(world)[0], power=True)
    world.run(0.5)
    leader = str(world.leader())
    maintenance = served(world, leader)
    with pytest.raises(Refused, match=f"cannot remove {leader}: .* a majority of 2 is needed"):
        await maintenance.remove_member(api_pb2.RemoveMemberRequest(name=leader), ADMIN)
    world.run(2.0)
    assert world.leader() == leader
    world.grow("n4")
    with pytest.raises(Unavailable, match=f"{leader} led and hands over"):
        await maintenance.remove_member(api_pb2.RemoveMemberRequest(name=leader), ADMIN)
    world.run_until(lambda: world.leader() not in (None, leader), 2.0)
