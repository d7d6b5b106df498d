"""Two voters and a shared disk, policy arbiter (docs/decisions/0012).

The faults of two nodes, and those of the disk: slow, away for one node or for both, a round that ends long after it
began. A write takes effect at some instant between its beginning and its end, or, when its node loses power, perhaps.
Promised at every step: S1a. Promised after the healing: every group is served.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from hasys.lease.arbiter import ArbiterGranter, ArbiterKeeper
from hasys.lease.ballots import Block, Look
from hasys.lease.keeping import Keeper, KeeperState, Oath
from hasys.lease.wire import KeepAlive
from hasys.model.errors import Refused
from tests.sim.grants.consensus import Store
from tests.sim.grants.guard import Guard
from tests.sim.grants.history import Focus, Parts
from tests.sim.grants.state import Assign, Command
from tests.sim.grants.tokens import TwoNodes

FAULTY, HEALED = 9.0, 6.0
"""TTLs."""
FOCI: Mapping[str, Focus] = {
    "everything": Focus((
        "restart_store", "reboot", "reboot", "restart_guard", "freeze", "cut", "link", "link", "bad_weather",
        "force_election", "move", "blackout", "disk_away", "slow_disk",
    ), 10),
    "takeovers": Focus(("link", "link", "reboot", "freeze", "disk_away", "slow_disk", "restart_guard"), 9, (0.0, 3e-3)),
    "moves": Focus(("move", "move", "link", "restart_guard", "bad_weather", "slow_disk"), 12),
    "freezes": Focus(("freeze", "freeze", "link", "move", "slow_disk"), 8, (0.003, 0.01), 2.5),
}  # fmt: skip


class Hasty(ArbiterKeeper):
    """Goes on alone soon, and by short lives: how long they are is for comfort, their relations are for safety."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.alone_after = 0.6 * self._ttl
        self.ballots.life = 0.7 * self._ttl


class Rude(Hasty):
    """Claims and takes over whenever it likes, beside a leader and beside an Active that lives. When to claim is a
    matter of comfort and of the data; that two never act must not depend on it."""

    def _may_take(self, group: str, now: float) -> bool:
        if group in self.ballots.claims and group not in self._tokens:
            return self._nonce() % 50 > 0
        return not self.busy(group) and self._nonce() % 8 == 0

    def won(self, now: float) -> list[str]:
        return [g for g in self.standbys if not self.busy(g) and self.ballots.until(g) - self._budget > now]

    def take(self, group: str, epoch: int, now: float) -> Oath:
        known = self._lease_until, self._confirmed_at
        self._lease_until = self._confirmed_at = float("-inf")
        try:
            return super().take(group, epoch, now)
        finally:
            self._lease_until, self._confirmed_at = known


def by_arbiter() -> Parts:
    return Parts(granter=ArbiterGranter, keeper=Hasty)


class Rounds:
    """The disk's thread of one guard."""

    def __init__(self, nodes: ArbiterNodes, guard: Guard) -> None:
        self.nodes, self.guard, self.world = nodes, guard, nodes.world
        assert isinstance(guard.keeper, ArbiterKeeper)
        self.keeper = guard.keeper
        self.again(0.0)

    def again(self, pause: float) -> None:
        self.world.at(self.world.now + pause, lambda: self.guard.do(self.begin))

    def begin(self) -> Iterator[None]:
        yield
        self.keeper.standbys = self.nodes.standbys(self.guard.node)
        block = self.keeper.round(self.guard.time())
        yield
        self.write(block)

    def write(self, block: Block | None) -> None:
        """It lands somewhere on its way, also without the process; power and distance may keep it off."""
        now, node = self.world.now, self.guard.node
        ends = now + (self.nodes.takes(node) if block is not None else 0.0)
        if block is not None:
            kernel, lands = self.guard.kernel, self.world.rng.uniform(now, ends)
            boot = self.nodes.machines[node].boots

            def land() -> None:
                machine = self.nodes.machines[node]
                off = machine.boots != boot and self.world.rng.random() < 0.5
                if not off and node not in self.nodes.away and kernel is machine.kernel and not self.overtaken(block):
                    self.nodes.blocks[node] = block

            self.world.at(lands, land)
        self.world.at(ends, partial(self.read, block))

    def overtaken(self, block: Block) -> bool:
        """A new process begins when the old one's writes have ended: this one came too late to land at all."""
        there = self.nodes.blocks.get(block.node)
        return there is not None and there.seq >= block.seq

    def read(self, block: Block | None) -> None:
        if not self.guard.alive:
            return
        began, node = self.guard.time(), self.guard.node
        ends = self.world.now + self.nodes.takes(node)
        seen: dict[str, Block | None] = {}
        for other in self.nodes.nodes:
            at = self.world.rng.uniform(self.world.now, ends)
            self.world.at(at, lambda o=other: seen.__setitem__(o, self.nodes.blocks.get(o)))  # type: ignore[misc]
        rival = next(n for n in self.nodes.nodes if n != node)
        ok = node not in self.nodes.away

        def done() -> None:
            if ok and node not in self.nodes.away:
                look = Look(block, began, seen[node], seen[rival])
                self.guard.do(lambda: self.looked(look))
            else:
                self.again(self.keeper.ballots.life / 8)

        self.world.at(ends + self.nodes.late.pop(node, 0.0), done)

    def looked(self, look: Look) -> Iterator[None]:
        yield
        yield from self.guard.carry_out(self.keeper.looked(look, self.guard.time()))
        self.guard.run.met = self.keeper.met
        for group in self.keeper.won(self.guard.time()):
            known = self.nodes.known.get(self.guard.node)
            epochs = [self.guard.run.floors.get(group, 0), known.groups[group].epoch if known else 0]
            plan = self.guard.run.plans.get(group)
            epochs.append(plan.epoch if plan else 0)
            try:
                oath = self.keeper.take(group, max(epochs) + 1, self.guard.time())
            except Refused:
                continue
            yield
            self.guard.run.oaths[group] = oath
            self.guard.run.taken.add(group)
            self.world.say(f"{self.guard.node} takes {group} over as {oath.epoch}")
            self.nodes.taken_over += 1
        self.again(self.keeper.ballots.life / 8)


class ArbiterNodes(TwoNodes):
    """One seed."""

    foci = FOCI

    def __init__(self, seed: int, parts: Parts | None = None, focus: str = "", *, trace: bool = False) -> None:
        self.blocks: dict[str, Block] = {}
        self.away: set[str] = set()
        """Nodes that do not reach the disk."""
        self.slow: set[str] = set()
        self.late: dict[str, float] = {}
        """Seconds by which the next round of a node is told later than it was read."""
        self.mute: set[str] = set()
        """Guards of which no store hears anything."""
        self.taken_over = 0
        super().__init__(seed, parts or by_arbiter(), focus, trace=trace)

    def make_keeper(self, node: str, boot: str, restored: KeeperState, remaining: dict[str, float]) -> Keeper:
        rng, run = self.world.rng, self.machines[node].run
        return self.parts.keeper(
            "sim", node, self.voters, self.timing, boot, lambda: rng.getrandbits(64), restored, remaining,
            tokens={**self.disks[node], **(run.tokens if run else {})},
            taken=run.taken if run else (), met=bool(run and run.met),
        )  # fmt: skip

    def start_guard(self, name: str, *, wiped: bool) -> None:
        super().start_guard(name, wiped=wiped)
        guard = self.machines[name].guard
        assert guard is not None
        Rounds(self, guard)

    def ask(self, node: str, store: str, message: KeepAlive) -> None:
        if node not in self.mute:
            super().ask(node, store, message)

    def check_disks(self) -> None:
        """Two tokens are no fault here: a lock can be taken from a node that is off."""

    def standbys(self, node: str) -> Mapping[str, float]:
        state = self.read(node)
        return {g: 0.0 for g, a in state.groups.items() if a.node != node} if state else {}

    def takes(self, node: str) -> float:
        rng = self.world.rng
        return rng.uniform(0.0, 1.5) * self.ttl if node in self.slow and rng.random() < 0.3 else rng.uniform(0.0, 0.01)

    def wanted(self, store: Store, group: str) -> Command | None:
        a = store.state.groups.get(group)
        if a is not None:
            facts = store.granter.facts(store.time())
            epochs = {n: facts[n].claims[group] for n in self.nodes if facts[n].claims.get(group, -1) >= 0}
            for node, epoch in epochs.items():
                if not (node == a.node and a.epoch > epoch):
                    return Assign(group, a.epoch, node, True, above=epoch)
        return super().wanted(store, group)

    # ------------------------------------------------------------------ faults

    def disk_away(self, name: str) -> None:
        """For one node, or for both."""
        nodes = {name} if self.world.rng.random() < 0.7 else set(self.nodes)
        self.world.say(f"FAULT disk away for {sorted(nodes)}")
        self.away |= nodes
        self.later(self.world.rng.uniform(0.2, 3.0) * self.ttl, lambda: self.away.difference_update(nodes))

    def slow_disk(self, name: str) -> None:
        self.world.say(f"FAULT disk slow for {name}")
        self.slow.add(name)
        self.later(self.world.rng.uniform(0.5, 3.0) * self.ttl, lambda: self.slow.discard(name))

    def link(self, name: str) -> None:
        """Long enough for a lock to be taken over."""
        self.world.say("FAULT link cut")
        self.cut_link()
        self.later(self.world.rng.uniform(0.2, 6.0) * self.ttl, self.world.cuts.clear)

    def reboot(self, name: str) -> None:
        if self.world.rng.random() < 0.5:
            super().reboot(name)
            return
        m = self.machines[name]
        if m.store is None or m.guard is None or not (m.store.alive and m.guard.alive):
            return
        self.world.say(f"FAULT {name} is off for long")
        self.power(name, on=False)
        self.later(self.world.rng.uniform(3.0, 7.0) * self.ttl, partial(self.power, name, on=True))

    def run(self) -> None:
        """Longer than others: nothing is taken over in less."""
        world, rng = self.world, self.world.rng
        settle = rng.uniform(1.5, 3.0) * self.ttl
        for _ in range(rng.randint(1, self.focus.most)):
            world.at(settle + rng.uniform(0.0, FAULTY) * self.ttl, self.inject)
        world.run(settle + (FAULTY + 7.5) * self.ttl)
        self.heal()
        world.run(world.now + HEALED * self.ttl)
        self.check_settled()

    def heal(self) -> None:
        self.away.clear()
        self.slow.clear()
        super().heal()


class RudeNodes(ArbiterNodes):
    """Promised: S1a, and nothing else."""

    def __init__(self, seed: int, parts: Parts | None = None, focus: str = "", *, trace: bool = False) -> None:
        super().__init__(seed, parts or Parts(granter=ArbiterGranter, keeper=Rude), focus, trace=trace)

    def check_settled(self) -> None:
        """Two that rob each other serve nobody for long."""
