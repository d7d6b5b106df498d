"""The ground of the core: PySyncObj's state under readable names, the outbox, and the rule of what may leave when.

The core is written in layers, each a subclass of the one before: foundation, standing, elections, following, leading,
core. Every method is synchronous and does no I/O; time comes in as an argument of the entry points, messages leave
through :meth:`Foundation.take_outgoing`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from hasys.model.timing import Timing
from hasys.store.port import StateMachine
from hasys.store.raft.frames import SnapshotFile
from hasys.store.raft.journal import FIRST_INDEX, Opened
from hasys.store.raft.membership import Membership, unpack_snapshot
from hasys.store.raft.pysyncobj_shim import (
    COMMAND_TYPE,
    RAFT_STATE,
    Clock,
    LogAdapter,
    Node,
    NoTransport,
    SyncObj,
    manual_configuration,
)
from hasys.v1 import raft_pb2 as pb

REGULAR = bytes([COMMAND_TYPE.REGULAR])
NO_OP = bytes([COMMAND_TYPE.NO_OP])
ADMIT = bytes([16])
MEMBERS = bytes([17])
"""First byte of a log entry: a command of the state machine; nothing; a new incarnation votes; the members."""


MAX_HELD = 4096
"""Messages that wait for the disk; when it hangs the oldest are dropped, as by a network."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that may leave now."""

    peer: str
    message: pb.Message
    network: int | None = None
    """Answer on the network on which the question came; None: on the best one."""
    everywhere: bool = False
    """On every network that is up."""
    bulk: bool = False
    """May wait behind others."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a message should travel; see :class:`Outgoing`."""

    network: int | None = None
    everywhere: bool = False
    bulk: bool = False


BEST = Route()
EVERYWHERE = Route(everywhere=True)
BULK = Route(bulk=True)


class SafetyViolated(AssertionError):
    """Something that the algorithm excludes has happened. The process must end, not go on."""


class Foundation(SyncObj):  # type: ignore[misc]  # the library is untyped
    """State, clock and outbox. ``seed``: the members until the log says otherwise."""

    def __init__(
        self,
        name: str,
        seed: Membership | tuple[str, ...],
        *,
        timing: Timing,
        opened: Opened,
        machine: StateMachine,
        now: float,
    ) -> None:
        Clock.now = now
        self.name = name
        self._seed = seed if isinstance(seed, Membership) else Membership.of_names(seed)
        self._memberships: list[tuple[int, Membership]] = [(0, self._seed)]
        """(index of the entry, members from there on), in order; the last one is in force."""
        self._note_names()
        self.timing = timing
        self._machine = machine
        self._journal = opened.journal
        self._started = now
        self._job_since: float | None = None
        self._outbox: list[Outgoing] = []
        self._held: deque[tuple[int, Outgoing]] = deque(maxlen=MAX_HELD)
        super().__init__(
            Node(name), [Node(v) for v in self.voters if v != name], manual_configuration(),
            transport=NoTransport(self._send_inherited),
        )  # fmt: skip
        self._adopt_journal()

    def _adopt_journal(self) -> None:
        """Replace the in-memory log of the library by ours, and what it read from it."""
        snapshot = self._journal.snapshot
        applied = snapshot.index if snapshot else FIRST_INDEX
        if snapshot:
            self._restore(snapshot)
        self._SyncObj__raftLog = LogAdapter(self._journal)
        self._SyncObj__raftCurrentTerm = self._journal.term
        self._SyncObj__votedForNodeId = self._journal.voted_for or None
        self._SyncObj__raftCommitIndex = applied
        self._SyncObj__raftLastApplied = applied
        self._read_memberships(applied)

    def _restore(self, snapshot: SnapshotFile) -> None:
        """State and members of a snapshot; those of later entries are read afterwards."""
        membership, state = unpack_snapshot(snapshot.data)
        self._machine.restore(snapshot.index, state)
        self._memberships = [(snapshot.index, membership) if membership is not None else (0, self._seed)]

    # ------------------------------------------------------------ members
    @property
    def membership(self) -> Membership:
        """In force here: of the newest entry in the log that changes it, committed or not."""
        return self._memberships[-1][1]

    def _read_memberships(self, after: int) -> None:
        for command, index, _ in self._journal.items[1:]:
            if index > after and command[:1] == MEMBERS:
                self._memberships.append((index, Membership.decode(command[1:])))
        self._members_changed()

    def _append(self, command: bytes, index: int, term: int) -> None:
        self._journal.append(command, index, term)
        if command[:1] == MEMBERS:
            self._memberships.append((index, Membership.decode(command[1:])))
            self._members_changed()

    def _truncate(self, index: int) -> None:
        self._journal.truncate(index)
        if self._memberships[-1][0] >= index:
            self._memberships = [change for change in self._memberships if change[0] < index]
            self._members_changed()

    def _membership_at(self, index: int) -> Membership | None:
        """In force after that entry; None: still that of node.yaml."""
        at, membership = [change for change in self._memberships if change[0] <= index][-1]
        return membership if at else None

    def _members_changed(self) -> None:
        """Hook: layers above bring what they keep by member in step."""
        self._note_names()
        self._SyncObj__otherNodes = {Node(v) for v in self.voters if v != self.name}

    def _note_names(self) -> None:
        self.voters = self.membership.voters
        self.peers = tuple(n for n in self.membership.names if n != self.name)
        self.majority = self.membership.majority

    @property
    def electable(self) -> bool:
        """May this member lead, as far as its log tells?"""
        return self.voting and self.name in self.voters

    # ------------------------------------------------------------ the library's state under readable names
    @property
    def now(self) -> float:
        return Clock.now

    @property
    def term(self) -> int:
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def leading(self) -> bool:
        return bool(self._SyncObj__raftState == RAFT_STATE.LEADER)

    @property
    def candidate(self) -> bool:
        return bool(self._SyncObj__raftState == RAFT_STATE.CANDIDATE)

    @property
    def leader(self) -> str | None:
        node = self._SyncObj__raftLeader
        return None if node is None else str(node.id)

    @property
    def committed(self) -> int:
        return int(self._SyncObj__raftCommitIndex)

    @committed.setter
    def committed(self, index: int) -> None:
        self._SyncObj__raftCommitIndex = index

    @property
    def applied(self) -> int:
        return int(self._SyncObj__raftLastApplied)

    @property
    def voting(self) -> bool:
        return self._journal.voting

    @property
    def _deadline(self) -> float:
        """When this voter may ask for votes."""
        return float(self._SyncObj__raftElectionDeadline)

    @_deadline.setter
    def _deadline(self, at: float) -> None:
        self._SyncObj__raftElectionDeadline = at

    def _set_leader(self, name: str | None) -> None:
        self._SyncObj__raftLeader = None if name is None else Node(name)

    def disk_stuck(self) -> bool:
        """A group commit takes longer than a leader may be silent."""
        return self._job_since is not None and self.now - self._job_since > self.timing.leader_fallback

    # ------------------------------------------------------------ outbox
    def _send(self, peer: str, route: Route = BEST, **body: Any) -> None:
        """Queue a message. It leaves once term, vote and standing, as they are now, are on disk: what a member has
        said it must still know after a power cut. (Entries have a rule of their own: see following, leading.)"""
        message = pb.Message(term=self.term, incarnation=self._journal.incarnation, voting=self.voting, **body)
        outgoing = Outgoing(peer, message, route.network, route.everywhere, route.bulk)
        if self._journal.ballot_seq > self._journal.durable:
            self._held.append((self._journal.ballot_seq, outgoing))
        else:
            self._outbox.append(outgoing)

    def _broadcast(self, route: Route = EVERYWHERE, **body: Any) -> None:
        for peer in self.peers:
            self._send(peer, route, **body)

    def _release_held(self) -> None:
        while self._held and self._held[0][0] <= self._journal.durable:
            self._outbox.append(self._held.popleft()[1])

    def take_outgoing(self) -> list[Outgoing]:
        """Messages that may leave now, in order."""
        out, self._outbox = self._outbox, []
        return out

    def _send_inherited(self, peer: str, message: dict[str, Any]) -> None:
        raise AssertionError(f"unexpected message {message['type']} to {peer} from inherited code")
