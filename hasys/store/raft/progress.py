"""What a leader knows of one follower, and what to send it next. Pure.

Two modes. *Probing*: one request at a time, until the follower's log is known to match. *Streaming*: requests follow
each other without waiting, as far as the window allows. A refusal, or something lost, leads back to probing, and what
is refused of requests sent before that is dropped. (In PySyncObj's core a late answer undoes such a step for ever.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hasys.store.raft.frames import SnapshotFile
from hasys.store.raft.journal import FIRST_INDEX

BATCH_BYTES = 64 * 1024
"""About this much log in one request; one larger entry goes alone."""
PIPELINE = 2
"""Requests under way after which small ones wait for an answer and then go together: one on the follower's disk, one
behind it. More would wait there; here they cost one message instead of many. Full requests do not wait."""
WINDOW_BYTES = 1024 * 1024
"""Sent and not acknowledged, per follower: bounds what waits in buffers."""
CHUNK_BYTES = 256 * 1024
"""Of a snapshot, per message; one at a time."""


@dataclass(slots=True)
class Sent:
    """A request whose entries are not acknowledged yet."""

    last: int
    size: int
    at: float


@dataclass(slots=True)
class SnapshotTransfer:
    """A snapshot on its way to a follower that is behind the log."""

    snapshot: SnapshotFile
    offset: int = 0
    sent_at: float | None = None
    """When the chunk at ``offset`` was sent; None: it is due."""


@dataclass(slots=True)
class Progress:
    """One follower, during one term of leadership."""

    next: int
    """Index of the first entry that the next request carries."""
    match: int = 0
    """Durable on the follower and equal to our log."""
    incarnation: int = 0
    voting: bool = False
    connected: bool = False
    probing: bool = True
    sent: deque[Sent] = field(default_factory=deque)
    window: int = 0
    """Bytes in ``sent``."""
    floor: int = 0
    """Refusals of requests with smaller numbers are of the past."""
    received: int = 0
    """End of the follower's log in memory, as last heard."""
    transfer: SnapshotTransfer | None = None
    round_time: float | None = None
    """Send time of the newest heartbeat round that it acknowledged."""
    answered_round: int = 0
    asked_round: int = 1
    """The newest round that it was to answer; at first the first one."""
    network: int = 0
    """On which it answered last."""
    wants_commit: bool = False
    """It waits for one of its own proposals: tell it of the commit at once."""
    told_commit: int = 0

    def may_send(self, last: int) -> bool:
        """Is a request with entries (or a first probe without any) due?"""
        if not self.connected or self.transfer is not None:
            return False
        if self.probing:
            return not self.sent
        if len(self.sent) >= PIPELINE and self.sent[-1].size < BATCH_BYTES // 2:
            return False
        return self.next <= last and self.window < WINDOW_BYTES

    def sending(self, last: int, size: int, now: float) -> None:
        """A request that ends at ``last`` leaves now."""
        self.sent.append(Sent(last, size, now))
        self.window += size
        if not self.probing:
            self.next = last + 1

    def acknowledged(self, match: int) -> None:
        """Everything up to ``match`` is durable there; true however old the answer is, if it is of this term."""
        self.match = max(self.match, match)
        while self.sent and self.sent[0].last <= self.match:
            self.window -= self.sent.popleft().size
        if self.transfer is not None and self.match >= self.transfer.snapshot.index:
            self.transfer = None
        self.next = max(self.next, self.match + 1)
        if self.probing and not self.sent:
            self.probing = False

    def refused(self, request: int, hint: int, newest_request: int) -> None:
        """The follower's log does not match in front of a request; it proposes to go on at ``hint``."""
        if request < self.floor:
            return
        self.match = min(self.match, hint - 1)  # it forgot what it had acknowledged: count it no more
        self.probe(max(FIRST_INDEX + 1, min(hint, self.next)), newest_request)

    def probe(self, start: int, newest_request: int) -> None:
        """Begin again at ``start``; what is under way does not count."""
        self.next = start
        self.probing = True
        self.sent.clear()
        self.window = 0
        self.floor = newest_request + 1

    def start_over(self, newest_request: int) -> None:
        """Something was lost. Go on behind what is acknowledged; when nothing is yet, ask again at the same place (from
        the log's beginning it would take a snapshot, which may not exist)."""
        self.probe(self.match + 1 if self.match else self.next, newest_request)

    def heard_from(self, incarnation: int, newest_request: int) -> None:
        """A follower that lost its journal starts from nothing."""
        if incarnation != self.incarnation:
            if self.incarnation:
                self.match = self.received = 0
                self.round_time = None
                self.transfer = None
                self.probe(self.next, newest_request)
            self.incarnation = incarnation

    @property
    def owes_answer(self) -> bool:
        """It has not answered what it was asked last."""
        return self.answered_round < self.asked_round

    def lost(self, now: float, patience: float) -> bool:
        """Was something lost on the way? Not, when it has arrived and only the follower's disk is slow."""
        if not self.sent or now - self.sent[0].at < patience:
            return False
        return self.probing or self.received < self.sent[0].last


def majority_time(times: list[float | None], majority: int) -> float | None:
    """The latest moment that a majority has reached, given each voter's; None before there is one."""
    known = sorted((t for t in times if t is not None), reverse=True)
    return known[majority - 1] if len(known) >= majority else None


def majority_index(indexes: list[int], majority: int) -> int:
    """The highest index that a majority has reached; 0 when too few voters are known."""
    known = sorted(indexes, reverse=True)
    return known[majority - 1] if len(known) >= majority else 0


@dataclass(slots=True)
class SnapshotReceipt:
    """A snapshot that arrives in chunks, strictly in order; bounded by the size announced in its first chunk."""

    index: int
    index_term: int
    total: int
    data: bytearray = field(default_factory=bytearray)

    def add(self, offset: int, chunk: bytes) -> None:
        """A chunk that is not the next one is dropped; the answer says where to go on."""
        if offset == len(self.data) and len(self.data) + len(chunk) <= self.total:
            self.data += chunk

    @property
    def complete(self) -> bool:
        return len(self.data) == self.total
