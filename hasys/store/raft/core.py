"""One member of the Raft group, without any I/O: PySyncObj's ``SyncObj``, the layers below, and the entry points.

Whoever drives it (the engine, a simulation) calls an entry point with the present time, then sends what
:meth:`~Foundation.take_outgoing` gives, runs the disk job that :meth:`Core.take_job` gives, and comes back at
:meth:`Core.next_deadline` at the latest. Several inputs may be handed in before one :meth:`Core.advance`.

Private methods of the library are overridden under their mangled names (``_SyncObj__...``); the version is pinned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from hasys.model.timing import Timing
from hasys.store.raft.changing import Changing
from hasys.store.raft.frames import SnapshotFile
from hasys.store.raft.journal import FIRST_INDEX, Job, LogItem
from hasys.store.raft.membership import Membership, pack_snapshot
from hasys.store.raft.pysyncobj_shim import Clock
from hasys.v1 import raft_pb2 as pb

COMPACT_BYTES = 8 * 1024 * 1024
"""Log written since the last snapshot that asks for the next one (or twice the snapshot, if that is more)."""
COMPACT_ENTRIES = 20_000
KEEP_ENTRIES = 1_000
KEEP_BYTES = 1024 * 1024
"""Of the log behind a snapshot, for followers that are a little behind."""


PARTS_AT_ONCE = 4
"""Pieces of a snapshot that are made in one turn: all of a small state."""


@dataclass
class _Packing:
    """A snapshot that is being made."""

    index: int
    term: int
    membership: Membership | None
    left: Iterator[bytes]
    parts: list[bytes] = field(default_factory=list)

    def finished(self, count: int) -> bool:
        """Make so many pieces; True: that was all."""
        made = list(islice(self.left, count))
        self.parts += made
        return len(made) < count


class Core(Changing):
    """The entry points. After a :class:`SafetyViolated` or any other exception the core must not be used any more."""

    compact_bytes = COMPACT_BYTES
    compact_entries = COMPACT_ENTRIES
    keep_entries = KEEP_ENTRIES
    parts_at_once = PARTS_AT_ONCE
    _packing: _Packing | None = None

    def _enter(self, now: float) -> None:
        Clock.now = now
        self._fall_back()

    def receive(self, now: float, peer: str, message: pb.Message, network: int = 0) -> None:
        """A message of another voter, from the network with that number."""
        self._enter(now)
        kind = message.WhichOneof("body")
        if kind in ("heartbeat", "heartbeat_answer", "append", "snapshot_chunk"):
            getattr(self, f"_on_{kind}")(peer, message, network)
        elif kind in ("proposal_answer",):
            self._on_proposal_answer(message)
        elif kind is not None:
            getattr(self, f"_on_{kind}")(peer, message)

    def advance(self, now: float) -> None:
        """Do everything that is due: timers, replication, commit, applying, acknowledgements, compaction."""
        self._enter(now)
        self._ask_standing()
        self._election_timer()
        if self.leading:
            self._admit()
            self._promote()
            self._advance_commit()
            self._confirm_reads()
            self._send_round()
            self._confirm_reads()
            self._replicate()
            self._hand_over()
        self._SyncObj__applyLogEntries()
        self._acknowledge()
        self._compact()

    def connected(self, now: float, peer: str) -> None:
        """There is a way to that member."""
        self._enter(now)
        self._connected.add(peer)
        if peer in self._progress:
            progress = self._progress[peer]
            progress.connected = True
            progress.start_over(self._requests)

    def disconnected(self, now: float, peer: str) -> None:
        """There is none any more."""
        self._enter(now)
        self._connected.discard(peer)
        if peer in self._progress:
            self._progress[peer].connected = False

    # ------------------------------------------------------------ disk
    def take_job(self, now: float) -> Job | None:
        """A disk job to run, one at a time; then call :meth:`persisted`."""
        job = self._journal.take_job()
        if job is not None:
            self._job_since = now
        return job

    def persisted(self, now: float, job: Job) -> None:
        """The job has run without an error."""
        self._job_since = None
        self._journal.done(job)
        self._enter(now)
        self._release_held()

    def _compact(self) -> None:
        """Piece by piece: a leader that packed a large state at a stretch would not be heard meanwhile."""
        if self._packing is None and self._grown():
            at = self.applied
            self._packing = _Packing(
                at, self._journal.term_at(at), self._membership_at(at), self._machine.snapshot_parts()
            )
        packing = self._packing
        if packing is None or not packing.finished(self.parts_at_once):
            return
        self._packing = None
        data = pack_snapshot(packing.membership, b"".join(packing.parts))
        if packing.index > self._journal.first:  # else the leader's snapshot came in between
            taken = SnapshotFile(packing.index, packing.term, data)
            self._journal.compact(taken, self._entries_to_keep(taken.index))

    def _grown(self) -> bool:
        """Enough was written and applied since the last snapshot."""
        journal = self._journal
        snapshot = journal.snapshot
        wanted = max(self.compact_bytes, 2 * len(snapshot.data) if snapshot else 0)
        many = self.applied - (snapshot.index if snapshot else 0) >= self.compact_entries
        return (journal.written > wanted or many) and self.applied > journal.first

    def _entries_to_keep(self, index: int) -> int:
        items = self._journal.items
        kept = size = 0
        while kept < min(self.keep_entries, index - self._journal.first) and size < KEEP_BYTES:
            kept += 1
            size += len(items[index - kept + 1 - self._journal.first][0])
        return kept

    # ------------------------------------------------------------ time
    def next_deadline(self) -> float:
        """When :meth:`advance` is due at the latest."""
        if self._packing is not None:
            return self.now
        if self.leading:
            return self._next_round
        if self._undecided():
            return self._next_question
        return self._deadline if self.electable or self.leader is not None else math.inf

    def set_timing(self, timing: Timing) -> None:
        """Use other durations from now on."""
        self.timing = timing

    # ------------------------------------------------------------ for people
    @property
    def role(self) -> str:
        """Leader | Follower | Candidate | NonVoting."""
        if self.leading:
            return "Leader"
        if not self.electable:
            return "NonVoting"
        return "Candidate" if self.candidate else "Follower"

    @property
    def journal_base(self) -> int:
        """Index of the oldest entry that the log still names."""
        return self._journal.first

    def tail(self, count: int) -> list[LogItem]:
        """The newest entries of the log."""
        return self._journal.items[1:][-count:] if len(self._journal.items) <= count else self._journal.items[-count:]

    def reachable_members(self) -> Membership:
        """Whom to dial and to listen to: the members, and whoever another member knows while our log is behind."""
        known = self.membership
        missing = [m for m in self.hint.members if known.get(m.name) is None] if self.hint is not None else []
        return replace(known, members=(*known.members, *missing)) if missing else known

    def log_state(self) -> tuple[int, bool]:
        """The history that the log belongs to, and whether there is no log yet: see ``Membership.history``."""
        return self.membership.history, self._journal.last == FIRST_INDEX

    @property
    def explicit_membership(self) -> Membership | None:
        """The members that the log names; None: nothing but node.yaml names them yet."""
        at, membership = self._memberships[-1]
        return membership if at else None

    def why_not_voting(self) -> str:
        """One line, or empty when this member votes and nothing hinders it."""
        if self._unreadable:
            return self._unreadable
        if self.voting and self.name not in self.voters:
            learns = self.name in self.membership.names
            return "copies the log, and votes once it has caught up" if learns else "is no member any more"
        if self.voting:
            return ""
        if self._lost:
            return f"does not vote until admitted again: {self._lost}"
        if self._joining:
            return "does not vote until admitted: it has no journal of the running cluster"
        missing = ", ".join(self._unheard()) or "an answer"
        return f"waits for {missing}: the first election of a cluster needs every voter once"
