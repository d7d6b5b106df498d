"""A lock per group on a disk that two nodes share: one writer per block, numbered claims, a bounded life. Pure.

Each node writes its own block and reads the other's; nothing else lies on the disk, and nothing is ever written there
by two. A block lists the node's claims, each with a ballot, a number above all that the node had seen; of two claims
for a group the higher ballot counts, of equal ones the later name. The rules (the argument: docs/decisions/0012):

1.  A claim is owned when it has been on the disk for ``over(life)`` of every node, and a read that began then shows no
    claim that counts more. It is owned at once when that read shows no claim of the other at all, and nothing but its
    lock could let the other act: then it does not.
2.  What is owned may be acted on until ``life`` after the *beginning* of the last read that showed no claim that counts
    more, with the own claim on the disk since before it began.
3.  Who sees a claim that counts more has lost the group, at once.

So nobody acts on a claim below another one for longer than ``life`` after that other one reached the disk, and the
other one waits longer than that. It needs what one block device gives: a read that begins after a write has ended
shows that write or a later one. Sources: Lamport, "A New Solution of Dijkstra's Concurrent Programming Problem" (one
writer per register); Gafni and Lamport, "Disk Paxos" (ballots in a block per process); Chockler and Malkhi,
"Light-Weight Leases for Storage-Centric Coordination" (the delay).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hasys.model.timing import over

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Claim:
    """One group in a block."""

    ballot: int
    owned: bool = False
    """Rule 1 was fulfilled once; it stays so while the claim lies on the disk."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one node says on the disk."""

    node: str
    seq: int
    """Grows with each write."""
    top: int
    """The highest ballot that this node used or saw."""
    life: float
    """Seconds: how long this node acts on what it read."""
    claims: Mapping[str, Claim] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """One round on the disk: own block written, then both read."""

    written: Block | None
    """None: only read."""
    began: float
    """Own clock, after the write had ended and before the reads began."""
    own: Block | None
    other: Block | None


class Ballots:
    """The claims of one node. ``life`` in seconds of its own clock."""

    def __init__(self, node: str, life: float) -> None:
        self.node, self.life = node, life
        self.loaded = False
        """The disk was read: before that nothing is known, not even what this node claimed itself."""
        self.other: Block | None = None
        self.changed = _NEVER
        """Own clock: when the other's block was last seen to differ."""
        self._seq = self._top = 0
        self._claims: dict[str, Claim] = {}
        self._since: dict[str, float] = {}
        self._waits: dict[str, float | None] = {}
        self._until: dict[str, float] = {}

    @property
    def claims(self) -> Mapping[str, Claim]:
        """What this node claims now, on the disk or about to be."""
        return self._claims

    def until(self, group: str) -> float:
        """Own clock: how long this node may act for the group by its lock."""
        return self._until.get(group, _NEVER)

    def owned(self, group: str) -> bool:
        """The group was won here, and not lost since."""
        claim = self._claims.get(group)
        return claim is not None and claim.owned

    def claimed_by_other(self, group: str) -> bool:
        """The other's block, as last read, names the group."""
        return self.other is not None and group in self.other.claims

    def claim(self, group: str, longest: float | None = None) -> None:
        """Begin to claim, above everything seen. ``longest``: seconds for which something of the other node may go on
        after its lock is over, or for which it may act by other rights; None: it has none."""
        self._top += 1
        self._claims[group] = Claim(self._top)
        self._waits[group] = longest
        self._since.pop(group, None)

    def drop(self, group: str) -> None:
        """This node does not act for the group, and will not before it claimed it anew."""
        for part in (self._claims, self._since, self._waits, self._until):
            part.pop(group, None)

    def write(self) -> Block | None:
        """The block for the next round; None before the first one was read."""
        if not self.loaded:
            return None
        self._seq += 1
        return Block(self.node, self._seq, self._top, self.life, dict(self._claims))

    def looked(self, look: Look, now: float) -> list[str]:
        """Take one round; returns the groups that are lost."""
        if self._differs(look.other):
            self.other, self.changed = look.other, now
        self._top = max(self._top, *(b.top for b in (look.own, look.other) if b is not None), 0)
        if look.written is None:
            return self._load(look)
        if look.own != look.written:  # somebody wiped the disk: what it gave ends in its time, and is claimed anew
            self.loaded = False
            for group in list(self._claims):
                self.drop(group)
            return []
        lost = [g for g, claim in look.written.claims.items() if not self._stands(g, claim, look)]
        for group in lost:
            self.drop(group)
        return lost

    def _differs(self, other: Block | None) -> bool:
        return other is not None and (self.other is None or other.seq != self.other.seq)

    def _load(self, look: Look) -> list[str]:
        """An earlier guard's claims: owned ones are owned still, the others begin anew."""
        self.loaded = True
        if look.own is not None:
            self._seq = max(self._seq, look.own.seq)
            self._claims = {g: claim for g, claim in look.own.claims.items() if claim.owned}
        return []

    def _stands(self, group: str, claim: Claim, look: Look) -> bool:
        """Rules 1 to 3 for a claim that was in the block just written. False: it is lost."""
        mine = self._claims.get(group)
        if mine is None or mine.ballot != claim.ballot:
            return True  # dropped or claimed anew meanwhile: this round says nothing about it
        rival = look.other.claims.get(group) if look.other is not None else None
        if rival is not None and look.other and (rival.ballot, look.other.node) > (claim.ballot, self.node):
            return False
        since = self._since.setdefault(group, look.began)
        life, more = max(self.life, look.other.life if look.other is not None else 0.0), self._waits.get(group)
        at_once = more is None and rival is None
        if claim.owned or at_once or look.began >= since + over(life + (more or 0.0)):
            self._claims[group] = Claim(claim.ballot, owned=True)
            self._until[group] = look.began + self.life
        return True
