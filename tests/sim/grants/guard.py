"""A node's guard: the real Keeper, a modelled kernel, a folder that survives restarts, and an obedient agent.

Single-threaded as the real one: what arrives while it works or is frozen waits. It may be frozen at any step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from hasys.lease.durable import TokenDropped, TokenTaken
from hasys.lease.keeping import (
    Effect,
    Extend,
    Keeper,
    KeeperState,
    Oath,
    OathTaken,
    Permit,
    Planned,
    Revoke,
    Stale,
)
from hasys.lease.tokens import TokenKeeper
from hasys.lease.wire import Grant, KeepAlive
from hasys.model.errors import Refused
from tests.sim.grants.kernel import Gate, Kernel, LeaseOver
from tests.sim.grants.state import State
from tests.sim.grants.world import Clock, Violation, World

Work = Callable[[], Iterator[None]]


@dataclass
class RunDir:
    """Under /run: survives the guard, not the machine."""

    floors: dict[str, int] = field(default_factory=dict)
    plans: dict[str, Planned] = field(default_factory=dict)
    oaths: dict[str, Oath] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    """Oaths that no operator swore."""
    met: bool = False


@dataclass
class GuardSetup:
    """What a guard needs of the simulation."""

    stores: tuple[str, ...]
    send: Callable[[str, KeepAlive], None]
    """To a store, from this node."""
    read: Callable[[], State | None]
    """What the agent sees of some store: as old as that store is."""
    make_keeper: Callable[[str, str, KeeperState, dict[str, float]], Keeper]
    """(node, boot, restored, remaining)"""
    make_gate: Callable[[Kernel], Gate]
    assigned: Callable[[str, int], str | None]
    """Who the committed log gave (group, epoch) to: the truth, for the checks."""
    stop_takes: Callable[[], float]
    freezes: float
    """Probability of a freeze at each step that may be interrupted."""
    longest_freeze: float
    tokens: TokenDisk | None = None
    """Two voters: survives the machine's power."""


@dataclass
class TokenDisk:
    """Written by a thread of the guard, in order, some time after it was asked to; not at all when that dies first."""

    content: dict[str, int]
    takes: Callable[[], float]
    """Seconds for one write."""
    written: Callable[[], None]
    """Checks what must always be true of disks."""


class Guard:
    """One start of the guard process."""

    def __init__(self, world: World, node: str, kernel: Kernel, run: RunDir, boot: str, setup: GuardSetup) -> None:
        self.world, self.node, self.kernel, self.run, self.setup = world, node, kernel, run, setup
        self.clock: Clock = kernel.clock
        self.alive = True
        self.busy = False
        """In the middle of a piece of work, of which ``rest`` is left."""
        self.rest: Iterator[None] | None = None
        self.frozen_until = 0.0
        self.inbox: deque[Work] = deque()
        self.stopping: dict[str, tuple[int, float]] = {}
        """Group -> (epoch, own clock when its orderly stop is done)."""
        self.newest = (-1, -1)
        self.gate = setup.make_gate(kernel)
        plans = {g: replace(p, epoch=run.oaths[g].epoch) if g in run.oaths else p for g, p in run.plans.items()}
        restored = KeeperState(dict(run.floors), plans, dict(run.oaths))
        self.keeper = setup.make_keeper(node, boot, restored, kernel.remaining())
        self.wake_at = -1.0
        self.writes: deque[tuple[str, int, bool]] = deque()
        """(group, epoch of its token, whether it is to be there)"""
        if isinstance(self.keeper, TokenKeeper):
            for group, epoch in self.keeper.tokens().items():
                self.write(group, epoch, there=True)
        self.do(self.wake)

    def time(self) -> float:
        return self.clock.at(self.world.now)

    # ------------------------------------------------------------------ being a process

    def do(self, work: Work) -> None:
        if self.alive:
            self.inbox.append(work)
            if not self.busy and self.world.now >= self.frozen_until:
                self.serve()

    def serve(self) -> None:
        while self.alive and self.inbox and not self.busy:
            self.resume(self.inbox.popleft()())
        if self.alive and not self.busy:
            self.sleep()

    def resume(self, steps: Iterator[None]) -> None:
        """Go on with one piece of work until it ends or the process is frozen between two steps."""
        self.busy = False
        for _ in steps:
            if self.world.now < self.frozen_until:
                break
            again = self.setup.freezes and self.world.now == self.frozen_until
            if self.world.rng.random() < (0.3 if again else self.setup.freezes):
                self.frozen_until = self.world.now + self.world.rng.uniform(0.0, self.setup.longest_freeze)
                break
        else:
            return
        self.busy, self.rest = True, steps
        self.world.at(self.frozen_until, self.thaw)

    def freeze(self, seconds: float) -> None:
        self.frozen_until = max(self.frozen_until, self.world.now + seconds)
        self.world.at(self.frozen_until, self.thaw)

    def thaw(self) -> None:
        """Go on where it stopped, then with what waited."""
        if not self.alive or self.world.now < self.frozen_until:
            return
        rest, self.rest = self.rest, None
        if rest is not None:
            self.resume(rest)
        self.serve()

    def sleep(self) -> None:
        wake = self.world.now + max(0.0, self.clock.lasts(self.keeper.next_wakeup(self.time()) - self.time())) + 1e-6
        if self.wake_at <= self.world.now or wake < self.wake_at - 1e-9:
            self.wake_at = wake
            self.world.at(wake, lambda: self.do(self.wake) if self.wake_at == wake else None)

    def stop(self) -> None:
        self.alive = False

    # ------------------------------------------------------------------ work

    def wake(self) -> Iterator[None]:
        self.wake_at = -1.0
        yield
        yield from self.carry_out(self.keeper.expire(self.time()))
        if self.keeper.keepalive_due(self.time()):
            yield from self.agent()
            now = self.time()
            message, targets = self.keeper.keepalive(now)
            yield
            for store in targets:
                self.setup.send(store, message)
            yield
            yield from self.carry_out(self.keeper.renew(now))

    def swear(self, group: str, epoch: int) -> Iterator[None]:
        """The operator's command on this node."""
        yield
        try:
            oath = self.keeper.swear(group, epoch, self.time())
        except Refused as e:
            self.world.say(f"{self.node} refuses an oath: {e}")
            return
        yield
        self.run.oaths[group] = oath
        self.world.say(f"{self.node} sworn {group} {oath.epoch}")

    def granted(self, grant: Grant) -> Iterator[None]:
        yield
        effects = self.keeper.received(grant, self.time())
        used = any(isinstance(e, (Permit, Extend)) for e in effects)
        if used and (grant.term, grant.version) < self.newest:
            raise Violation(f"authority goes back: {self.node} used a grant of term {grant.term} after {self.newest}")
        if grant.nonce in self.keeper._sent:
            self.newest = max(self.newest, (grant.term, grant.version))
        yield from self.carry_out(effects)

    def carry_out(self, effects: list[Effect]) -> Iterator[None]:
        for effect in effects:
            yield
            match effect:
                case Permit(group, epoch, _, until):
                    oath = self.run.oaths.get(group)
                    if oath is not None and oath.epoch < epoch:
                        del self.run.oaths[group]
                    if self.setup.assigned(group, epoch) != self.node and (oath is None or oath.epoch != epoch):
                        raise Violation(f"{self.node} was permitted {group} at epoch {epoch}, which is not its own")
                    self.world.say(f"{self.node} permitted {group} {epoch}")
                    yield from self.gated(group, self.gate.hold(group, epoch, until))
                case Extend(untils):
                    for group, until in untils.items():
                        h = self.keeper.holdings().get(group)
                        if h is not None:
                            yield from self.gated(group, self.gate.extend(group, h.epoch, until))
                case OathTaken(group, epoch):
                    self.run.oaths[group] = replace(self.run.oaths[group], free=False)
                case TokenTaken(group, epoch):
                    self.run.tokens[group] = epoch
                    self.write(group, epoch, there=True)
                case TokenDropped(group, epoch):
                    self.write(group, epoch, there=False)
                case Revoke(group, epoch, reason):
                    self.world.say(f"{self.node} revokes {group} {epoch}: {reason}")
                    yield from self.let_go(group, epoch)

    def write(self, group: str, epoch: int, *, there: bool) -> None:
        assert self.setup.tokens is not None
        self.writes.append((group, epoch, there))
        if len(self.writes) == 1:
            self.world.at(self.world.now + self.setup.tokens.takes(), self.wrote)

    def wrote(self) -> None:
        disk = self.setup.tokens
        if not self.alive or disk is None:
            return
        group, epoch, there = self.writes.popleft()
        self.world.say(f"{self.node} disk: token of {group} {epoch if there else 'gone'}")
        if there:
            disk.content[group] = epoch
        else:
            disk.content.pop(group, None)
            self.do(lambda: self.token_gone(group, epoch))
        disk.written()
        if self.writes:
            self.world.at(self.world.now + disk.takes(), self.wrote)

    def token_gone(self, group: str, epoch: int) -> Iterator[None]:
        assert isinstance(self.keeper, TokenKeeper)
        if self.run.tokens.get(group) == epoch:
            del self.run.tokens[group]
        yield
        self.keeper.token_gone(group, epoch, self.time())

    def gated(self, group: str, steps: Iterator[None]) -> Iterator[None]:
        try:
            yield from steps
        except LeaseOver:
            yield from self.carry_out(self.keeper.give_up(group, "its time was over in the kernel"))

    def let_go(self, group: str, epoch: int) -> Iterator[None]:
        """Mute, make the floor durable, then say so."""
        self.kernel.delete(group)
        yield
        self.run.floors[group] = max(epoch, self.run.floors.get(group, -1))
        plan = self.run.plans.get(group)
        if plan is not None and plan.epoch <= epoch:
            del self.run.plans[group]
        oath = self.run.oaths.get(group)
        if oath is not None and oath.epoch <= epoch:
            del self.run.oaths[group]
        yield
        self.stopping.pop(group, None)
        yield from self.carry_out(self.keeper.released(group, epoch, self.time()))

    def agent(self) -> Iterator[None]:
        """Bring this node to what some store says, which may be old."""
        state = self.setup.read()
        for group, oath in list(self.run.oaths.items()):
            a = state.groups.get(group) if state else None
            if a is None or a.node != self.node or a.epoch <= oath.epoch:
                yield from self.plan(group, oath.epoch, 1)
        for group, a in state.groups.items() if state else ():
            if group in self.run.oaths and (a.node != self.node or a.epoch <= self.run.oaths[group].epoch):
                continue
            if a.node == self.node:
                yield from self.plan(group, a.epoch, a.version)
            elif a.previous_node == self.node and self.run.floors.get(group, -1) < a.previous_epoch:
                now = self.time()
                epoch, done = self.stopping.get(group, (-1, 0.0))
                if epoch < a.previous_epoch:
                    done = now + self.setup.stop_takes()
                    self.stopping[group] = (a.previous_epoch, done)
                if now >= done:
                    yield from self.let_go(group, a.previous_epoch)
            elif a.previous_node != self.node and group in self.run.plans and self.run.plans[group].epoch < a.epoch:
                yield from self.let_go(group, self.run.plans[group].epoch)

    def plan(self, group: str, epoch: int, version: int) -> Iterator[None]:
        known = self.run.plans.get(group)
        if known == Planned(epoch, version) or (known is not None and known.epoch > epoch):
            return
        oath = self.run.oaths.get(group)
        if known is not None and (oath is None or oath.epoch != known.epoch):
            yield from self.let_go(group, known.epoch)
        try:
            self.keeper.permitted(group, epoch, self.time())
            self.run.plans[group] = Planned(epoch, version)
            yield
            _, effects = self.keeper.plan(group, epoch, version, self.time())
        except Stale:
            return
        yield from self.carry_out(effects)
