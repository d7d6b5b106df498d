"""Guards: the real Keeper on a machine of its own, whose kernel mutes at the time that the Keeper gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hasys.lease.keeping import Effect, Extend, KeeperState, Permit, Planned, Revoke, Stale
from hasys.lease.wire import DatagramRefused, Grant, KeepAlive

if TYPE_CHECKING:
    from tests.sim.store.world import Member, StoreWorld

CLUSTER = "sim"


class Guard:
    """One start of a guard; it dies with its machine's power, not with the store."""

    def __init__(self, world: StoreWorld, member: Member, boots: int) -> None:
        self.world, self.member = world, member
        self.alive = True
        self._plans: dict[str, Planned] = {}
        self.keeper = world.parts.keeper(
            CLUSTER, member.name, tuple(world.machines), world.timing, f"{member.name}-{boots}",
            lambda: world.clients.getrandbits(64), KeeperState({}, {}), {},
        )  # fmt: skip
        self._wake_at = 0.0
        self._at(0.0)

    def _now(self) -> float:
        return self.member.local(self.world.now)

    def _at(self, delay: float) -> None:
        self._wake_at = at = self.world.now + delay
        self.world.at(delay, lambda: self._wake(at))

    def _wake(self, at: float) -> None:
        if not self.alive or at != self._wake_at:
            return
        if self.world.is_frozen(self.member):
            self._at(self.member.frozen_until - self.world.now)
            return
        self._do(self.keeper.expire(self._now()))
        if self.keeper.keepalive_due(self._now()):
            self._agent()
            message, targets = self.keeper.keepalive(self._now())
            for store in targets:
                self.world.datagram(self.member.name, store, lambda m: m.keepalive(message))
        self._at(max(0.0, self.keeper.next_wakeup(self._now()) - self._now()) / self.member.rate + 1e-6)

    def granted(self, grant: Grant) -> None:
        if self.alive:
            self._do(self.keeper.received(grant, self._now()))
            self._at(max(0.0, self.keeper.next_wakeup(self._now()) - self._now()) / self.member.rate + 1e-6)

    def off(self) -> None:
        self.alive = False
        self.world.leases.off(self.member.name)

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Permit(group, epoch, _, until):
                    self._holds(group, epoch, until)
                case Extend(untils):
                    for group, until in untils.items():
                        holding = self.keeper.holdings().get(group)
                        if holding is not None:
                            self._holds(group, holding.epoch, until)
                case Revoke(group, epoch, _):
                    self._let_go(group, epoch)

    def _holds(self, group: str, epoch: int, until: float) -> None:
        self.world.leases.holds(group, self.member.name, self.world.now, self.member.true(until), epoch)
        self.world.say(f"{self.member.name} may act for {group} at epoch {epoch}")

    def _let_go(self, group: str, epoch: int) -> None:
        self.world.leases.lets_go(group, self.member.name)
        plan = self._plans.get(group)
        if plan is not None and plan.epoch <= epoch:
            del self._plans[group]
        self._do(self.keeper.released(group, epoch, self._now()))

    def _agent(self) -> None:
        """Plan what some store in reach says, which may be old; stop in order what went elsewhere."""
        name, cut = self.member.name, self.world.cut
        reached = [m for m in self.world.members() if not cut & {(name, m.name), (m.name, name)}]
        stores = [m for m in reached if m.core is not None and m.assigned is not None]
        if not stores:
            return
        assigned = self.world.clients.choice(stores).assigned
        assert assigned is not None
        for group, a in assigned().groups.items():
            known = self._plans.get(group)
            if a.node == self.member.name:
                self._plan(group, Planned(a.epoch, a.version), known)
            elif a.previous_node == self.member.name and known is not None and known.epoch <= a.previous_epoch:
                self._let_go(group, a.previous_epoch)

    def _plan(self, group: str, wanted: Planned, known: Planned | None) -> None:
        if known == wanted or (known is not None and known.epoch > wanted.epoch):
            return
        try:
            _, effects = self.keeper.plan(group, wanted.epoch, wanted.version, self._now())
        except Stale:
            return
        self._plans[group] = wanted
        self._do(effects)


def answer(member: Member, message: KeepAlive) -> None:
    """A store hears a guard."""
    if member.core is None or member.granter is None or member.assigned is None:
        return
    now = member.local(member.world.now)
    try:
        grant = member.granter.heard(message, now, member.core.authority(), member.assigned())
    except DatagramRefused:
        return
    if grant is not None:
        send(member, grant)
    push(member)


def push(member: Member) -> None:
    """What the assignments now allow or revoke."""
    if member.core is None or member.granter is None or member.assigned is None:
        return
    now = member.local(member.world.now)
    authority = member.core.authority()
    for grant in member.granter.due(now, authority, member.assigned()):
        send(member, grant)
    due = member.granter.next_due(now, member.assigned())
    if due is not None and due > now and due != member.push_at:
        member.push_at, life = due, member.life
        member.world.at((due - now) / member.rate + 1e-6, lambda: push(member) if member.life == life else None)


def send(member: Member, grant: Grant) -> None:
    def arrive(at: Member) -> None:
        if at.guard is not None:
            at.guard.granted(grant)

    member.world.datagram(member.name, grant.node, arrive)
