"""What the rest of hasys needs of a consensus engine. PySyncObj's Raft is one engine; etcd can be another.

Nothing here names Raft beyond what design section 3 needs as evidence for a grant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hasys.config import Member


class StateMachine(Protocol):
    """Deterministic: the same commands in the same order give the same state and answers on every member."""

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply the committed command of log entry ``index`` and return its answer. Never raises for bad input: a
        command that cannot be applied is answered, and changes nothing."""
        ...

    def snapshot_parts(self) -> Iterator[bytes]:
        """The whole state after the last applied command in pieces, each soon made: as it is at this call, also when
        commands are applied meanwhile."""
        ...

    def restore(self, index: int, data: bytes) -> None:
        """Replace the state by a snapshot taken after entry ``index``."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """A proposal that is committed on a durable majority and applied here."""

    index: int
    answer: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """Evidence that this member may answer keep-alives now (design section 3, "Grants").

    It exists only on a leader that has committed and applied an entry of its own term.
    """

    term: int
    applied: int
    """Index of the last applied entry: the version of the assignments that a grant speaks of."""
    t_q: float
    """Own monotonic clock: send time of the latest heartbeat round that a majority (self included) has acknowledged."""
    silent_since: float
    """Own monotonic clock: no round of an earlier leader was acknowledged after this by the voters that elected us:
    the latest of (receipt of vote - its ``silence``), our own vote included. Earlier grants are over at
    ``silent_since + over(ttl_max)``."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """For display and for the failover bound."""

    role: str  # Leader | Follower | Candidate | NonVoting
    leader: str | None
    term: int
    committed: int
    applied: int
    voters: tuple[str, ...]
    connected: tuple[str, ...]
    quorum: bool
    message: str = ""
    cut: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each member that is reached, and for this one: its addresses that are not. Members of whom that is not known
    yet are missing."""
    levels: Mapping[str, int] = field(default_factory=dict)
    """What each member understands (:mod:`hasys.model.level`), this one included. Who is not heard is missing."""
    member: bool = True
    """False: this one was removed, as its own log or another member says while no leader is heard."""


class Engine(Protocol):
    """One member of the replicated log. All calls come from the event loop that runs it; callbacks run there too."""

    async def run(self) -> None:
        """Serve until cancelled. Any internal error ends it with an exception (never silently)."""
        ...

    async def propose(self, command: bytes, *, timeout: float) -> Applied:
        """Commit and apply a command; works on any member (forwarded to the leader).

        Raises ``hasys.model.errors.Unavailable`` (not accepted, nothing changed), ``Unknown`` (may have happened),
        ``TimedOut``.
        """
        ...

    async def confirm(self, *, timeout: float) -> None:
        """Return when it is proven that this member led at some moment after the call: its applied state then has every
        write that was acknowledged before the call. Raises ``Unavailable`` when it does not lead or no majority
        answers in time."""
        ...

    def authority(self) -> Authority | None:
        """Evidence for grants, or None when this member does not lead or has not committed in its term."""
        ...

    def status(self) -> EngineStatus: ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back when leader, role, term or ``EngineStatus.cut`` changed, or when authority came or went."""
        ...

    def on_applied(self, callback: Callable[[int], None]) -> None:
        """Call back after entries were applied, with the last index."""
        ...

    def members(self) -> tuple[Member, ...] | None:
        """The members with a store as the log names them; None: node.yaml names them (nothing was changed yet)."""
        ...

    def on_members(self, callback: Callable[[], None]) -> None:
        """Call back when the members changed."""
        ...

    async def hand_over(self) -> None:
        """Ask a caught-up member to lead now, before a planned stop. Best effort."""
        ...


class ChangingEngine(Engine, Protocol):
    """An engine whose members can be changed while it runs. Members are changed on the leader alone."""

    def learners(self) -> frozenset[str]:
        """Members that still copy the log and do not vote yet."""
        ...

    def living(self) -> frozenset[str]:
        """Voters that answered lately, as the leader sees it."""
        ...

    def settled(self) -> bool:
        """No change of the members waits for its commit: what ``members`` names will stay."""
        ...

    async def add_member(self, member: Member, *, timeout: float) -> None:
        """Take a member in: it copies the log and votes once it has caught up. For a known name: change its addresses.
        Returns when that is committed. Raises ``Refused`` with the reason, ``Unavailable``, ``Unknown``."""
        ...

    async def remove_member(self, name: str, *, timeout: float) -> None:
        """Let a member go. Raises as ``add_member``, and ``Refused`` when the majority that lives would be lost."""
        ...

    def check_removal(self, name: str) -> None:
        """Raises what ``remove_member`` would be refused with now. Of the leader too, which hands over first."""
        ...
