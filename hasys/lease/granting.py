"""The leader's side of grants: which groups a node may act for, and until when. Pure; the caller passes the time.

Why it is safe is argued in design section 3 and docs/decisions/0002; tests/sim/grants drives this very code.

The rules for naming (group, epoch) E in a grant to a node, in the order of :meth:`Granter._verdict`:

1.  The applied state assigns the group to the node at E; or the node is the previous holder at E, not revoked, and
    the keep-alive being answered says that it holds E (it may stop in order).
2.  Nobody else can hold the group by a grant of THIS leader: each other grant that named it has ended, counted
    ``over(ttl)`` from its ``t_q``, or the guard that got it confirmed the release. While the previous holder is not
    revoked only its release counts, not the end of its grant.
3.  Nobody else can hold it by a grant of an EARLIER leader: they are over at ``silent_since + over(ttl_max)``; or the
    node itself reports (group, E) held. Releases prove nothing about what earlier leaders granted to others. What may
    outlive its grant (a program, a mount) is counted on each node that had the group by the record, until it is out.
4.  No other node holds the group by an operator's oath (docs/decisions/0005) that renews itself. What this store heard
    of oaths before it led counts too: an oath is renewed only after it was told to every store.

A report of (group, E) held, from the node that E belongs to, also settles rule 2: the leader that first named E made
sure that every lower epoch was over. A keep-alive counts for any of this only when it confirms a grant of this leader's
own term, which proves that it was sent after the election; any other may be old, and is answered by a probe.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.lease.facts import Authority, NodeFacts, claims_of, differs
from hasys.lease.rhythm import period
from hasys.lease.wire import UNKNOWN_HEALTH, DatagramRefused, Grant, KeepAlive, Named
from hasys.model.timing import Timing, over

_MOST_BOOTS = 8
"""Boots of one node whose sequence numbers are remembered."""
MOST_HANDED = 4_096
"""Hand-overs kept for the history until somebody reads them."""
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Naming:
    """A grant of this leader named a group for one boot of one node."""

    epoch: int
    ends: float
    """Leader's clock: after this the guard's own count has ended too."""
    granted: bool = True
    """By this leader; False: only counted, from an oath that it did not keep."""


@dataclass(slots=True)
class Guard:
    """What is known of one node's guard."""

    place: int
    """Its number among the guards, for :mod:`hasys.lease.rhythm`."""
    seqs: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Boot -> newest sequence number, whatever the term: refuses copies and late ones."""
    floors: dict[str, dict[str, int]] = field(default_factory=dict)
    """Boot -> group -> released epoch, said in this term."""
    retired: set[str] = field(default_factory=set)
    """Boots that another one replaced in this term."""
    last: KeepAlive | None = None
    """The newest that confirms a grant of this term."""
    heard: float | None = None
    held: Mapping[str, int] = field(default_factory=dict)
    confirmed: float | None = None
    networks_since: float | None = None
    """When its word about its networks last changed."""
    sworn: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    """Group -> (epoch, whether it renews itself) of an operator's oath, as last said to this store, leading or not."""
    sworn_boot: str = ""
    taken: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Group -> (boot, epoch) of an oath that was heard in this term to renew itself no longer."""
    grant: Grant | None = None
    """The last one made for it in this term."""
    granted_t_q: float = 0.0

    def floor(self, boot: str, group: str) -> int:
        return self.floors.get(boot, {}).get(group, -1)

    def forget(self) -> None:
        """What was said to an earlier leader, or before this one, may be old."""
        self.floors.clear()
        self.retired.clear()
        self.last, self.held, self.grant = None, {}, None
        self.taken.clear()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a group may be named now; if not, when that may change without any news (inf: only by news)."""

    named: bool
    at: float = 0.0


NAMED = Verdict(True)
BY_NEWS = Verdict(False, _NEVER)


class Granter:
    """Makes the grants of one store. ``members`` are the nodes that run guards."""

    def __init__(self, cluster: str, leader: str, members: Sequence[str], timing: Timing, ttl_max: float = 0.0) -> None:
        self.cluster = cluster
        self.leader = leader
        self.timing, self.ttl_max = timing, max(ttl_max, timing.ttl)
        self.seed_ttl = 0.0  # by which guards that never heard a leader renew an oath
        self.patience = timing.patient(self.ttl_max)
        """By which the silence of guards is judged."""
        self._guards = {name: Guard(place) for place, name in enumerate(members)}
        self._authority: Authority | None = None
        self._named: dict[str, dict[tuple[str, str], Naming]] = {}
        self._highest: dict[str, int] = {}
        """Group -> highest epoch that this leader named, or saw held."""
        self._longest_end = self._old_timing_over = -_NEVER
        self._of_node: dict[str, list[tuple[str, GroupAssignment]]] = {}
        self._indexed: Assignments | None = None
        self._fenced: Mapping[str, str] = {}
        self._news = False
        self.handed: deque[tuple[str, str, int, float]] = deque(maxlen=MOST_HANDED)
        """Group, node, epoch and when (leader's clock) this leader first let the node have the group, for the history;
        whoever reads them takes them out."""

    # ------------------------------------------------------------------ leadership and timings

    def lead(self, authority: Authority) -> None:
        """Begin to grant in a new term, knowing nothing of earlier grants but ``silent_since``."""
        self._authority = authority
        self._named.clear()
        self._highest.clear()
        self._longest_end = self._old_timing_over = -_NEVER
        for guard in self._guards.values():
            guard.forget()
        self._news = True

    def step_down(self) -> None:
        """Stop granting. What was granted runs out by itself; the next leader waits for it."""
        self._authority = None
        for guard in self._guards.values():
            guard.forget()

    def retime(self, timing: Timing, ttl_max: float) -> None:
        """Use other timings; ``ttl_max`` is the larger TTL for as long as grants of either may run."""
        if timing.ttl != self.timing.ttl:
            self._old_timing_over = max(self._old_timing_over, self._longest_end)
        self.timing, self.ttl_max = timing, max(ttl_max, timing.ttl)
        self.patience = timing.patient(self.ttl_max)

    def settled(self, now: float) -> bool:
        """No grant made with another TTL than the present one can still run, of this leader or an earlier one: the
        second write after a change of timings may lower ``ttl_max``."""
        return self._authority is not None and now >= max(self._earlier_over(0.0), self._old_timing_over)

    # ------------------------------------------------------------------ keep-alives in, grants out

    def heard(
        self, keepalive: KeepAlive, now: float, authority: Authority | None, assignments: Assignments
    ) -> Grant | None:
        """Note a verified keep-alive and answer it; None without authority.

        Raises :class:`DatagramRefused` for an unknown node (``unknown-node``) and for one that is not newer than all
        before it of its boot (``replayed``): copies and late ones change nothing.
        """
        guard = self._guards.get(keepalive.node)
        if guard is None:
            raise DatagramRefused("unknown-node")
        if not self._same_policy(keepalive):
            raise DatagramRefused("other-policy", keepalive.node)
        leads = self._leads(authority)
        self._in_order(guard, keepalive)
        if not leads:
            return None
        self._use(assignments)
        assert authority is not None
        self._count_oaths(guard, keepalive, now)
        if keepalive.confirmed is None or keepalive.confirmed[0] != authority.term:
            return self._grant(keepalive, [], self._own(keepalive.node), now)
        self._note(guard, keepalive, now)
        return self._answer(guard, keepalive, now)

    def due(self, now: float, authority: Authority | None, assignments: Assignments) -> list[Grant]:
        """Grants to push: for guards whose last grant would now name other groups, or revoke some."""
        if not self._leads(authority):
            return []
        self._use(assignments)
        pushes = []
        for guard in self._guards.values():
            if guard.last is None or guard.grant is None or not self._listening(guard, now):
                continue
            named, withheld = self._judge(guard, guard.last, now)
            own = {group for group, *_ in named} | {group for group, _ in withheld}
            kept = {group for group, _ in self._kept(guard.last, own, now)}
            lost = any(group not in own for group, *_ in guard.grant.groups)
            lost = lost or any(group not in own | kept for group, _ in guard.grant.kept)
            if lost or (self._confirming(guard, now) and not set(named) <= set(guard.grant.groups)):
                grant = self._answer(guard, guard.last, now)
                if grant is not None:
                    pushes.append(grant)
        return pushes

    def next_due(self, now: float, assignments: Assignments) -> float | None:
        """When a withheld group can be named without any news (leader's clock); None: not before news."""
        if self._authority is None:
            return None
        self._use(assignments)
        earliest = min(
            (
                verdict.at
                for guard in self._guards.values()
                if guard.last is not None and self._listening(guard, now)
                for group, a in self._of_node.get(guard.last.node, ())
                if not (verdict := self._verdict(guard, guard.last, group, a, now)).named
            ),
            default=_NEVER,
        )
        return None if earliest == _NEVER else earliest

    # ------------------------------------------------------------------ what others may know

    def facts(self, now: float) -> Mapping[str, NodeFacts]:
        """Per node; meaningful on a leader."""
        return {name: self._facts(guard, now) for name, guard in self._guards.items()}

    def may_hold(self, group: str, now: float) -> frozenset[str]:
        """Nodes that may still hold the group by a grant of this leader or, until those are over, of earlier ones: all,
        then those on which something may linger by the record."""
        if self._authority is None or now < self._earlier_over(0.0):
            return frozenset(self._guards)
        namings = self._named.get(group, {})
        sworn = {node for node, guard in self._guards.items() if self._unlimited(node, guard, group)}
        lingering = {node for node, seconds in self._left_behind(group) if now < self._earlier_over(seconds)}
        granted = {node for (node, boot), n in namings.items() if not self._over(node, boot, group, n, now)}
        return frozenset(sworn | lingering | granted)

    def add_member(self, name: str) -> None:
        """A node that may ask for grants from now on. One that leaves is never forgotten: its last grant must end."""
        self._guards.setdefault(name, Guard(len(self._guards)))

    def take_news(self) -> bool:
        """Whether facts changed materially since the last call: a new or returned guard, what it holds or released,
        its health."""
        news, self._news = self._news, False
        return news

    # ------------------------------------------------------------------ inside: what guards say

    def _leads(self, authority: Authority | None) -> bool:
        if authority is None:
            if self._authority is not None:
                self.step_down()
            return False
        if self._authority is None or self._authority.term != authority.term:
            self.lead(authority)
        self._authority = authority
        return True

    def _same_policy(self, keepalive: KeepAlive) -> bool:
        """Guard and store must follow the same rules. Guards of tokens say so; see :mod:`hasys.lease.tokens`."""
        return keepalive.bound is None

    def _in_order(self, guard: Guard, keepalive: KeepAlive) -> None:
        boot = keepalive.boot
        if keepalive.seq <= guard.seqs.get(boot, -1) or boot in guard.retired:
            raise DatagramRefused("replayed")
        guard.seqs[boot] = keepalive.seq
        guard.seqs.move_to_end(boot)
        guard.sworn = {group: (epoch, free) for group, epoch, free in keepalive.sworn}
        guard.sworn_boot = boot
        while len(guard.seqs) > _MOST_BOOTS:
            guard.seqs.popitem(last=False)

    def _count_oaths(self, guard: Guard, keepalive: KeepAlive, now: float) -> None:
        """An oath renewed itself until the first answer of a leader arrived. When that was nobody knows, but it was
        before the keep-alive that says so: what it renewed is over one TTL after that was heard."""
        for group, epoch, free in keepalive.sworn:
            if not free and guard.taken.get(group) != (keepalive.boot, epoch):
                guard.taken[group] = keepalive.boot, epoch
                a = self._indexed.groups.get(group) if self._indexed else None
                lasts = max(self.ttl_max, self.seed_ttl, a.outliving(keepalive.node) if a else 0.0)
                naming = Naming(epoch, now + over(lasts), granted=False)
                self._count(group, keepalive.node, keepalive.boot, naming)

    def _note(self, guard: Guard, keepalive: KeepAlive, now: float) -> None:
        boot, last = keepalive.boot, guard.last
        if last is not None and last.boot != boot:
            guard.retired.add(last.boot)
        if last is None or last.boot != boot or last.released != keepalive.released:
            floors = guard.floors.setdefault(boot, {})
            for group, epoch in keepalive.released:
                floors[group] = max(epoch, floors.get(group, -1))
        if last is None or last.held != keepalive.held:
            guard.held = dict(keepalive.held)
        for group, epoch in keepalive.held:
            self._highest[group] = max(epoch, self._highest.get(group, -1))
        if last is None or last.health.networks != keepalive.health.networks:
            guard.networks_since = now
        self._news |= guard.heard is None or now - guard.heard > self.patience.suspicion or differs(last, keepalive)
        guard.last, guard.heard = keepalive, now
        if keepalive.confirmed_age is not None:
            guard.confirmed = now - keepalive.confirmed_age

    def _confirming(self, guard: Guard, now: float) -> bool:
        return guard.confirmed is not None and now - guard.confirmed <= self.patience.leader_fallback

    def _listening(self, guard: Guard, now: float) -> bool:
        return guard.heard is not None and now - guard.heard < self.patience.ttl

    # ------------------------------------------------------------------ inside: grants

    def _answer(self, guard: Guard, keepalive: KeepAlive, now: float) -> Grant | None:
        """A grant with all that may be named, or a probe for a guard that hears nothing; noted before it leaves."""
        if not self._confirming(guard, now):
            return self._grant(keepalive, [], self._own(keepalive.node), now)
        named, withheld = self._judge(guard, keepalive, now)
        return self._grant(keepalive, named, withheld, now, probe=False)

    def _grant(
        self, to: KeepAlive, named: list[tuple[str, int, int]], withheld: list[Named], now: float, probe: bool = True
    ) -> Grant | None:
        authority = self._authority
        assert authority is not None
        age = max(0.0, now - self._proven(to, probe=probe))
        if age >= self.timing.ttl:
            return None
        kept = self._kept(to, {group for group, *_ in named}, now)
        first = [(group, epoch) for group, epoch, _ in named if epoch > self._highest.get(group, -1)]
        self.handed.extend((group, to.node, epoch, now) for group, epoch in first)
        for group, epoch in [*((group, epoch) for group, epoch, _ in named), *kept]:
            self._record(group, to.node, to.boot, epoch, authority.t_q)
        self._longest_end = max(self._longest_end, authority.t_q + over(self.timing.ttl))
        guard = self._guards[to.node]
        grant = Grant(
            self.cluster, self.leader, authority.term, to.node, to.seq, to.nonce, authority.applied, age,
            self.timing.ttl, tuple(named), tuple(withheld), probe,
            period(self.timing, now - authority.t_q, guard.place), self.timing.fence_budget, tuple(kept),
        )  # fmt: skip
        guard.grant, guard.granted_t_q = grant, authority.t_q
        return grant

    def _proven(self, to: KeepAlive, *, probe: bool) -> float:
        """When what a grant to this guard rests on was true (leader's clock)."""
        assert self._authority is not None
        return self._authority.t_q

    def _record(self, group: str, node: str, boot: str, epoch: int, t_q: float) -> None:
        assert self._indexed is not None
        a = self._indexed.groups[group]
        ends = t_q + over(max(self.timing.ttl, a.outliving(node)))
        self._count(group, node, boot, Naming(epoch, ends))
        self._highest[group] = max(epoch, self._highest.get(group, -1))

    def _count(self, group: str, node: str, boot: str, new: Naming) -> None:
        namings = self._named.setdefault(group, {})
        old = namings.get((node, boot), new)
        namings[node, boot] = Naming(
            max(new.epoch, old.epoch), max(new.ends, old.ends), granted=new.granted or old.granted
        )

    def _use(self, assignments: Assignments) -> None:
        """Index a new version of the assignments by node."""
        if assignments is self._indexed:
            return
        self._indexed, self._fenced = assignments, assignments.fenced
        self._of_node = {}
        for group, a in assignments.groups.items():
            for node in {a.node, a.previous_node} - {""}:
                self._of_node.setdefault(node, []).append((group, a))

    def _own(self, node: str) -> list[Named]:
        """All that a probe leaves alone: whatever this node may still hold by an earlier grant."""
        return [
            (group, a.epoch if a.node == node else a.previous_epoch)
            for group, a in self._of_node.get(node, ())
            if a.node == node or not a.revoked
        ]

    def _judge(self, guard: Guard, keepalive: KeepAlive, now: float) -> tuple[list[tuple[str, int, int]], list[Named]]:
        """The groups to name for this node, and those that are its own but withheld."""
        named: list[tuple[str, int, int]] = []
        withheld: list[Named] = []
        for group, a in self._of_node.get(keepalive.node, ()):
            epoch = a.epoch if a.node == keepalive.node else a.previous_epoch
            if self._verdict(guard, keepalive, group, a, now).named:
                named.append((group, epoch, a.version))
            elif a.node == keepalive.node:
                withheld.append((group, epoch))
        return named, withheld

    def _kept(self, to: KeepAlive, named: Set[str], now: float) -> list[Named]:
        """Oaths of the sender that this leader takes over: nobody else runs the group, or is about to."""
        assert self._indexed is not None
        return [
            (group, epoch)
            for group, epoch, _ in to.sworn
            if group not in named
            and (a := self._indexed.groups.get(group)) is not None
            and to.node in a.candidates
            and self._guards[to.node].floor(to.boot, group) < epoch
            and self._others_end(to.node, group, now, granted=True) <= now
            and not any(
                group in guard.held or (group in guard.sworn and (other == a.node or other < to.node != a.node))
                for other, guard in self._guards.items()
                if other != to.node and self._listening(guard, now)
            )
        ]

    def _unlimited(self, node: str, guard: Guard, group: str) -> bool:
        """Whether the node may hold the group by an oath that no grant of any leader limits."""
        return guard.sworn.get(group, (0, False))[1] and self._fenced.get(node) != guard.sworn_boot

    def _verdict(self, guard: Guard, keepalive: KeepAlive, group: str, a: GroupAssignment, now: float) -> Verdict:
        """The three rules of the module's text, for a group that names this node as holder or previous holder."""
        node = keepalive.node
        epoch = a.epoch if a.node == node else a.previous_epoch
        if max(guard.floor(keepalive.boot, group), guard.sworn.get(group, (-1, False))[0]) >= epoch:
            return BY_NEWS
        reports = guard.held.get(group, -1) == epoch
        if a.node != node:
            superseded = a.revoked or not reports or self._highest.get(group, -1) > epoch
            return BY_NEWS if superseded or self._others_end(node, group, now) > now else NAMED
        if reports:
            return NAMED
        if any(self._unlimited(other, g, group) for other, g in self._guards.items() if other != node):
            return BY_NEWS
        if a.previous_node not in ("", node) and not a.revoked and not self._released(a.previous_node, group, a):
            return BY_NEWS
        left = max((seconds for other, seconds in self._left_behind(group) if other != node), default=a.outlives)
        at = max(self._others_end(node, group, now), self._earlier_over(left))
        return NAMED if now >= at else Verdict(False, at)

    # ------------------------------------------------------------------ inside: when grants are over

    def _earlier_over(self, outlives: float) -> float:
        """When every grant of every earlier leader has ended."""
        assert self._authority is not None
        return self._authority.silent_since + over(max(self.ttl_max, outlives))

    def _left_behind(self, group: str) -> Iterator[tuple[str, float]]:
        """Who had the group before, and seconds that what it ran for an earlier leader may outlive its grant. 0 after a
        release in this term, or on a machine that is off: its boot need not be known, another start has another."""
        a = self._indexed.groups.get(group) if self._indexed else None
        if a is None:
            return
        for node, epoch in a.before().items():
            floors = self._guards[node].floors.values() if node in self._guards else ()
            out = node in self._fenced or any(floor.get(group, -1) >= epoch for floor in floors)
            yield node, 0.0 if out else a.outliving(node)

    def _others_end(self, node: str, group: str, now: float, *, granted: bool = False) -> float:
        """When the last grant of this leader that named the group for another node is over (-inf: none is left), or
        an oath that this leader only counts, unless ``granted``."""
        end = -_NEVER
        namings = self._named.get(group, {})
        for (other, boot), naming in list(namings.items()):
            if self._over(other, boot, group, naming, now):
                del namings[other, boot]
            elif other != node and (naming.granted or not granted):
                end = max(end, naming.ends)
        return end

    def _over(self, node: str, boot: str, group: str, naming: Naming, now: float) -> bool:
        """The guard that was granted this cannot act on it any more. A release counts from that very boot only."""
        released = self._guards[node].floor(boot, group) >= naming.epoch
        return now >= naming.ends or released or self._fenced.get(node) == boot

    def _released(self, node: str, group: str, a: GroupAssignment) -> bool:
        """The previous holder's guard confirmed the release, or the operator swore that its machine is off."""
        guard = self._guards.get(node)
        if guard is None or guard.last is None:
            return False
        boot = guard.last.boot
        return guard.floor(boot, group) >= a.previous_epoch or self._fenced.get(node) == boot

    def _facts(self, guard: Guard, now: float) -> NodeFacts:
        since = self._authority.silent_since if self._authority else now
        grant, last = guard.grant, guard.last
        remaining = guard.granted_t_q + grant.ttl - now if grant and not grant.probe else 0.0
        return NodeFacts(
            silent_for=max(0.0, now - max(since, guard.heard if guard.heard is not None else since)),
            last_heard=guard.heard,
            boot=last.boot if last else guard.sworn_boot if guard.sworn else "",
            confirmed=guard.confirmed,
            confirming=last is not None and self._confirming(guard, now),
            lease_valid=remaining > 0,
            lease_epoch=grant.epoch if grant else 0,
            remaining=max(0.0, remaining),
            held=guard.held,
            released=dict(guard.floors.get(last.boot, {})) if last else {},
            claims=claims_of(grant, guard.sworn) if grant else {},
            oaths={group: epoch for group, (epoch, free) in guard.sworn.items() if free},
            health=last.health if last else UNKNOWN_HEALTH,
            networks_since=guard.networks_since,
        )
