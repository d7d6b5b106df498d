"""Two voters and no third: a group is held by a token, not by a lease that a majority renews (docs/decisions/0007).

A node has the *token* of a group from the moment a leader lets it act until it has given the group up on a leader's
word, and until that is durable. A leader names a group for a node only when every other guard has said, in this
leader's own term, that it has no token of it. So time never moves a group, and who has the token may go on, or start
again after a power cut, without asking anybody. :class:`TokenKeeper` is the guard's side, :class:`TokenGranter` the
leader's; both replace only what leases do by time. Pure; the caller passes the time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from hasys.lease.assignments import GroupAssignment
from hasys.lease.durable import TokenDropped, TokenTaken
from hasys.lease.granting import BY_NEWS, NAMED, Granter, Guard, Naming, Verdict
from hasys.lease.keeping import Effect, Extend, Holding, Ignored, Keeper, Oath, Revoke
from hasys.lease.wire import UNKNOWN_HEALTH, Grant, Health, KeepAlive

ALONE_AFTER = 10
"""TTLs without any leader after which a node starts again what it has the token of: after a cold start, or when it
slept. Long enough that a peer which can be heard is heard first: the operator may have moved the group meanwhile."""


def told(policy: str) -> str:
    """A policy as keep-alives name it; the first one had no name there."""
    return "" if policy == "safe" else policy


class TokenKeeper(Keeper):
    """Keeps what it has the token of, by itself. ``tokens``: what an earlier guard kept, by group its epoch;
    ``taken``: what it held by :meth:`take`; ``policy``: said in keep-alives, for both nodes must have the same."""

    def __init__(
        self, *args: Any, tokens: Mapping[str, int], taken: Collection[str] = (), policy: str = "safe", **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self.policy = policy
        self._tokens = dict(tokens)
        self._taken = {group for group in taken if group in self._oaths}
        """Oaths that this node swore by its policy, not an operator."""
        self._dropping: dict[str, int] = {}
        self.alone_after = ALONE_AFTER * self._ttl
        """Seconds."""
        self._awake: float | None = None
        """Own clock: began to run, or overslept last."""

    def tokens(self) -> Mapping[str, int]:
        """What must be on the disk."""
        return dict(self._tokens)

    def expire(self, now: float) -> list[Effect]:
        """Leases end as ever. What stands by its token falls asleep when this guard overslept: the kernel has muted
        it, nobody else has it, and it goes on when a leader says so or when none is heard for long enough."""
        if self._awake is None:
            self._awake = now
        for group, h in list(self._holdings.items()):
            if now >= h.until - self._budget and self._stands(group, h):
                del self._holdings[group]
                self._awake = now
        effects = super().expire(now)
        if any(isinstance(effect, Revoke) for effect in effects):
            self._awake = now
        return effects

    def keepalive(self, now: float, health: Health = UNKNOWN_HEALTH) -> tuple[KeepAlive, tuple[str, ...]]:
        message, stores = super().keepalive(now, health)
        held = {group: h.epoch for group, h in self._holdings.items()}
        bound = {**self._tokens, **held, **self._fencing}
        return replace(message, bound=tuple(bound.items()), policy=told(self.policy)), stores

    def received(self, grant: Grant, now: float) -> list[Effect]:
        effects = super().received(grant, now)
        if grant.probe or any(isinstance(e, Ignored) for e in effects):
            return effects
        return effects + self._drop_tokens(grant)

    def _drop_tokens(self, grant: Grant) -> list[Effect]:
        """Tokens of groups that this leader neither names nor withholds; what may still run is fenced first."""
        own = {group for group, *_ in grant.groups} | {group for group, _ in (*grant.withheld, *grant.kept)}
        effects: list[Effect] = []
        for group, epoch in self._tokens.items():
            busy = group in self._holdings or group in self._fencing or group in self._oaths
            if group in own or busy or self._dropping.get(group) == epoch:
                continue
            plan = self._plans.get(group)
            if plan is not None:
                self._fencing[group] = plan.epoch
                effects.append(Revoke(group, plan.epoch, f"revoked by {grant.leader} in term {grant.term}"))
            else:
                self._dropping[group] = epoch
                effects.append(TokenDropped(group, epoch))
        return effects

    def token_gone(self, group: str, epoch: int, now: float) -> None:
        """The token of this epoch is off the disk for good. Told to every store at once."""
        if self._dropping.get(group) == epoch:
            del self._dropping[group]
        if self._tokens.get(group) == epoch:
            del self._tokens[group]
            self._everywhere, self._next = True, now

    def renew(self, now: float) -> list[Effect]:
        effects = super().renew(now)
        extended: dict[str, float] = {}
        for group, h in list(self._holdings.items()):
            if self._stands(group, h):
                self._holdings[group] = replace(h, until=max(h.until, now + self._ttl))
                extended[group] = self._holdings[group].until
        if self.alone(now):
            for group in self._tokens:
                effects += self._resume(group, now)
        return [*effects, Extend(extended)] if extended else effects

    def alone(self, now: float) -> bool:
        """No leader was heard for so long, awake, that what this node had last may start again."""
        since = max(now if self._awake is None else self._awake, self._confirmed_at)
        return now - since >= self.alone_after

    @property
    def answered_at(self) -> float:
        """When a leader answered last, which it does with the other node's store alone (own clock; -inf: never)."""
        return self._confirmed_at

    @property
    def met(self) -> bool:
        """A leader was heard since this guard started: the two saw each other."""
        return self._confirmed is not None

    def swear(self, group: str, epoch: int, now: float) -> Oath:
        self._taken.discard(group)
        return super().swear(group, epoch, now)

    def take(self, group: str, epoch: int, now: float) -> Oath:
        """Swear by the policy, as an operator would have: what ends the oath is the same. From its first effect on
        this node is the one that was Active last. Raises ``Refused`` and ``Stale`` as :meth:`swear` does."""
        oath = self.swear(group, epoch, now)
        self._taken.add(group)
        return oath

    def busy(self, group: str) -> bool:
        """The group is held here, or on its way in or out."""
        return any(group in part for part in (self._holdings, self._fencing, self._oaths, self._dropping))

    def _resume(self, group: str, now: float) -> list[Effect]:
        plan = self._plans.get(group)
        until = self._alone_until(group, now)
        if self.busy(group) or plan is None or plan.epoch < self._tokens[group] or until - self._budget <= now:
            return []
        self._holdings[group] = Holding(plan.epoch, plan.version, until)
        return self._permit_if_planned(group)

    def _alone_until(self, group: str, now: float) -> float:
        """How far a group may go on that begins alone."""
        return now + self._ttl

    def _stands(self, group: str, h: Holding) -> bool:
        by_token = self._tokens.get(group) == h.epoch and group not in self._oaths
        return by_token and h.permitted is not None

    def _permit_if_planned(self, group: str) -> list[Effect]:
        effects = super()._permit_if_planned(group)
        epoch = self._holdings[group].epoch
        by_operator = group in self._oaths and group not in self._taken
        if effects and not by_operator and self._tokens.get(group) != epoch:
            self._tokens[group] = epoch
            return [TokenTaken(group, epoch), *effects]
        return effects


class TokenGranter(Granter):
    """Names a group only when nobody else has its token. Ends of grants free nothing."""

    policy = "safe"

    def may_hold(self, group: str, now: float) -> frozenset[str]:
        """Nodes that did not say, in this term, that they have no token of it."""
        return frozenset(node for node in self._guards if self._authority is None or not self._absent(node, group))

    def _verdict(self, guard: Guard, keepalive: KeepAlive, group: str, a: GroupAssignment, now: float) -> Verdict:
        node = keepalive.node
        if a.node != node or guard.held.get(group, -1) == a.epoch:
            return super()._verdict(guard, keepalive, group, a, now)
        if max(guard.floor(keepalive.boot, group), guard.sworn.get(group, (-1, False))[0]) >= a.epoch:
            return BY_NEWS
        absent = all(self._absent(other, group) for other in self._guards if other != node)
        return NAMED if absent else BY_NEWS

    def _same_policy(self, keepalive: KeepAlive) -> bool:
        return keepalive.bound is not None and keepalive.policy == told(self.policy)

    def _absent(self, node: str, group: str) -> bool:
        """The guard of this node said that it has nothing of the group, and nothing that this leader sent it since
        can change that; or an operator swore that its machine is off."""
        guard = self._guards[node]
        if node in self._fenced and (guard.last is None or self._fenced[node] == guard.last.boot):
            return not self._unlimited(node, guard, group)
        if guard.last is None or guard.last.bound is None or group in guard.sworn or group in guard.held:
            return False
        if any(group == bound for bound, _ in guard.last.bound):
            return False
        namings = self._named.get(group, {})
        return all(
            self._over(other, boot, group, naming, 0.0) for (other, boot), naming in namings.items() if other == node
        )

    def _over(self, node: str, boot: str, group: str, naming: Naming, now: float) -> bool:
        if not naming.granted:
            return super()._over(node, boot, group, naming, now)
        guard = self._guards[node]
        released = guard.floor(boot, group) >= naming.epoch
        return released or boot in guard.retired or self._fenced.get(node) == boot
