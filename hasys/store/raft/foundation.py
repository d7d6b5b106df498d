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
from hasys.store.raft.journal import FIRST_INDEX, Opened
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
"""First byte of a log entry: a command of the state machine; nothing; a new incarnation becomes a voter."""


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
    """State, clock and outbox. ``name`` must be among ``voters``."""

    def __init__(
        self, name: str, voters: tuple[str, ...], *, timing: Timing, opened: Opened, machine: StateMachine, now: float
    ) -> None:
        Clock.now = now
        self.name = name
        self.voters = tuple(sorted(voters))
        self.peers = tuple(v for v in self.voters if v != name)
        self.majority = len(self.voters) // 2 + 1
        self.timing = timing
        self._machine = machine
        self._journal = opened.journal
        self._started = now
        self._job_since: float | None = None
        self._outbox: list[Outgoing] = []
        self._held: deque[tuple[int, Outgoing]] = deque(maxlen=MAX_HELD)
        super().__init__(
            Node(name), [Node(p) for p in self.peers], manual_configuration(),
            transport=NoTransport(self._send_inherited),
        )  # fmt: skip
        self._adopt_journal()

    def _adopt_journal(self) -> None:
        """Replace the in-memory log of the library by ours, and what it read from it."""
        snapshot = self._journal.snapshot
        applied = snapshot.index if snapshot else FIRST_INDEX
        if snapshot:
            self._machine.restore(snapshot.index, snapshot.data)
        self._SyncObj__raftLog = LogAdapter(self._journal)
        self._SyncObj__raftCurrentTerm = self._journal.term
        self._SyncObj__votedForNodeId = self._journal.voted_for or None
        self._SyncObj__raftCommitIndex = applied
        self._SyncObj__raftLastApplied = applied

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
