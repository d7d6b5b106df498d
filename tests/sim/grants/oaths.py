"""Histories with an operator's oath: the majority dies, the operator swears on what is left, the others return.

While the oath is true (whoever could form a majority is off, or heard by the sworn node) two nodes never speak,
whatever freezes, restarts and gets lost. Once a leader has answered, the oath is over and every fault may come.
"""

from __future__ import annotations

from functools import partial

from hasys.lease.wire import Grant
from tests.sim.grants.history import TIMINGS, History
from tests.sim.grants.world import Violation, Weather


class OathHistory(History):
    """One seed. ``true``: the oath is; else the others are only cut off, and serve."""

    true = True

    def draw(self) -> None:
        rng = self.world.rng
        self.timing = TIMINGS["default"]
        self.nodes, self.voters, self.groups = ("n1", "n2"), ("n1", "n2", "w"), ("web",)
        self.lag = 0.0
        self.freezes = 0.0
        self.alone = rng.choice(("n1", "n2"))
        self.others = [n for n in self.voters if n != self.alone]
        self.cut_again = False
        self.spoke = False
        """The oath let the address speak."""

    def run(self) -> None:
        world, rng = self.world, self.world.rng
        world.run(rng.uniform(1.5, 2.5) * self.ttl)
        if self.true:
            cut_first = {(a, b) for o in self.others for a, b in ((o, self.alone), (self.alone, o))}
            if rng.random() < 0.5:  # the others went on without it for a while: it knows less than they decided
                world.cuts |= cut_first
                world.run(world.now + rng.uniform(1.0, 2.5) * self.ttl)
            self.lose_the_others()
            world.cuts -= cut_first
        else:
            world.cuts |= {(a, b) for other in self.others for a, b in ((other, self.alone), (self.alone, other))}
        world.run(world.now + rng.choice((0.0, 0.0, rng.uniform(0.0, 2.0))) * self.ttl)
        for _ in range(2):  # refused while the last lease runs; the operator types it again
            self.swear()
            world.run(world.now + rng.uniform(0.5, 1.3) * self.ttl)
        world.run(world.now + rng.uniform(0.0, 2.0) * self.ttl)
        self.look()
        self.shake()
        self.bring_back()
        world.run(world.now + 3.0 * self.ttl)
        self.look()
        self.check_taken()
        for _ in range(rng.randint(0, 3)):
            getattr(self, rng.choice(("cut", "freeze", "force_election", "reboot", "restart_guard")))(
                rng.choice([*self.machines])
            )
            world.run(world.now + rng.uniform(0.0, 1.0) * self.ttl)
        world.run(world.now + 3.0 * self.ttl)
        self.heal()
        world.run(world.now + 5.0 * self.ttl)
        self.check_settled()

    def lose_the_others(self) -> None:
        """Their power, or their stores alone: then a guard among them keeps what it holds until its lease ends."""
        power = self.world.rng.random() < 0.6
        for name in self.others:
            m = self.machines[name]
            if m.store is not None:
                m.store.stop()
            if power and m.guard is not None and m.kernel is not None:
                m.guard.stop()
                m.kernel.power_off()

    def swear(self) -> None:
        guard, store = self.machines[self.alone].guard, self.machines[self.alone].store
        assert guard is not None
        known = store.state.groups.get("web") if store else None
        guard.do(lambda: guard.swear("web", max(known.epoch if known else 0, guard.run.floors.get("web", 0)) + 1))

    def shake(self) -> None:
        """Faults of the sworn node around the return of the others, and a network that loses (in time: true oaths)."""
        rng, world = self.world.rng, self.world
        world.weather = Weather(loss=rng.choice((0.0, 0.0, 0.1)), duplicate=0.2)
        machine = self.machines[self.alone]
        for _ in range(rng.choice((0, 0, 1, 2))):
            when = world.now + rng.uniform(0.0, 2.5) * self.ttl
            kind = rng.choice(("freeze", "freeze", "restart"))
            if kind == "restart":
                world.at(when, partial(self.restart_guard, self.alone))
            elif machine.guard is not None:
                world.at(when, partial(machine.guard.freeze, rng.uniform(0.1, 2.5) * self.ttl))
        self.freezes = rng.choice((0.0, 0.003))
        if machine.guard is not None:
            machine.guard.setup.freezes = self.freezes

    def bring_back(self) -> None:
        rng, world = self.world.rng, self.world
        if not self.true:
            world.cuts.clear()
            return
        for name in self.others:
            on = world.now + rng.uniform(0.0, 1.5) * self.ttl
            world.at(on, partial(self.start_store, name))
            guard = self.machines[name].guard
            if guard is not None and not guard.alive:
                world.at(on + rng.uniform(0.0, 0.5), partial(self.start_guard, name, wiped=True))
        for _ in range(rng.randint(0, 2)):
            world.at(world.now + rng.uniform(0.3, 2.0) * self.ttl, partial(self.elect, rng.choice(self.voters)))

    def deliver(self, leader: str, grant: Grant) -> None:
        """Right after the first answer of a leader the sworn node may be cut off: from then on grants alone count."""
        super().deliver(leader, grant)
        rng, world = self.world.rng, self.world
        if grant.kept and not self.cut_again:
            self.cut_again = True
            if rng.random() < 0.4:
                pairs = {(a, b) for o in self.others for a, b in ((o, self.alone), (self.alone, o))}
                world.at(world.now + rng.uniform(0.005, 0.6) * self.ttl, lambda: world.cuts.update(pairs))
                world.at(world.now + 2.5 * self.ttl, lambda: world.cuts.difference_update(pairs))

    def elect(self, name: str) -> None:
        """Chance, not a time-out, begins an election."""
        store = self.stores[name]
        if store.alive and store.leading is None:
            store.do(lambda: store.campaign() if store.alive else None)

    def look(self) -> None:
        run = self.machines[self.alone].run
        assert run is not None
        if run.oaths and self.world.holder("web") == self.alone:
            self.spoke = True

    def check_taken(self) -> None:
        """A leader that is heard has the last word: no oath renews itself beside it."""
        guard = self.machines[self.alone].guard
        if guard is None or not guard.alive or self.world.now < guard.frozen_until or self.world.weather.loss:
            return
        lease, _, _ = guard.keeper.lease(guard.time())
        if lease and any(oath.free for oath in guard.keeper.oaths().values()):
            raise Violation(f"an oath of {self.alone} renews itself while a leader grants")


class FalseOath(OathHistory):
    """The others serve; the sworn node is merely cut off from them."""

    true = False


class QuietReturn(OathHistory):
    """The others come back, or the witness alone does; nothing fails but that datagrams are doubled, late, and out of
    order. What serves on the operator's word goes on."""

    def run(self) -> None:
        world, rng = self.world, self.world.rng
        world.run(rng.uniform(1.5, 2.5) * self.ttl)
        self.lose_the_others()
        world.run(world.now + 1.3 * self.ttl)
        self.swear()
        world.run(world.now + 2.0 * self.ttl)
        self.look()
        run = self.machines[self.alone].run
        assert run is not None
        sworn = {group: oath.epoch for group, oath in run.oaths.items()}
        world.weather = Weather(duplicate=0.5, late=0.5, latest=0.02)
        self.bring_back()
        world.run(world.now + 4.0 * self.ttl)
        given_up = {group: run.floors[group] for group, epoch in sworn.items() if run.floors.get(group, -1) >= epoch}
        if self.spoke and (given_up or run.oaths):
            raise Violation(f"{self.alone} swore {sworn}, gave up {given_up}, and is left with {run.oaths}")

    def bring_back(self) -> None:
        rng, world = self.world.rng, self.world
        for name in self.others if rng.random() < 0.5 else ["w"]:
            on = world.now + rng.uniform(0.0, 1.5) * self.ttl
            world.at(on, partial(self.start_store, name))
            guard = self.machines[name].guard
            if guard is not None and not guard.alive:
                world.at(on + rng.uniform(0.0, 0.5), partial(self.start_guard, name, wiped=True))

    def deliver(self, leader: str, grant: Grant) -> None:
        """No cut."""
        History.deliver(self, leader, grant)
