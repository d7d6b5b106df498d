"""One story per rule of the consensus engine, in virtual time. Times are exact up to the network's few milliseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from hasys.model.timing import PROFILES, Timing
from hasys.store.port import Applied
from hasys.store.raft.core import Core
from hasys.store.raft.following import Failure
from hasys.store.raft.foundation import Outgoing
from hasys.store.raft.leading import EVERYWHERE_EACH
from hasys.store.raft.transport import SILENT
from hasys.v1 import raft_pb2 as pb
from tests.sim.raft_world import TIMING, World

HANDFUL = 0.03
"""Seconds for a few messages and disk jobs."""


def cluster(count: int = 3, seed: int = 1, timing: Timing = TIMING) -> World:
    """Started, elected, with a first write applied everywhere."""
    world = World(count, seed, timing)
    world.start_all()
    world.settle()
    return world


def leader_of(world: World) -> str:
    leader = world.leader()
    assert leader is not None
    return leader


def core_of(world: World, name: str) -> Core:
    core = world.machines[name].core
    assert core is not None
    return core


def followers(world: World) -> list[str]:
    return [n for n in world.machines if n != leader_of(world)]


def waits_for(world: World, name: str) -> tuple[str, ...]:
    return core_of(world, name).waits_for(world.machines[name].local(world.now))


def new_leader(world: World, old: str, limit: float) -> float:
    """Time until another member leads with a committed entry."""
    return world.run_until(lambda: world.leader() not in (None, old), limit)


def acknowledged(world: World, name: str, limit: float = 1.0) -> float:
    command = world.write(name)
    assert command is not None
    return world.run_until(lambda: command in world.acknowledged, limit)


# ---------------------------------------------------------------- elections
@pytest.mark.parametrize("seed", range(10))
def test_a_lost_leader_is_replaced_by_election_max(seed: int) -> None:
    world = cluster(seed=seed)
    old = leader_of(world)
    world.isolate(old)
    assert new_leader(world, old, 2.0) <= TIMING.election_max * 1.02 + HANDFUL


@pytest.mark.parametrize("seed", range(10))
def test_a_dead_leader_process_is_replaced_at_once_because_its_connections_close(seed: int) -> None:
    world = cluster(seed=seed)
    old = leader_of(world)
    world.crash(old, power=False)
    assert new_leader(world, old, 2.0) < TIMING.election_max - TIMING.election_min + HANDFUL


def test_a_leader_without_a_majority_steps_down_before_another_can_be_elected() -> None:
    world = cluster()
    old = leader_of(world)
    world.isolate(old)
    took = world.run_until(lambda: world.leader() != old, 1.0)
    assert took <= TIMING.leader_fallback * 1.02 + TIMING.heartbeat + HANDFUL


def test_a_leader_that_was_frozen_gives_up_before_it_does_anything_else() -> None:
    world = cluster()
    old = leader_of(world)
    term = core_of(world, old).term
    world.freeze(old, 3.0)
    world.run(3.0)
    core = core_of(world, old)
    world.run(0.001)
    assert not (core.leading and core.term == term)


def test_a_member_that_was_cut_off_does_not_disturb_the_leader_when_it_returns() -> None:
    world = cluster()
    leader = leader_of(world)
    core = core_of(world, leader)
    term = core.term
    world.isolate(followers(world)[0])
    world.run(5.0)
    world.heal()
    world.run(2.0)
    assert (world.leader(), core.term) == (leader, term)


def test_a_partial_partition_moves_no_leadership() -> None:
    world = cluster()
    leader = leader_of(world)
    a, b = followers(world)
    world.cut |= {(leader, a), (a, leader)}
    world.run(5.0)
    assert world.leader() == leader
    assert acknowledged(world, b) < 0.2


def test_a_voter_that_hears_its_leader_refuses_a_pre_vote_and_a_vote() -> None:
    world = cluster()
    voter, other = followers(world)
    machine = world.machines[voter]
    core = machine.core
    assert core is not None
    now = machine.local(world.now)
    term = core.term
    pre_vote = pb.PreVote(attempt=1, last_index=10**6, last_term=10**6)
    core.receive(now, other, pb.Message(term=term, voting=True, pre_vote=pre_vote))
    answers = [out.message.pre_vote_answer for out in core.take_outgoing()]
    assert [a.granted for a in answers] == [False]
    request = pb.VoteRequest(last_index=10**6, last_term=10**6)
    core.receive(now, other, pb.Message(term=term + 1, voting=True, vote_request=request))
    assert core.take_outgoing() == []
    assert core.term == term


def test_an_answer_that_took_two_networks_counts_once() -> None:
    world = World(5, 1)
    machine = world.machines["n1"]
    world.start("n1")
    core = machine.core
    assert core is not None
    core._become_voter()
    world._pump(machine)
    world.run(HANDFUL)
    for peer in core.peers:
        core.connected(machine.local(world.now), peer)
    core._start_election(handed_over=False)
    vote = pb.Message(term=core.term, voting=True, vote=pb.Vote(silence=1.0))
    for _ in range(5):
        core.receive(machine.local(world.now), "n2", vote)
    assert not core.leading
    core.receive(machine.local(world.now), "n3", vote)
    assert core.leading


def test_leadership_is_handed_over_without_waiting_for_a_timeout() -> None:
    world = cluster()
    old = leader_of(world)
    core = core_of(world, old)
    core.hand_over(world.machines[old].local(world.now))
    world._pump(world.machines[old])
    assert new_leader(world, old, 1.0) < HANDFUL


# ---------------------------------------------------------------- silence
def test_one_follower_alone_is_asked_to_lead_also_when_one_has_answered_the_round_and_another_not_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two that are asked at once would split the votes."""
    world, asked, transmit = cluster(), set[str](), World._transmit

    def seen(self: World, sender: str, out: Outgoing) -> None:
        if out.message.WhichOneof("body") == "timeout_now":
            asked.add(out.peer)
        transmit(self, sender, out)

    monkeypatch.setattr(World, "_transmit", seen)
    for tenths in range(60):
        asked.clear()
        old, machine = leader_of(world), world.machines[leader_of(world)]
        core, term = core_of(world, old), core_of(world, old).term
        world.run(1.0)
        world.run(core._next_round - machine.local(world.now) + tenths / 10_000)
        core.hand_over(machine.local(world.now))
        world._pump(machine)
        assert new_leader(world, old, 1.0) < HANDFUL
        assert core_of(world, leader_of(world)).term == term + 1
        assert asked == {leader_of(world)}


def test_a_new_leader_counts_earlier_proofs_from_the_voter_that_heard_the_old_leader_last() -> None:
    """The candidate was deaf for a second; the voter heard the old leader until it died."""
    world = cluster()
    old = leader_of(world)
    deaf, witness = followers(world)
    world.cut |= {(old, deaf), (witness, deaf)}
    world.run(1.0)
    heard_last = world.now
    world.isolate(old)
    world.cut -= {(witness, deaf)}
    new_leader(world, old, 2.0)
    since = world.silent[max(world.silent)]
    assert since >= heard_last - TIMING.heartbeat - HANDFUL


def test_a_voter_that_restarts_is_silent_no_longer_than_it_runs() -> None:
    world = cluster()
    for name in world.machines:
        world.crash(name, power=True)
    world.run(100.0)
    started = world.now
    world.start_all()
    world.run_until(lambda: world.leader() is not None, 2.0)
    assert world.silent[max(world.silent)] >= started - 1e-6


def test_a_former_leader_counts_its_own_silence_from_its_last_round() -> None:
    world = cluster()
    old = leader_of(world)
    world.isolate(old)
    world.run(0.2)
    machine = world.machines[old]
    core = machine.core
    assert core is not None
    assert machine.local(world.now) - core._last_ack <= TIMING.heartbeat * 1.02 + 1e-6


# ---------------------------------------------------------------- disks
def test_a_slow_disk_of_one_follower_delays_nobody() -> None:
    world = cluster()
    world.machines[followers(world)[0]].disk_delay = (1.0, 1.5)
    world.run(0.2)
    assert acknowledged(world, leader_of(world)) < HANDFUL


def test_a_slow_disk_of_the_leader_alone_delays_nobody_and_a_hung_one_moves_the_leadership() -> None:
    world = cluster()
    old = leader_of(world)
    world.machines[old].disk_delay = (30.0, 30.0)
    assert acknowledged(world, old) < HANDFUL
    assert new_leader(world, old, 3.0) < TIMING.ttl + 2 * TIMING.heartbeat + HANDFUL
    moved_to = leader_of(world)
    world.run(5.0)
    assert world.leader() == moved_to
    assert acknowledged(world, moved_to) < HANDFUL


def longest_without_evidence(world: World, seconds: float, *, writing: bool = True) -> float:
    """Somebody writes all the time, or nobody; how long was nobody able to give a guard a lease?"""
    last, longest = world.now, 0.0
    for turn in range(round(seconds / 0.01)):
        world.run(0.01)
        if writing and turn % 10 == 0 and (leader := world.leader()) is not None:
            world.write(leader)
        for machine in world.machines.values():
            found = machine.core.authority() if machine.core is not None else None
            if found is not None:
                last = max(last, machine.true(found.t_q))
        longest = max(longest, world.now - last)
    return longest


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_follower_whose_syncs_take_two_seconds_causes_no_election_and_costs_no_lease(seed: int) -> None:
    world = cluster(seed=seed)
    leader, term = leader_of(world), core_of(world, leader_of(world)).term
    world.machines[followers(world)[0]].disk_delay = (2.0, 2.0)
    assert longest_without_evidence(world, 12.0) < TIMING.heartbeat + HANDFUL
    assert [core_of(world, name).term for name in world.machines] == [term] * 3
    assert leader_of(world) == leader


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_leader_whose_syncs_take_two_seconds_hands_over_once_and_no_lease_ends(seed: int) -> None:
    world = cluster(seed=seed)
    old, term = leader_of(world), core_of(world, leader_of(world)).term
    world.machines[old].disk_delay = (2.0, 2.0)
    assert longest_without_evidence(world, 12.0) < TIMING.heartbeat + HANDFUL
    assert leader_of(world) != old
    assert [core_of(world, name).term for name in world.machines] == [term + 1] * 3


def heartbeats_answered(world: World, seconds: float, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Counter[str]]:
    """Rounds that the leader sent meanwhile, and how many heartbeats each follower answered."""
    leader, answers, transmit = core_of(world, leader_of(world)), Counter[str](), World._transmit
    before = leader._round

    def counting(self: World, sender: str, out: Outgoing) -> None:
        answers[sender] += out.message.WhichOneof("body") == "heartbeat_answer"
        transmit(self, sender, out)

    with monkeypatch.context() as patched:
        patched.setattr(World, "_transmit", counting)
        world.run(seconds)
    return leader._round - before, +answers


@pytest.mark.parametrize("count", [3, 5])
def test_at_rest_half_of_the_followers_answer_a_round_in_turn(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = cluster(count)
    world.run(2.0)
    rounds, answers = heartbeats_answered(world, 5.0, monkeypatch)
    assert rounds * TIMING.heartbeat > 3 * EVERYWHERE_EACH  # with rounds in which all are asked, on both networks
    assert set(answers) == set(followers(world))
    assert all(rounds / 2 <= answered < 0.75 * rounds for answered in answers.values())
    assert longest_without_evidence(world, 5.0, writing=False) < TIMING.heartbeat + HANDFUL


@pytest.mark.parametrize("timing", PROFILES.values(), ids=list(PROFILES))
def test_what_is_answered_on_a_network_is_followed_there_before_its_path_is_suspect(
    timing: Timing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer goes back by the network of its heartbeat; the next one may take another, but not for long."""
    world, transmit = cluster(timing=timing), World._transmit
    sent: list[float] = []

    def noting(self: World, sender: str, out: Outgoing) -> None:
        if out.message.WhichOneof("body") == "heartbeat" and out.everywhere and out.peer == followers(world)[0]:
            sent.append(self.now)
        transmit(self, sender, out)

    monkeypatch.setattr(World, "_transmit", noting)
    world.run(20.0)
    assert sent, "no heartbeat went over every network"
    assert max(after - before for before, after in pairwise([world.now - 20.0, *sent, world.now])) < SILENT


@pytest.mark.parametrize("writing", [True, False])
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_follower_that_dies_costs_the_evidence_one_round_and_then_the_other_one_answers_all(
    seed: int, *, writing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = cluster(seed=seed)
    world.run(2.0)
    dead, left = followers(world)
    world.crash(dead, power=True)
    assert longest_without_evidence(world, 2.0, writing=writing) < 2 * TIMING.heartbeat + HANDFUL
    rounds, answers = heartbeats_answered(world, 3.0, monkeypatch)
    assert answers[left] >= rounds - 1
    world.start(dead)
    world.run(1.0)
    rounds, answers = heartbeats_answered(world, 5.0, monkeypatch)
    assert answers[left] < 0.75 * rounds, "by turns again"


def test_heartbeats_are_answered_while_the_disk_hangs() -> None:
    world = cluster()
    leader = leader_of(world)
    for name in followers(world):
        world.machines[name].disk_delay = (3.0, 3.0)
    assert world.write(leader) is not None
    world.run(2.5)
    authority = core_of(world, leader).authority()
    assert authority is not None
    assert world.machines[leader].local(world.now) - authority.t_q < TIMING.heartbeat + HANDFUL


def test_a_write_is_not_acknowledged_before_a_majority_has_it_on_disk() -> None:
    world = cluster()
    for machine in world.machines.values():
        machine.disk_delay = (0.5, 0.5)
    assert acknowledged(world, leader_of(world), 3.0) >= 0.5


# ---------------------------------------------------------------- replication
@pytest.mark.parametrize("seed", range(10))
def test_a_leader_killed_with_many_batches_pending_follows_again_within_a_second(seed: int) -> None:
    """In PySyncObj's core one of the two answers to such batches undoes the other for ever."""
    world = cluster(seed=seed)
    old = leader_of(world)
    machine = world.machines[old]
    core = machine.core
    assert core is not None
    world.isolate(old)
    for _ in range(40):
        core.propose(machine.local(world.now), b"lost " + b"x" * 10_000, lambda _: None)
    world._pump(machine)
    world.run(0.05)
    world.crash(old, power=False)
    new_leader(world, old, 2.0)
    for _ in range(40):
        world.write(leader_of(world))
    world.run(0.1)
    world.heal()
    world.start(old)
    index = max(world.acknowledged.values())
    assert world.run_until(lambda: world._applied(machine) >= index, 1.0) < 1.0


def test_a_snapshot_is_made_in_pieces_between_which_everything_else_has_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = cluster()
    machine = world.machines[leader_of(world)]
    core, ledger, made = core_of(world, machine.name), machine.ledger, list[int]()
    assert ledger is not None

    def pieces() -> Iterator[bytes]:
        state = ledger.snapshot()
        for number in range(50):
            made.append(number)
            yield b"" if number else state

    monkeypatch.setattr(ledger, "snapshot_parts", pieces)
    core.compact_entries, at, turns = 1, core.applied, 0
    while not made or core.next_deadline() <= machine.local(world.now):
        before, turns = len(made), turns + 1
        assert turns < 100
        core.advance(machine.local(world.now))
        assert len(made) - before <= core.parts_at_once
        core.compact_entries = 10**6
        if turns == 2:
            acknowledged(world, machine.name)
    assert len(made) == 50
    snapshot = core._journal.snapshot
    assert snapshot is not None
    assert snapshot.index == at < core.applied, "of the state at its beginning"


def test_a_follower_behind_the_log_gets_a_snapshot() -> None:
    world = cluster()
    behind = followers(world)[0]
    world.crash(behind, power=False)
    for _ in range(300):
        world.write(leader_of(world))
        world.run(0.01)
    assert core_of(world, leader_of(world))._journal.first > 100
    world.start(behind)
    index = max(world.acknowledged.values())
    assert world.run_until(lambda: world._applied(world.machines[behind]) >= index, 2.0) < 1.0


def test_a_command_larger_than_a_batch_is_replicated() -> None:
    world = cluster()
    machine = world.machines[leader_of(world)]
    results: list[Applied | Failure] = []
    assert machine.core is not None
    machine.core.propose(machine.local(world.now), b"big " + b"x" * 2_000_000, results.append)
    world._pump(machine)
    world.run(0.5)
    assert [type(r) for r in results] == [Applied]
    assert len({m.core.applied for m in world.machines.values() if m.core}) == 1


def test_a_follower_answers_a_proposal_when_it_has_applied_it_itself() -> None:
    world = cluster()
    name = followers(world)[0]
    assert acknowledged(world, name) < HANDFUL
    assert world._applied(world.machines[name]) >= max(world.acknowledged.values())


def test_a_forwarded_proposal_that_was_lost_is_repeated_and_taken_once() -> None:
    world = cluster()
    leader, name = leader_of(world), followers(world)[0]
    for lost in ((name, leader), (leader, name)):  # the question, then the answer
        world.cut.add(lost)
        command = world.write(name)
        assert command is not None
        world.run(0.02)
        world.heal()
        world.run(1.5)
        assert command in world.acknowledged
        assert list(world.truth.values()).count(command) == 1


def test_a_proposal_without_a_leader_is_refused_and_changes_nothing() -> None:
    world = World(3, 1)
    world.start("n1")
    world.run(5.0)
    results: list[Applied | Failure] = []
    machine = world.machines["n1"]
    assert machine.core is not None
    machine.core.propose(machine.local(world.now), b"x", results.append)
    assert results == [Failure.NOT_ACCEPTED]


def test_a_late_request_of_the_same_leader_cuts_nothing_off() -> None:
    world = cluster()
    leader, name = leader_of(world), followers(world)[0]
    machine = world.machines[name]
    core = machine.core
    assert core is not None
    acknowledged(world, leader)
    world.run(0.2)
    last = core._journal.last
    prev = last - 1
    late = pb.Append(request=1, prev_index=prev, prev_term=core._journal.term_at(prev))
    core.receive(machine.local(world.now), leader, pb.Message(term=core.term, voting=True, append=late))
    assert core._journal.last == last


def test_a_follower_that_lost_its_leader_for_a_while_learns_what_was_committed_without_another_write() -> None:
    world = cluster()
    leader, name = leader_of(world), followers(world)[0]
    core = core_of(world, name)
    assert world.write(leader) is not None
    last = core_of(world, leader)._journal.last
    world.run_until(lambda: core._journal.last == last, HANDFUL)
    assert core.committed < last
    cut_from_its_leader(world, leader, name)
    world.heal()
    world.run(2 * TIMING.heartbeat)
    assert (core.leader, core.applied) == (leader, last)


def test_an_entry_that_came_before_its_leader_was_lost_for_a_while_is_acknowledged_afterwards() -> None:
    """The other follower's disk hangs: the write needs this one."""
    world = cluster()
    leader, (name, other) = leader_of(world), followers(world)
    world.machines[other].disk_delay = (30.0, 30.0)
    world.machines[name].disk_delay = (0.2, 0.2)
    command = world.write(leader)
    last = core_of(world, leader)._journal.last
    world.run_until(lambda: core_of(world, name)._journal.last == last, HANDFUL)
    cut_from_its_leader(world, leader, name)
    world.heal()
    world.run(2 * TIMING.heartbeat)
    assert world.leader() == leader
    assert command in world.acknowledged


def cut_from_its_leader(world: World, leader: str, name: str) -> None:
    """The follower gives its leader up; the others keep it in office."""
    world.cut |= {(leader, name), (name, leader)}
    world.run_until(lambda: core_of(world, name).leader is None, TIMING.election_max * 1.1)


# ---------------------------------------------------------------- reads
def ask(world: World, name: str) -> list[bool]:
    """Ask a member to confirm that it leads; the answer appears in the list."""
    answers: list[bool] = []
    machine = world.machines[name]
    core_of(world, name).confirm(machine.local(world.now), answers.append)
    world._pump(machine)
    return answers


def test_a_leader_confirms_a_read_within_one_round() -> None:
    world = cluster()
    answers = ask(world, leader_of(world))
    assert world.run_until(lambda: answers == [True], 1.0) < HANDFUL


def test_a_follower_confirms_no_read() -> None:
    world = cluster()
    assert ask(world, followers(world)[0]) == [False]


@pytest.mark.parametrize("seed", range(10))
def test_a_deposed_leader_that_still_believes_in_itself_confirms_no_read(seed: int) -> None:
    """A hand-over does not wait for the old leader's time: it leads on in its own eyes while another one writes."""
    world = cluster(seed=seed)
    old = leader_of(world)
    a, b = followers(world)
    machine = world.machines[old]
    core_of(world, old).hand_over(machine.local(world.now))
    world._pump(machine)
    world.cut |= {(a, old), (b, old)}  # it hears nothing more; what it said arrives
    world.run_until(lambda: any(core_of(world, n).leading and core_of(world, n).authority() for n in (a, b)), 1.0)
    new = next(n for n in (a, b) if core_of(world, n).leading)
    assert acknowledged(world, new) < HANDFUL
    assert core_of(world, old).authority() is not None, "the old leader must still believe in itself here"
    answers = ask(world, old)
    world.run(3.0)
    assert answers == [False]


def test_reads_that_wait_share_a_round() -> None:
    world = cluster()
    leader = leader_of(world)
    core = core_of(world, leader)
    machine = world.machines[leader]
    before = core._round
    answers: list[bool] = []
    for _ in range(100):
        core.confirm(machine.local(world.now), answers.append)
    world._pump(machine)
    world.run_until(lambda: len(answers) == 100, 1.0)
    assert all(answers)
    assert core._round - before <= 2


# ---------------------------------------------------------------- standing
def test_one_member_of_three_alone_never_leads_at_the_first_start() -> None:
    world = World(3, 1)
    world.start("n1")
    world.run(20.0)
    core = core_of(world, "n1")
    assert (core.role, core.term) == ("NonVoting", 0)
    assert waits_for(world, "n1") == ("n2", "n3")
    assert core.why_not_voting() == "waits for n2, n3: the first election of a cluster needs every voter once"


def test_two_of_three_do_not_hold_the_first_election_but_name_who_is_missing() -> None:
    world = World(3, 1)
    world.start("n1")
    world.start("n2")
    world.run(20.0)
    assert world.leader() is None
    assert [waits_for(world, n) for n in ("n1", "n2")] == [("n3",), ("n3",)]
    world.start("n3")
    assert world.run_until(lambda: world.leader() is not None, 5.0) < TIMING.election_max + 0.1 + HANDFUL
    assert waits_for(world, "n1") == ()


def test_a_later_start_needs_a_majority_only() -> None:
    world = cluster()
    for name in world.machines:
        world.crash(name, power=True)
    world.start("n1")
    world.start("n2")
    assert world.run_until(lambda: world.leader() is not None, 5.0) < TIMING.election_max + HANDFUL


def test_a_member_never_started_and_a_wiped_one_do_not_begin_anew_without_the_third() -> None:
    """The third alone holds acknowledged writes."""
    world = cluster()
    leader = leader_of(world)
    wiped, unborn = followers(world)
    for name in (leader, wiped, unborn):
        world.crash(name, power=True, wipe=name != leader)
    world.start(wiped)
    world.start(unborn)
    world.run(20.0)
    assert world.leader() is None
    assert waits_for(world, wiped) == (leader,)


def test_all_members_at_once_hold_the_first_election_at_once() -> None:
    world = World(3, 1)
    world.start_all()
    assert world.run_until(lambda: world.leader() is not None, 5.0) < TIMING.election_max + HANDFUL


def test_a_wiped_voter_does_not_vote_while_another_is_down() -> None:
    """Row 39: otherwise the two would elect each other and lose what the third holds."""
    world = cluster()
    leader = leader_of(world)
    wiped, stale = followers(world)
    world.isolate(stale)
    assert acknowledged(world, leader) < HANDFUL  # only the leader and the one that will be wiped have it
    world.crash(leader, power=True)
    world.crash(wiped, power=True, wipe=True)
    world.heal()
    world.start(wiped)
    world.run(20.0)
    assert world.leader() is None
    core = core_of(world, wiped)
    assert core.role == "NonVoting"
    world.settle()


def test_a_wiped_voter_votes_again_once_admitted() -> None:
    world = cluster()
    wiped = followers(world)[0]
    world.crash(wiped, power=True, wipe=True)
    world.start(wiped)
    core = core_of(world, wiped)
    assert not core.voting
    assert world.run_until(lambda: core.voting, 3.0) < 1.0
    world.crash(wiped, power=True)
    world.start(wiped)
    again = core_of(world, wiped)
    assert again.voting


def test_a_damaged_journal_makes_the_member_ask_for_admission() -> None:
    world = cluster()
    name = followers(world)[0]
    world.crash(name, power=True)
    world.machines[name].disk.damage("journal", 30)
    world.start(name)
    core = core_of(world, name)
    assert "damaged" in core.why_not_voting()
    assert world.run_until(lambda: core.voting, 3.0) < 1.0


# ---------------------------------------------------------------- bounds
def test_a_leader_takes_no_more_than_so_much_that_nobody_has_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the memory of a leader without followers would grow for as long as clients write."""
    monkeypatch.setattr("hasys.store.raft.leading.MAX_UNCOMMITTED_BYTES", 10_000)
    world = cluster()
    leader = leader_of(world)
    core, now = core_of(world, leader), world.machines[leader].local(world.now)
    answers: list[Applied | Failure] = []
    for _ in range(30):
        core.propose(now, bytes(1000), answers.append)
    assert answers == [Failure.NOT_ACCEPTED] * 21, "nine with their headers fit"
    assert acknowledged(world, leader) < HANDFUL, "once they are committed there is room again"


def test_a_member_that_booted_again_does_not_repeat_the_numbers_of_its_proposals() -> None:
    """The monotonic clock begins anew with the machine. A leader that took a new proposal for an old one sent again
    would answer with what another command did."""
    world = World(3, 1)
    world.start_all()
    world.run_until(lambda: world.leader() is not None, 10)
    leader = world.leader()
    name = next(n for n in world.machines if n != leader)
    machine = world.machines[name]
    assert machine.core is not None
    began = machine.core._started
    world.write(name)
    world.run(0.2)
    world.crash(name, power=True)
    world.run(0.1)
    machine.offset += began - machine.local(world.now)  # the same uptime at the start of the store
    world.start(name)
    world.run(0.5)
    assert world.leader() == leader
    command = world.write(name)
    world.run(1.0)  # asserts that what is acknowledged is what was written
    assert command in world.acknowledged
