"""Two voters and a shared disk that decides who goes on without the other: policy arbiter (docs/decisions/0012).

While both see each other a leader's grants let a node act, as everywhere; here a grant is worth no more than the other
guard's own word, that it has nothing of the group and does not want it, is old. Without grants a node acts by its lock
on the disk (:mod:`hasys.lease.ballots`): the Active has one for each of its groups, taken while it was named, and goes
on; the other takes a lock over when the Active's block stands still. :class:`ArbiterKeeper` is the guard's side,
:class:`ArbiterGranter` the leader's. Pure; the caller passes the time, reads and writes the disk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hasys.lease.assignments import GroupAssignment
from hasys.lease.ballots import Ballots, Block, Look
from hasys.lease.granting import BY_NEWS, Guard, Verdict
from hasys.lease.keeping import Effect, Extend, Keeper, Oath, OathTaken, Revoke
from hasys.lease.tokens import TokenGranter, TokenKeeper
from hasys.lease.wire import UNKNOWN_HEALTH, Grant, Health, KeepAlive, Named
from hasys.model.errors import Refused

LIFE = 5
"""TTLs for which a node acts on what it read on the disk, and after which a block that stands still is nobody's."""
ROUNDS = 8
"""Rounds on the disk per life."""
_NEVER = float("-inf")
_MOST_SENT = 64
"""Grants per node whose time of sending is remembered."""


class ArbiterKeeper(TokenKeeper):
    """``met``: what an earlier guard of this boot of the machine knew."""

    def __init__(self, *args: Any, met: bool = False, **named: Any) -> None:
        super().__init__(*args, **{"policy": "arbiter", **named})
        self.alone_after = LIFE * self._ttl
        self.ballots = Ballots(self.node, LIFE * self._ttl)
        self._met = met
        self._lost_at = _NEVER
        """When a lock was lost last; what a leader granted before says nothing of what the other did since."""
        self.standbys: Mapping[str, float] = {}
        """Groups that this node would run in the other's place -> seconds for which something of it may go on there
        after its lock is over."""
        self._named: frozenset[str] = frozenset()
        """By the newest grant."""

    # ------------------------------------------------------------------ what this node knows

    @property
    def met(self) -> bool:
        """This node knew what the other knew, when it heard it last: a leader was heard since the machine started, the
        other's block moved on this very disk, and the other did not go on alone since."""
        return self._met

    # ------------------------------------------------------------------ the disk

    def round(self, now: float) -> Block | None:
        """What to write before the next read; None: only read."""
        if self.ballots.loaded:
            self._choose(now)
        return self.ballots.write()

    def looked(self, look: Look, now: float) -> list[Effect]:
        """One round is done."""
        effects = self.expire(now)
        before = self.ballots.changed
        lost = list(self.ballots.looked(look, now))
        for group in lost:
            effects += self.give_up(group, "the lock on the arbiter's disk was lost")
        if lost:
            self._met, self._lost_at = False, now  # the other has it
        elif self.ballots.changed != before and before != _NEVER:
            self._saw_the_other(now)
        return effects + self._extend_by_locks(now)

    def _saw_the_other(self, now: float) -> None:
        if self._lease_until > now:
            self._met |= self._confirmed_at > self._lost_at
        elif self.alone(now):
            self._met = False  # it goes on without this node, which does not know any more what it does

    def _extend_by_locks(self, now: float) -> list[Effect]:
        extended: dict[str, float] = {}
        for group, h in list(self._holdings.items()):
            until = self.ballots.until(group)
            by_lock = self._stands(group, h) or self._by_policy(group)
            if by_lock and until > h.until and h.until - self._budget > now:
                self._holdings[group] = replace(h, until=until)
                if h.permitted is not None:
                    extended[group] = until
        return [Extend(extended)] if extended else []

    def _choose(self, now: float) -> None:
        """What to claim in the next block, and what no longer."""
        ballots = self.ballots
        takes = {group for group in self.standbys if self._may_take(group, now)}
        mine = {*self._tokens, *(group for group in self._oaths if self._by_policy(group))}
        for group in [*ballots.claims]:
            if group not in mine | takes:
                ballots.drop(group)
        for group in sorted((mine | takes) - set(ballots.claims)):
            if group in takes:
                ballots.claim(group, max(self.standbys[group], self._ttl))
            elif group in self._named and self._lease_until > now:
                ballots.claim(group)  # the leader has the other's word, so only an old lock of its can stand against it
            elif not ballots.claimed_by_other(group):
                ballots.claim(group, self._ttl)

    def _may_take(self, group: str, now: float) -> bool:
        """Nothing of the other node moves, on the network or on the disk, and this one knows all that it knew."""
        if self.ballots.owned(group) or (group in self.ballots.claims and group not in self._tokens):
            return self.alone(now)
        still = now - self.ballots.changed >= self.ballots.life
        return self._met and still and self.alone(now) and not self.busy(group)

    def won(self, now: float) -> list[str]:
        """Groups whose lock is here and which nobody runs: to be sworn with :meth:`take`."""
        return [
            group
            for group in self.standbys
            if self.alone(now) and not self.busy(group) and self.ballots.until(group) - self._budget > now
        ]

    def take(self, group: str, epoch: int, now: float) -> Oath:
        if self.ballots.until(group) - self._budget <= now:
            raise Refused(f"group {group}: its lock on the arbiter's disk is not here")
        super().take(group, epoch, now)
        self._holdings[group] = replace(self._holdings[group], until=self.ballots.until(group))
        oath = self._oaths[group] = replace(self._oaths[group], start=now)  # the lock has waited for everything
        return oath

    def _by_policy(self, group: str) -> bool:
        return group in self._oaths and group in self._taken

    # ------------------------------------------------------------------ time

    def expire(self, now: float) -> list[Effect]:
        """Here the other may run what ended: nothing sleeps on."""
        if self._awake is None:
            self._awake = now
        effects = Keeper.expire(self, now)
        if any(isinstance(effect, Revoke) for effect in effects):
            self._awake = now
        return effects

    def keepalive(self, now: float, health: Health = UNKNOWN_HEALTH) -> tuple[KeepAlive, tuple[str, ...]]:
        message, stores = super().keepalive(now, health)
        claimed = dict.fromkeys(self.ballots.claims, 0)
        return replace(message, bound=tuple({**claimed, **dict(message.bound or ())}.items())), stores

    def renew(self, now: float) -> list[Effect]:
        """Oaths of an operator renew themselves as ever; what stands by a lock is renewed by the disk."""
        locked = {group: oath for group, oath in self._oaths.items() if self._by_policy(group)}
        self._oaths.update({group: replace(oath, free=False) for group, oath in locked.items()})
        effects = Keeper.renew(self, now)
        self._oaths.update(locked)
        if self.alone(now):
            for group in self._tokens:
                effects += self._resume(group, now)
        return effects

    def _alone_until(self, group: str, now: float) -> float:
        return self.ballots.until(group)

    # ------------------------------------------------------------------ grants

    def received(self, grant: Grant, now: float) -> list[Effect]:
        effects = super().received(grant, now)
        if self._confirmed == (grant.term, grant.seq):
            self._named = frozenset(group for group, *_ in grant.groups)
        return effects

    def _drop_unnamed(self, grant: Grant) -> list[Effect]:
        """A probe takes nothing from who stands by its lock: the leader has not heard anybody yet."""
        if grant.probe:
            locked = tuple((g, h.epoch) for g, h in self._holdings.items() if self._by_policy(g))
            grant = replace(grant, kept=(*grant.kept, *locked))
        return super()._drop_unnamed(grant)

    def _take(self, grant: Grant, until: float, now: float) -> list[Effect]:
        """What the leader keeps lives by its lock until it is named."""
        kept = tuple((group, epoch) for group, epoch in grant.kept if not self._by_policy(group))
        return super()._take(replace(grant, kept=kept), until, now)

    def _settle_oaths(self, grant: Grant) -> list[Effect]:
        """An oath that stands by a lock goes on until the leader names the group, or somebody else."""
        locked = {group: oath for group, oath in self._oaths.items() if self._by_policy(group)}
        effects = super()._settle_oaths(grant)
        for group, oath in locked.items():
            if group in self._oaths:
                self._oaths[group] = oath
        return [e for e in effects if not (isinstance(e, OathTaken) and e.group in locked)]

    def token_gone(self, group: str, epoch: int, now: float) -> None:
        super().token_gone(group, epoch, now)
        if group not in self._tokens:
            self.ballots.drop(group)


class ArbiterGranter(TokenGranter):
    """Names a group while the other guard says that it has nothing of it, for a TTL from when that was said."""

    policy = "arbiter"

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._sent: dict[str, OrderedDict[int, float]] = {}
        """Node -> sequence number of a keep-alive -> leader's clock when a grant that echoes it was made first."""
        self.longest = self.timing.ttl
        """Seconds for which a word lets a node act, whatever the TTL becomes: the other waits for so long."""
        self._words: dict[str, float] = {}
        """Node -> leader's clock: its newest word in this term was said after this."""

    def lead(self, authority: Any) -> None:
        super().lead(authority)
        self._sent.clear()
        self._words.clear()

    def _note(self, guard: Guard, keepalive: KeepAlive, now: float) -> None:
        super()._note(guard, keepalive, now)
        assert keepalive.confirmed is not None
        sent = self._sent.get(keepalive.node + keepalive.boot)
        self._words[keepalive.node] = sent.get(keepalive.confirmed[1], _NEVER) if sent else _NEVER

    def _verdict(self, guard: Guard, keepalive: KeepAlive, group: str, a: GroupAssignment, now: float) -> Verdict:
        verdict = super()._verdict(guard, keepalive, group, a, now)
        others = (other for other in self._guards if other != keepalive.node)
        return verdict if not verdict.named or all(self._absent(other, group) for other in others) else BY_NEWS

    def _proven(self, to: KeepAlive, *, probe: bool) -> float:
        """Beside the majority's answer, the word of each other guard."""
        proven = super()._proven(to, probe=probe)
        if probe:
            return proven
        longer = max(0.0, self.timing.ttl - self.longest)
        words = [
            self._words.get(node, _NEVER) - longer
            for node, guard in self._guards.items()
            if node != to.node and not (guard.last is not None and self._fenced.get(node) == guard.last.boot)
        ]
        return min([proven, *words])

    def _grant(
        self, to: KeepAlive, named: list[tuple[str, int, int]], withheld: list[Named], now: float, probe: bool = True
    ) -> Grant | None:
        grant = super()._grant(to, named, withheld, now, probe)
        if grant is None and not probe:  # the other guard is silent: the leader is there all the same
            grant = super()._grant(to, [], self._own(to.node), now)
        if grant is not None:
            sent = self._sent.setdefault(to.node + to.boot, OrderedDict())
            sent.setdefault(to.seq, now)
            while len(sent) > _MOST_SENT:
                sent.popitem(last=False)
        return grant
