"""Stores: a small Raft (whole logs in messages) with what grants need of it, and the real Granter.

Term, vote and log survive a restart; what a voter heard does not. Time-outs only decide when elections happen: nothing
of safety may lean on them, so they are also forced at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hasys.lease.granting import Granter
from hasys.lease.wire import DatagramRefused, Grant, KeepAlive
from hasys.model.timing import Timing
from hasys.store.port import Authority
from tests.sim.grants.state import Command, State
from tests.sim.grants.world import Clock, World

Log = tuple[tuple[int, Command | None], ...]


@dataclass(slots=True)
class Disk:
    """Durable."""

    term: int = 0
    voted: str = ""
    log: Log = ()


@dataclass(slots=True)
class Leadership:
    """What a leader knows; lost with its role."""

    silent_since: float
    t_q: float = float("-inf")
    rounds: dict[int, tuple[float, int, set[str]]] = field(default_factory=dict)
    """Round -> (own clock when sent, length of the log it carried, who acknowledged)."""
    next_round: int = 0


class Store:
    """One voter. ``guards`` delivers a grant to a node's guard."""

    def __init__(self, world: World, name: str, clock: Clock, disk: Disk, setup: Setup) -> None:
        self.world, self.name, self.clock, self.disk, self.setup = world, name, clock, disk, setup
        self.timing = setup.timing
        self.alive = True
        self.frozen_until = 0.0
        self.inbox: list[Callable[[], None]] = []
        self.started = self.clock.at(world.now)
        self.last_ack = self.started
        """Own clock: last acknowledged a leader's round, or, as leader, sent one; never before its start."""
        self.leader_heard = self.asked = self.started
        self.would: set[str] = set()
        """Who would vote for us (pre-vote)."""
        self.votes: dict[str, float] = {}
        """As candidate: voter -> (receipt - silence), own clock."""
        self.leading: Leadership | None = None
        self.commit = self.applied = 0
        self.state = setup.initial
        self.granter = setup.make_granter(name)
        self.world.at(world.now + world.rng.uniform(0.0, 0.02), self.tick)

    # ------------------------------------------------------------------ being a process

    def time(self) -> float:
        return self.clock.at(self.world.now)

    def do(self, call: Callable[[], None]) -> None:
        """Run now, or when thawed; never after death."""
        if not self.alive:
            return
        if self.world.now < self.frozen_until:
            self.inbox.append(call)
        else:
            call()

    def freeze(self, seconds: float) -> None:
        self.frozen_until = max(self.frozen_until, self.world.now + seconds)
        self.world.at(self.frozen_until + 1e-6, self.thaw)

    def thaw(self) -> None:
        """What waited runs in any order: datagrams before timers, or after."""
        if not self.alive or self.world.now < self.frozen_until:
            return
        waiting, self.inbox = self.inbox, []
        if self.world.rng.random() < 0.5:
            self.world.rng.shuffle(waiting)
        for call in waiting:
            self.do(call)

    def post(self, target: str, message: Callable[[Store], None]) -> None:
        store = self.setup.stores
        self.world.send(self.name, target, lambda: store[target].do(lambda: message(store[target])))

    @property
    def others(self) -> list[str]:
        return [s for s in self.setup.voters if s != self.name]

    @property
    def majority(self) -> int:
        return len(self.setup.voters) // 2 + 1

    # ------------------------------------------------------------------ timers

    def tick(self) -> None:
        """Heartbeats of a leader, time-outs of a follower."""
        if not self.alive:
            return
        if self.world.now < self.frozen_until:
            self.inbox.append(self.tick)
            return
        now, t = self.time(), self.timing
        self.world.at(self.world.now + self.clock.lasts(t.heartbeat), self.tick)
        if self.leading is not None:
            if now - self.leading.t_q > t.leader_fallback and now - self.leader_heard > t.leader_fallback:
                self.follow(self.disk.term)
                return
            self.setup.control(self)
            self.send_round()
        else:
            slot = self.setup.voters.index(self.name)
            span = (t.election_max - t.election_min) / len(self.setup.voters)
            if now - max(self.leader_heard, self.asked) > t.election_min + slot * span:
                self.ask_first()

    # ------------------------------------------------------------------ elections

    def ask_first(self) -> None:
        """Pre-vote: raise the term only when a majority would vote."""
        self.asked = self.time()
        self.would = {self.name}
        mine = self.up_to_date()
        for other in self.others:
            self.post(other, lambda s: s.would_vote(self.name, mine))

    def would_vote(self, candidate: str, newest: tuple[int, int]) -> None:
        live = self.leading is not None or self.time() - self.leader_heard < self.timing.election_min
        if not live and newest >= self.up_to_date():
            self.post(candidate, lambda s: s.backed(self.name))

    def backed(self, voter: str) -> None:
        self.would.add(voter)
        if len(self.would) >= self.majority and self.leading is None:
            self.would = set()
            self.campaign()

    def up_to_date(self) -> tuple[int, int]:
        return (self.disk.log[-1][0] if self.disk.log else 0, len(self.disk.log))

    def campaign(self) -> None:
        """Ask for votes. Voters do not refuse because a leader lives: that is stability, safety may not lean on it."""
        self.leading = None
        self.granter.step_down()
        self.disk.term += 1
        self.disk.voted = self.name
        self.asked = self.time()
        self.votes = {self.name: self.time() - self.silence()}
        term, newest = self.disk.term, self.up_to_date()
        for other in self.others:
            self.post(other, lambda s: s.vote(self.name, term, newest))
        self.world.say(f"{self.name} campaigns in term {term}")

    def silence(self) -> float:
        """How long ago this voter last acknowledged any leader; never more than its uptime."""
        return self.time() - self.last_ack

    def vote(self, candidate: str, term: int, newest: tuple[int, int]) -> None:
        if term < self.disk.term:
            own = self.disk.term
            self.post(candidate, lambda s: s.follow(own) if own > s.disk.term else None)
            return
        if term > self.disk.term:
            self.follow(term)
        if newest < self.up_to_date() or self.disk.voted not in ("", candidate):
            return
        self.disk.voted = candidate
        self.asked = self.time()
        silence = self.silence()
        self.post(candidate, lambda s: s.voted(self.name, term, silence))

    def voted(self, voter: str, term: int, silence: float) -> None:
        if term != self.disk.term or not self.votes or self.leading is not None:
            return
        self.votes[voter] = max(self.votes.get(voter, float("-inf")), self.time() - silence)
        if len(self.votes) >= self.majority:
            self.leading = Leadership(max(self.votes.values()))
            self.votes = {}
            self.leader_heard = self.time()
            self.disk.log = (*self.disk.log, (term, None))
            self.world.say(f"{self.name} leads term {term}")
            self.send_round()

    def follow(self, term: int) -> None:
        """Higher term seen, or fallen back."""
        self.leading, self.votes = None, {}
        if term > self.disk.term:
            self.disk.term, self.disk.voted = term, ""
        self.granter.step_down()

    # ------------------------------------------------------------------ rounds

    def send_round(self) -> None:
        lead = self.leading
        assert lead is not None
        now = self.time()
        number, lead.next_round = lead.next_round, lead.next_round + 1
        lead.rounds[number] = (now, len(self.disk.log), {self.name})
        lead.rounds.pop(number - 64, None)
        self.last_ack = now
        term, log, commit = self.disk.term, self.disk.log, self.commit
        for other in self.others:
            self.post(other, lambda s: s.append(self.name, term, number, log, commit))

    def append(self, leader: str, term: int, number: int, log: Log, commit: int) -> None:
        if term < self.disk.term:
            newer = self.disk.term
            self.post(leader, lambda s: s.follow(newer) if newer > s.disk.term else None)
            return
        if term > self.disk.term:
            self.follow(term)
        if self.leading is not None:
            return
        self.votes = {}
        mine = self.disk.log
        if not (len(log) <= len(mine) and mine[: len(log)] == log):  # a late round of this term carries a prefix
            self.disk.log = log
        self.leader_heard = self.last_ack = self.time()
        self.committed(min(commit, len(log)))
        self.post(leader, lambda s: s.acknowledged(self.name, term, number))

    def acknowledged(self, voter: str, term: int, number: int) -> None:
        lead = self.leading
        if lead is None or term != self.disk.term or number not in lead.rounds:
            return
        sent, length, acks = lead.rounds[number]
        acks.add(voter)
        if len(acks) < self.majority:
            return
        lead.t_q = max(lead.t_q, sent)
        self.leader_heard = self.time()
        if length > self.commit and self.disk.log[length - 1][0] == term:
            self.committed(length)

    def committed(self, index: int) -> None:
        if index <= self.commit:
            return
        self.commit = index
        rng = self.world.rng
        lag = rng.uniform(0.0, 0.3) * self.timing.ttl if rng.random() < self.setup.lag else 0.0
        if lag:
            self.world.at(self.world.now + lag, lambda: self.do(self.apply))
        else:
            self.apply()

    def apply(self) -> None:
        if self.applied >= self.commit:
            return
        for _, command in self.disk.log[self.applied : self.commit]:
            if command is not None:
                self.state = self.state.after(command)
        self.applied = self.commit
        self.setup.chosen(self.disk.log[: self.applied])
        if self.state.timing is not None and self.state.timing != self.timing:
            self.timing = self.state.timing
        self.granter.retime(self.timing, self.state.ttl_max)
        if self.leading is not None:
            self.push()

    def propose(self, command: Command) -> None:
        """Only with nothing in flight, so that decisions look at what was decided."""
        if self.leading is not None and self.applied == len(self.disk.log):
            self.disk.log = (*self.disk.log, (self.disk.term, command))
            self.world.say(f"{self.name} proposes {command}")
            self.send_round()

    # ------------------------------------------------------------------ grants

    def authority(self) -> Authority | None:
        lead = self.leading
        if lead is None or not self.applied or self.disk.log[self.applied - 1][0] != self.disk.term:
            return None
        if lead.t_q == float("-inf"):
            return None
        return Authority(self.disk.term, self.applied, lead.t_q, lead.silent_since)

    def keepalive(self, message: KeepAlive) -> None:
        try:
            grant = self.granter.heard(message, self.time(), self.authority(), self.state.assignments)
        except DatagramRefused:
            return
        if grant is not None:
            self.setup.deliver(self.name, grant)
        if self.leading is not None and self.granter.take_news():
            self.setup.control(self)
            self.push()

    def push(self) -> None:
        if not self.alive or self.leading is None:
            return
        for grant in self.granter.due(self.time(), self.authority(), self.state.assignments):
            self.setup.deliver(self.name, grant)
        due = self.granter.next_due(self.time(), self.state.assignments)
        if due is not None:
            wait = max(self.clock.lasts(due - self.time()), 0.0) + 1e-6
            self.world.at(self.world.now + wait, lambda: self.do(self.push))

    def stop(self) -> None:
        self.alive = False


class Setup:
    """What stores share: names, settings, the way to the guards, the controller. See history.py."""

    timing: Timing
    initial: State
    voters: Sequence[str]
    stores: dict[str, Store]
    lag: float

    def make_granter(self, leader: str) -> Granter:
        raise NotImplementedError

    def deliver(self, leader: str, grant: Grant) -> None:
        raise NotImplementedError

    def control(self, store: Store) -> None:
        raise NotImplementedError

    def chosen(self, log: Log) -> None:
        raise NotImplementedError
