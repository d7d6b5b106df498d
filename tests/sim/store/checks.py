"""What must hold after every step, whatever fails. Each check raises :class:`Violation` with what, where and when.

The names are those of the Raft paper (Ongaro and Ousterhout, 2014, figure 3) where it has one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hasys.api.kinds import Ref
from hasys.store.machine import Changed, Machine
from hasys.store.raft.core import Core
from hasys.store.raft.foundation import Outgoing
from hasys.store.raft.journal import Journal, Opened
from hasys.v1.api_pb2 import WatchResponse

NEWEST = 60
"""Committed entries, from the newest on, that are looked for in the log of a new leader."""


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class LogView:
    """What a member would still know after losing its power now, and what it has in memory."""

    journal: Journal
    running: bool

    def keeps(self, index: int, term: int) -> bool:
        """Is the committed entry durable here?"""
        journal = self.journal
        if journal.first >= index:
            return True
        found = not self.running or not journal.durable  # not written anew yet: what was found is what was announced
        durable = journal.last if found else journal.durable_index
        return durable >= index and journal.term_at(index) == term

    def has(self, index: int, term: int) -> bool:
        """Is it in the log?"""
        journal = self.journal
        return journal.first >= index or (journal.last >= index and journal.term_at(index) == term)

    @property
    def end(self) -> tuple[int, int]:
        return (self.journal.last_term, self.journal.last)


Views = Callable[[tuple[str, ...]], dict[str, LogView]]
"""The logs of those among these members that vote."""


class Reference:
    """The state machine fed with what was applied first at each place: what every member must agree with."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.commands: dict[int, bytes] = {}
        self.answers: dict[int, bytes] = {}
        self.changes: list[tuple[int, Changed]] = []
        self._versions: dict[Ref, list[tuple[int, int | None]]] = defaultdict(list)
        """Object -> (log index, its resource version from then on; None: deleted)."""
        self._snapshots: dict[int, bytes] = {}
        self.machine.subscribe(self._changed)

    def _changed(self, index: int, changes: Sequence[Changed]) -> None:
        for change in changes:
            self.changes.append((index, change))
            gone = change.type == WatchResponse.DELETED
            self._versions[change.ref].append((index, None if gone else index))

    def answer(self, index: int, command: bytes) -> bytes:
        """State-machine safety: every member applies the same command at the same place. The answer it must give."""
        known = self.commands.setdefault(index, command)
        if known != command:
            raise Violation(f"state-machine safety: two commands were applied as entry {index}")
        if index not in self.answers:
            if index < self.machine.revision:
                raise Violation(f"state-machine safety: entry {index} was applied, others went on without it")
            self.answers[index] = self.machine.apply(index, command)
        return self.answers[index]

    def snapshot_at(self, index: int, data: bytes) -> None:
        """Snapshots of the same place are the same bytes."""
        if self._snapshots.setdefault(index, data) != data:
            raise Violation(f"state-machine safety: two snapshots after entry {index} differ")

    def state_at(self, version: int) -> dict[Ref, int]:
        """Object -> resource version, after that entry."""
        state = {}
        for ref, versions in self._versions.items():
            at = bisect_left(versions, (version + 1,)) - 1
            if at >= 0 and (found := versions[at][1]) is not None:
                state[ref] = found
        return state

    def position_after(self, version: int) -> int:
        """Place in ``changes`` of the first one after a version."""
        return bisect_left(self.changes, version + 1, key=lambda item: item[0])


class Checker:
    """Watches every member from outside: what it says, what it has, what it is after a restart."""

    def __init__(self) -> None:
        self.reference = Reference()
        self.chosen: dict[int, tuple[int, bytes]] = {}
        """Committed: log index -> (term, entry)."""
        self.newest = 0
        self.leaders: dict[int, str] = {}
        self.votes: dict[tuple[str, int, int], str] = {}
        """(voter, its incarnation, term) -> candidate: what was said."""
        self.ballots: dict[int, set[str]] = defaultdict(set)
        """Term -> voters who said their vote to anybody who led, or may lead, in it."""
        self._told_term: dict[str, int] = {}
        self._told_match: dict[str, dict[int, int]] = {}
        """Member -> log index -> term: what it said to have on disk."""
        self._commits: dict[str, int] = {}
        self.acknowledged = 0
        """Newest log index whose write was acknowledged to a client."""

    # ------------------------------------------------------------ what a member says
    def said(self, name: str, journal: Journal, out: Outgoing) -> None:
        """A message leaves: what it promises must be known after any power cut."""
        message, incarnation = out.message, out.message.incarnation
        self._told_term[name] = max(self._told_term.get(name, 0), message.term)
        kind = message.WhichOneof("body")
        if kind in ("vote", "vote_request"):
            candidate = out.peer if kind == "vote" else name
            earlier = self.votes.setdefault((name, incarnation, message.term), candidate)
            if earlier != candidate:
                raise Violation(f"election safety: {name} voted for {earlier} and {candidate} in term {message.term}")
            self.ballots[message.term].add(name)
        elif kind == "append_answer" and not message.append_answer.refused:
            self._matches(name, journal, message.append_answer.match)
        elif kind == "heartbeat_answer":
            self._matches(name, journal, message.heartbeat_answer.match)

    def _matches(self, name: str, journal: Journal, match: int) -> None:
        """The member says that its log up to there is durable."""
        if journal.first <= match <= journal.last:
            promised = self._told_match.setdefault(name, {})
            promised[match] = journal.term_at(match)
            if len(promised) > NEWEST:
                del promised[min(promised)]

    def forgot(self, name: str) -> None:
        """Its disk was replaced: a new incarnation promises anew."""
        self._told_term.pop(name, None)
        self._told_match.pop(name, None)
        self._commits.pop(name, None)

    def restarted(self, name: str, opened: Opened) -> None:
        """After a restart a member knows what it has said."""
        journal = opened.journal
        if opened.lost and name in self._told_term:
            raise Violation(f"durability: {name} lost its journal: {opened.lost}")
        if journal.term < self._told_term.get(name, 0):
            raise Violation(f"durability: {name} spoke in term {self._told_term[name]}, came back in {journal.term}")
        said = self.votes.get((name, journal.incarnation, journal.term))
        if said is not None and journal.voted_for != said:
            raise Violation(f"durability: {name} voted for {said} in term {journal.term} and forgot it")
        view = LogView(journal, running=False)
        for index, term in self._told_match.get(name, {}).items():
            if index in self.chosen and self.chosen[index][0] == term and not view.has(index, term):
                raise Violation(f"durability: {name} acknowledged entry {index} and forgot it")
        self._commits.pop(name, None)

    # ------------------------------------------------------------ what a member has
    def look(self, name: str, core: Core, views: Views) -> None:
        """After each step of a member."""
        if core.leading and self.leaders.get(core.term) != name:
            self._elected(name, core)
        if core.committed != self._commits.get(name, 0):
            self._committed(name, core, views)

    def _elected(self, name: str, core: Core) -> None:
        term = core.term
        holder = self.leaders.setdefault(term, name)
        if holder != name:
            raise Violation(f"election safety: {holder} and {name} both lead in term {term}")
        voters = {v for v in self.ballots[term] if v in core.voters and name in self._votes_of(v, term)} | {name}
        if len(voters) < core.majority:
            raise Violation(f"election safety: {name} leads term {term} with the votes of {sorted(voters)} alone")
        journal = core._journal
        for index in range(max(journal.first + 1, self.newest - NEWEST), self.newest + 1):
            known = self.chosen.get(index)
            if known is None or known[0] >= term:  # of a later term: this one leads without knowing of it
                continue
            if index > journal.last or journal.term_at(index) != known[0]:
                raise Violation(f"leader completeness: {name} leads term {term} without committed entry {index}")

    def _votes_of(self, voter: str, term: int) -> set[str]:
        return {c for (v, _, t), c in self.votes.items() if v == voter and t == term}

    def _committed(self, name: str, core: Core, views: Views) -> None:
        journal = core._journal
        if journal.last < core.committed:
            raise Violation(f"{name} cut its log at {journal.last}, entry {core.committed} is committed")
        start = max(self._commits.get(name, 0), journal.first) + 1
        for _, index, term in journal.items[start - journal.first : core.committed + 1 - journal.first]:
            entry = (term, journal.items[index - journal.first][0])
            if self.chosen.setdefault(index, entry) != entry:
                raise Violation(f"log matching: {name} has another committed entry {index}")
        self._commits[name] = core.committed
        if core.committed > self.newest:
            self.newest = core.committed
            self._stays(core, views(core.voters))

    def _stays(self, core: Core, views: dict[str, LogView]) -> None:
        """A committed entry cannot be voted away: nobody without it would get a majority, though all lose power."""
        index = self.newest
        term = self.chosen[index][0] if index in self.chosen else core.term
        without = {n: v for n, v in views.items() if not v.has(index, term)}
        keeping = {n for n, v in views.items() if v.keeps(index, term)}
        for name, view in without.items():
            backing = [n for n, v in views.items() if n not in keeping or v.end <= view.end]
            if len(backing) >= core.majority:
                raise Violation(
                    f"durability: entry {index} was committed, {name} has not got it and could lead with {backing}"
                )

    # ------------------------------------------------------------ what clients see
    def answered(self, index: int, answer: bytes, command: bytes) -> None:
        """A write was acknowledged."""
        if self.reference.commands.get(index) != command or self.reference.answers.get(index) != answer:
            raise Violation(f"a client's write was acknowledged as entry {index}, where another command is")
        self.acknowledged = max(self.acknowledged, index)

    def read(self, revision: int, acknowledged_before: int, name: str) -> None:
        """Linearizability of a read: it sees every write that was acknowledged before it began."""
        if revision < acknowledged_before:
            raise Violation(
                f"stale read: {name} answered with version {revision}, {acknowledged_before} was acknowledged before"
            )


class LeaseChecker:
    """No two guards hold a group at once, in true time."""

    def __init__(self) -> None:
        self._live: dict[str, dict[str, tuple[float, int]]] = defaultdict(dict)
        self.handovers = 0

    def holds(self, group: str, node: str, now: float, until: float, epoch: int) -> None:
        holders = self._live[group]
        for other, (end, other_epoch) in holders.items():
            if other != node and end > now and until > now:
                raise Violation(
                    f"leases: {node} holds {group} (epoch {epoch}) until {until:.4f}, "
                    f"{other} (epoch {other_epoch}) until {end:.4f}"
                )
        if node not in holders or holders[node][1] != epoch:
            self.handovers += 1
        holders[node] = (until, epoch)

    def lets_go(self, group: str, node: str) -> None:
        self._live[group].pop(node, None)

    def off(self, node: str) -> None:
        """The machine has no power."""
        for holders in self._live.values():
            holders.pop(node, None)


def matching(changes: Iterable[tuple[int, Changed]], kinds: Sequence[str]) -> list[tuple[int, Changed]]:
    """Those that a watcher of these kinds must see."""
    return [(index, change) for index, change in changes if not kinds or change.ref.kind in kinds]
