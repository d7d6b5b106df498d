"""The guard's side of grants: what this node may act for now, and what must be given up. Pure; time is passed in.

The guard's shell calls :meth:`Keeper.expire` at each wake-up (:meth:`Keeper.next_wakeup`), :meth:`Keeper.keepalive`
when one is due, :meth:`Keeper.received` for each verified grant, and carries out the effects in the order given. Every
method that can extend anything first gives up what ended meanwhile, so that a process which overslept never acts on
what it believed before it slept. Source of the counting: Gray and Cheriton, "Leases" (SOSP 1989).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hasys.lease.durable import TokenDropped, TokenTaken
from hasys.lease.wire import UNKNOWN_HEALTH, Grant, Health, Hint, KeepAlive
from hasys.model.errors import Refused
from hasys.model.timing import Timing, over, show

_MOST_NONCES = 256
_MOST_FLOORS = 512
"""Groups whose released epochs are remembered, the newest. Of others it is forgotten that they were given up here: one
that is still assigned to this very node at that epoch may be started here again."""
_FLOORS_LENGTH = 24_000
"""Bytes of a keep-alive that released epochs may take: what is held needs its place too."""
_MOST_AT_ONCE = 4
"""Keep-alives that may be sent out of turn within one interval."""
_NEVER = float("inf")
_UNDER_OATH = -1
"""As the permitted version: what runs was permitted under an oath, and goes on until the plan of the new epoch is."""
_OVERSLEPT = 0.005
"""Seconds of lateness at a wake-up that are worth a word in the reason."""


class Stale(Refused):
    """The epoch was released, or a newer one is known: this can never be allowed any more."""


@dataclass(frozen=True, slots=True)
class Permit:
    """The plan of this epoch and version may act: un-mute its addresses until ``until``, allow its processes."""

    group: str
    epoch: int
    version: int
    until: float


@dataclass(frozen=True, slots=True)
class Extend:
    """Each of these groups, permitted before, may go on until its own time. Refresh, never create."""

    until: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Revoke:
    """Give the group up now: fence it, make its floor durable, then call :meth:`Keeper.released`."""

    group: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class LeaseChanged:
    """The node's lease began or ended (a lease exists also when it names no group)."""

    valid: bool


@dataclass(frozen=True, slots=True)
class Ignored:
    """The grant was not used, and why: ``unknown nonce``, ``older``, ``not mine``. Only to be counted."""

    reason: str


@dataclass(frozen=True, slots=True)
class OathTaken:
    """A leader's grant arrived: the oath renews itself no longer. Make that durable before the next keep-alive."""

    group: str
    epoch: int


Effect = Permit | Extend | Revoke | LeaseChanged | Ignored | OathTaken | TokenTaken | TokenDropped


@dataclass(frozen=True, slots=True)
class Oath:
    """An operator swore that no majority exists that this node does not hear (docs/decisions/0005)."""

    epoch: int
    """Given by this node, above all that it knows; belongs to no assignment."""
    start: float
    """Own clock: not permitted before, for grants of earlier leaders run out first."""
    free: bool = True
    """No leader answered since: it renews itself. False: it lives by the leader's grants."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The agent's plan for a group, as far as the lease depends on it."""

    epoch: int
    version: int


@dataclass(frozen=True, slots=True)
class KeeperState:
    """What must survive a restart of the guard, but not of the machine."""

    floors: Mapping[str, int]
    plans: Mapping[str, Planned]
    oaths: Mapping[str, Oath] = field(default_factory=dict)
    """A plan of a group with an oath stands for the oath's epoch."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A group that a grant named for this node."""

    epoch: int
    version: int
    until: float
    """Own clock; the kernel mutes at this time."""
    permitted: int | None = None
    """Version of the plan that was permitted; None: pending."""


def with_floor(floors: Mapping[str, int], group: str, epoch: int) -> dict[str, int]:
    """The floors with one more, the newest last; bounded, because groups come and go for years."""
    others = [(g, e) for g, e in floors.items() if g != group]
    return dict([*others[-(_MOST_FLOORS - 1) :], (group, max(epoch, floors.get(group, -1)))])


class Keeper:
    """Keeps one node's lease. ``boot`` is new for each start of the guard; ``nonce`` gives 64 unguessable bits.

    ``restored`` is what was kept under /run; ``remaining`` says, per group, until when the kernel still carries its
    lease (own clock). A restored plan without remaining time is given up at the first :meth:`expire`.
    """

    def __init__(
        self,
        cluster: str,
        node: str,
        stores: Sequence[str],
        timing: Timing,
        boot: str,
        nonce: Callable[[], int],
        restored: KeeperState | None = None,
        remaining: Mapping[str, float] | None = None,
    ) -> None:
        self.cluster, self.node, self.boot = cluster, node, boot
        self.stores = tuple(stores)
        """Who may grant; replaced when the members change. What was granted stays as it is."""
        self._interval, self._budget = timing.keepalive, timing.fence_budget
        self._ttl = self._seed_ttl = self._renewal = timing.ttl  # the last: an oath goes on so long; leaders count it
        self._nonce = nonce
        self._sent: OrderedDict[int, tuple[float, int]] = OrderedDict()
        """Nonce -> (time before sending, sequence number)."""
        self._seq, self._next = 0, -_NEVER
        self._burst = (-_NEVER, 0)
        """Out-of-turn keep-alives: (start of the interval they are counted in, how many)."""
        self._missing = True
        """No answer since the last keep-alive."""
        self._everywhere = self.asked_all = True
        self._leader = ""
        self._newest = (-1, -1)
        self._confirmed: tuple[int, int] | None = None
        self._confirmed_at = -_NEVER
        self._lease_until = -_NEVER
        self._lease_epoch = 0
        self._lease_said = False
        self._holdings: dict[str, Holding] = {}
        self._fencing: dict[str, int] = {}
        """Group -> epoch that was given up and not yet confirmed by :meth:`released`."""
        self._floors: dict[str, int] = dict(restored.floors) if restored else {}
        self._plans: dict[str, Planned] = dict(restored.plans) if restored else {}
        for group, plan in self._plans.items():
            until = (remaining or {}).get(group, -_NEVER)
            self._holdings[group] = Holding(plan.epoch, plan.version, until, plan.version)
        oaths = restored.oaths if restored else {}
        self._oaths = {g: oath for g, oath in oaths.items() if g in (remaining or {}) and g in self._plans}
        """What the kernel does not carry any more has ended: nobody knows what happened meanwhile."""

    # ------------------------------------------------------------------ time

    def next_wakeup(self, now: float) -> float:
        """When to call :meth:`expire` and then, if due, :meth:`keepalive`."""
        ends = (h.until - self._budget for h in self._holdings.values())
        lease = self._lease_until if self._lease_said else _NEVER
        return max(now, min(self._next, lease, min(ends, default=_NEVER)))

    def keepalive_due(self, now: float) -> bool:
        return now >= self._next

    def expire(self, now: float) -> list[Effect]:
        """Give up what ends within the fence budget. The lease of an address ends in the kernel by itself."""
        effects: list[Effect] = []
        for group, h in list(self._holdings.items()):
            late = now - (h.until - self._budget)
            if late >= 0:
                slept = f", overslept by {show(late)}" if _OVERSLEPT < late < _NEVER else ""
                effects.append(self._give_up(group, f"lease ended{slept}"))
        return effects + self._lease_change(now)

    # ------------------------------------------------------------------ keep-alives

    def keepalive(self, now: float, health: Health = UNKNOWN_HEALTH) -> tuple[KeepAlive, tuple[str, ...]]:
        """The next keep-alive and the stores to send it to. ``now`` must be read before it is sent.

        To the store that granted last; to all of them while an answer is missing, and after :meth:`released`.
        Call :meth:`expire` first. The next is due after half a period; an answer makes that a whole one, unless a
        group waits to be named: the push of that grant may be lost.
        """
        everywhere = self._missing or self._everywhere or self._leader not in self.stores
        self.asked_all = everywhere
        self._seq += 1
        nonce = self._nonce()
        self._sent[nonce] = (now, self._seq)
        while len(self._sent) > _MOST_NONCES:
            self._sent.popitem(last=False)
        self._missing, self._everywhere = True, False
        self._next = now + self._interval / 2
        held = tuple((g, h.epoch) for g, h in self._holdings.items() if h.until > now and g not in self._oaths)
        message = KeepAlive(
            self.cluster, self.node, self.boot, self._seq, nonce, self._confirmed,
            None if self._confirmed is None else max(0.0, now - self._confirmed_at), held,
            self._told_floors(), health,
            tuple((g, oath.epoch, oath.free) for g, oath in self._oaths.items()),
        )  # fmt: skip
        return message, self.stores if everywhere else (self._leader,)

    def _told_floors(self) -> tuple[tuple[str, int], ...]:
        """The newest floors that fit."""
        left, told = _FLOORS_LENGTH, []
        for group, epoch in reversed(self._floors.items()):
            left -= len(group) + 24  # quotes, brackets, commas, and an epoch as long as they get
            if left < 0:
                break
            told.append((group, epoch))
        return tuple(reversed(told))

    def hinted(self, hint: Hint, now: float) -> None:
        """A store said that it does not lead: ask everybody, at once."""
        if self._sent and hint.nonce == next(reversed(self._sent)) and not self.asked_all:
            self._everywhere = True
            self.at_once(now)

    def at_once(self, now: float) -> None:
        """Send the next keep-alive now, unless that was asked for too often."""
        start, count = self._burst
        if now - start >= self._interval:
            start, count = now, 0
        if count < _MOST_AT_ONCE:
            self._burst = (start, count + 1)
            self._next = now

    # ------------------------------------------------------------------ grants

    def received(self, grant: Grant, now: float) -> list[Effect]:
        """Take a verified grant. Gives up first what ended meanwhile, then what the grant no longer names."""
        effects = self.expire(now)
        sent = self._sent.get(grant.nonce)
        if grant.node != self.node or grant.cluster != self.cluster:
            return [*effects, Ignored("not mine")]
        if sent is None or sent[1] != grant.seq:
            return [*effects, Ignored("unknown nonce")]
        if (grant.term, grant.version) < self._newest:
            return [*effects, Ignored("older")]
        self._answered(grant, now)
        until = sent[0] - grant.age + grant.ttl
        effects += self._settle_oaths(grant)
        effects += self._drop_unnamed(grant)
        if until - self._budget > now:
            self._lease_until = max(self._lease_until, until)
            self._lease_epoch = grant.epoch
            effects += self._lease_change(now)
            effects += self._take(grant, until, now)
        return effects

    def _answered(self, grant: Grant, now: float) -> None:
        self._newest = (grant.term, grant.version)
        self._confirmed, self._confirmed_at = (grant.term, grant.seq), now
        self._leader = grant.leader
        if grant.keepalive > 0:
            self._interval = grant.keepalive
        if grant.seq == self._seq:
            self._missing = False
            if (grant.probe or not grant.withheld) and self._next > now:  # else something is to be told sooner
                self._next = self._sent[grant.nonce][0] + self._interval
            if grant.probe:
                self.at_once(now)
        if grant.fence_budget > 0:
            self._budget = grant.fence_budget
        self._ttl, self._renewal = max(self._ttl, grant.ttl), min(self._seed_ttl, grant.ttl)

    def _drop_unnamed(self, grant: Grant) -> list[Effect]:
        """What the newest grant neither names, withholds nor keeps is not ours any more. One that keeps an oath and
        withholds the epoch that replaces it may arrive behind the one that names that epoch: both were made from the
        same version."""
        own = {(group, epoch) for group, epoch, _ in grant.groups} | {*grant.withheld, *grant.kept}
        return [
            self._give_up(group, f"revoked by {grant.leader} in term {grant.term}")
            for group, h in list(self._holdings.items())
            if (group, h.epoch) not in own
        ]

    def _take(self, grant: Grant, until: float, now: float) -> list[Effect]:
        effects: list[Effect] = []
        extended: dict[str, float] = {}
        for group, epoch, version in grant.groups:
            if epoch <= max(self._floors.get(group, -1), self._fencing.get(group, -1)):
                continue
            before = self._holdings.get(group)
            permitted = before.permitted if before else None
            if before is None or before.epoch != epoch:
                self.at_once(now)  # a holder that reports is asked to stop in order, another one is revoked
            self._holdings[group] = Holding(epoch, version, max(until, before.until if before else until), permitted)
            effects += self._permit_if_planned(group)
            if permitted is not None:
                extended[group] = self._holdings[group].until
        for group, epoch in grant.kept:
            h = self._holdings.get(group)
            if h is not None and h.epoch == epoch:
                self._holdings[group] = replace(h, until=max(until, h.until))
                if h.permitted is not None:
                    extended[group] = self._holdings[group].until
        if extended:
            effects.append(Extend(extended))
        return effects

    def _permit_if_planned(self, group: str) -> list[Effect]:
        h, plan = self._holdings[group], self._plans.get(group)
        if group in self._fencing or plan is None or plan.epoch != h.epoch or plan.version != h.version:
            return []
        if h.permitted == plan.version:
            return []
        self._holdings[group] = replace(h, permitted=plan.version)
        return [Permit(group, h.epoch, plan.version, h.until)]

    def _give_up(self, group: str, reason: str) -> Revoke:
        h = self._holdings.pop(group)
        self._oaths.pop(group, None)
        self._fencing[group] = max(h.epoch, self._fencing.get(group, -1))
        return Revoke(group, h.epoch, reason)

    def _lease_change(self, now: float) -> list[Effect]:
        valid = self._lease_until > now
        if valid == self._lease_said:
            return []
        self._lease_said = valid
        return [LeaseChanged(valid)]

    # ------------------------------------------------------------------ the agent's side

    def plan(self, group: str, epoch: int, version: int, now: float) -> tuple[str, list[Effect]]:
        """Note a plan that is already durable; ``permitted`` or ``pending``, and effects to carry out.

        Raises :class:`Stale`, and then there are no effects.
        """
        self._check_epoch(group, epoch)
        effects = self.expire(now)
        self._plans[group] = Planned(epoch, version)
        if group in self._holdings:
            self._begin_oath(group, now)
            effects += self._permit_if_planned(group)
        return self._state_of(group, epoch, now), effects

    def permitted(self, group: str, epoch: int, now: float) -> str:
        """``permitted`` or ``pending``, asked right before an effect. Raises :class:`Stale`."""
        self._check_epoch(group, epoch)
        return self._state_of(group, epoch, now)

    def _state_of(self, group: str, epoch: int, now: float) -> str:
        h, plan = self._holdings.get(group), self._plans.get(group)
        if h is None or plan is None or h.epoch != epoch or now >= h.until - self._budget:
            return "pending"
        return "permitted" if plan.epoch == epoch and h.permitted == plan.version else "pending"

    def _check_epoch(self, group: str, epoch: int) -> None:
        if epoch <= self._floors.get(group, -1):
            raise Stale(f"group {group}: epoch {epoch} was released on {self.node}, wait for a newer one")
        if epoch <= self._fencing.get(group, -1):
            raise Stale(f"group {group}: epoch {epoch} is being fenced on {self.node}")
        plan = self._plans.get(group)
        if plan is not None and epoch < plan.epoch:
            raise Stale(f"group {group}: epoch {epoch} is older than the plan's {plan.epoch}")

    def released(self, group: str, epoch: int, now: float) -> list[Effect]:
        """Nothing of the group acts here any more, and that is durable: never again at this epoch or a lower one.

        Told to every store at once. Returns the effects for a newer epoch that waited for this.
        """
        if epoch > self._floors.get(group, -1):
            self._floors = with_floor(self._floors, group, epoch)
        if self._fencing.get(group, epoch + 1) <= epoch:
            del self._fencing[group]
        h = self._holdings.get(group)
        if h is not None and h.epoch <= epoch:
            del self._holdings[group]
            self._oaths.pop(group, None)
        plan = self._plans.get(group)
        if plan is not None and plan.epoch <= epoch:
            del self._plans[group]
        self._everywhere, self._next = True, now
        return self._permit_if_planned(group) if group in self._holdings else []

    # ------------------------------------------------------------------ without a majority: an operator's oath

    def swear(self, group: str, epoch: int, now: float) -> Oath:
        """Hold a group by an operator's oath, at an epoch of this node's own. The caller makes the oath durable.

        Never while a leader answers. Nothing is permitted before every grant of earlier leaders has ended, so that a
        node that serves without a majority has given up by then. Raises ``Refused`` and :class:`Stale`.
        """
        if self._lease_until > now or now - self._confirmed_at < self._ttl:
            raise Refused(f"there is a majority: {self._leader} granted a moment ago; give the command without force")
        if group in self._oaths or group in self._holdings or group in self._fencing:
            raise Refused(f"group {group} is held here already, or being given up: look at 'hasys status'")
        self._check_epoch(group, epoch)
        oath = self._oaths[group] = Oath(epoch, now + over(self._ttl))
        self._holdings[group] = Holding(epoch, _UNDER_OATH, now + self._ttl)
        self._everywhere, self._next = True, now
        return oath

    def renew(self, now: float) -> list[Effect]:
        """Right after a keep-alive left that says what is sworn, with the time that was read before it: go on for
        another TTL. A node that overslept does not come here: :meth:`expire` has ended its oath."""
        effects: list[Effect] = []
        extended: dict[str, float] = {}
        for group, oath in self._oaths.items():
            h = self._holdings[group]
            if oath.free:
                self._holdings[group] = replace(h, until=max(h.until, now + self._renewal))
                if h.permitted is not None:
                    extended[group] = self._holdings[group].until
            self._begin_oath(group, now)
            effects += self._permit_if_planned(group)
        return [*effects, Extend(extended)] if extended else effects

    def _begin_oath(self, group: str, now: float) -> None:
        """An oath permits whatever version the agent planned: there is no leader to name one."""
        oath, plan = self._oaths.get(group), self._plans.get(group)
        if oath is not None and plan is not None and plan.epoch == oath.epoch and now >= oath.start:
            self._holdings[group] = replace(self._holdings[group], version=plan.version)

    def _settle_oaths(self, grant: Grant) -> list[Effect]:
        """A leader answered. From now on its word counts: kept, replaced by an epoch of its own, or (elsewhere)
        revoked."""
        effects: list[Effect] = []
        named = {group: epoch for group, epoch, _ in grant.groups}
        for group, oath in list(self._oaths.items()):
            h = self._holdings[group]
            if oath.free:
                self._oaths[group] = replace(oath, free=False)
                effects.append(OathTaken(group, oath.epoch))
            if named.get(group, -1) > oath.epoch:
                del self._oaths[group]
                running = _UNDER_OATH if h.permitted is not None else None
                self._holdings[group] = replace(h, epoch=named[group], permitted=running)
        return effects

    def oaths(self) -> Mapping[str, Oath]:
        """Groups that are held by an operator's oath."""
        return dict(self._oaths)

    def give_up(self, group: str, reason: str) -> list[Effect]:
        """Revoke one group: its gate failed, or its end was missed."""
        return [self._give_up(group, reason)] if group in self._holdings else []

    def give_up_all(self, reason: str) -> list[Effect]:
        """Revoke everything held: the agent stayed away, the gate is broken."""
        return [self._give_up(group, reason) for group in list(self._holdings)]

    # ------------------------------------------------------------------ what others may know

    def state(self) -> KeeperState:
        """What to keep under /run, with the plans' entries."""
        return KeeperState(dict(self._floors), dict(self._plans))

    def holdings(self) -> Mapping[str, Holding]:
        """What grants name for this node now."""
        return dict(self._holdings)

    def fencing(self) -> Mapping[str, int]:
        """Given up, not yet confirmed by :meth:`released`."""
        return dict(self._fencing)

    def lease(self, now: float) -> tuple[bool, float, int]:
        """(valid, seconds remaining, epoch) of the node's lease."""
        remaining = max(0.0, self._lease_until - now)
        return remaining > 0, remaining, self._lease_epoch

    @property
    def leader(self) -> str:
        """The store that granted last; empty before the first grant."""
        return self._leader
