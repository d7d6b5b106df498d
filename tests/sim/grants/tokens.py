"""Two voters and no third, policy safe: tokens instead of leases by time (docs/decisions/0007).

The same faults as everywhere, and more of the sort that two machines know: the link between them is cut, one is off,
both are off and one returns. Promised at every step: S1a, and no group whose token lies on two disks. Promised after
the healing: every group is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from hasys.lease.keeping import Keeper, KeeperState
from hasys.lease.tokens import TokenGranter, TokenKeeper
from tests.sim.grants.consensus import Store
from tests.sim.grants.guard import TokenDisk
from tests.sim.grants.history import TIMINGS, Focus, History, Parts
from tests.sim.grants.state import Assign, Command, RevokePrevious, State
from tests.sim.grants.world import Violation

TWO_NODES: Mapping[str, Focus] = {
    "everything": Focus((
        "restart_store", "reboot", "reboot", "restart_guard", "freeze", "cut", "link", "link", "bad_weather",
        "force_election", "move", "move", "blackout",
    ), 10),
    "moves": Focus(("move", "move", "move", "link", "restart_guard", "bad_weather", "reboot"), 14),
    "power": Focus(("reboot", "reboot", "blackout", "move", "move", "restart_guard", "link"), 12, (0.0,)),
    "freezes": Focus(("freeze", "move", "restart_guard", "link"), 6, (0.003, 0.01), 1.2),
}  # fmt: skip

LINK = {("n1", "n2"), ("n2", "n1")}
"""Both ways of the cable between the two."""


class Impatient(TokenKeeper):
    """Starts alone after less than two leases: how long it waits is for comfort, never for safety."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.alone_after = 1.6 * self._ttl


def by_tokens() -> Parts:
    return Parts(granter=TokenGranter, keeper=Impatient)


class TwoNodes(History):
    """One seed. The keeper of ``parts`` takes tokens."""

    foci = TWO_NODES

    def __init__(self, seed: int, parts: Parts | None = None, focus: str = "", *, trace: bool = False) -> None:
        self.disks: dict[str, dict[str, int]] = {"n1": {}, "n2": {}}
        self.known: dict[str, State] = {}
        """What each agent read last; survives the power."""
        self.two_nodes = self.foci[focus or [*self.foci][seed % len(self.foci)]]
        super().__init__(seed, parts or by_tokens(), trace=trace)

    def draw(self) -> None:
        rng = self.world.rng
        self.focus = self.two_nodes
        self.timing = TIMINGS["default"]
        self.nodes = self.voters = ("n1", "n2")
        self.groups = ("web", "db")[: rng.choice((1, 1, 2))]
        self.lag = rng.choice((0.0, 0.0, 0.2))
        self.freezes = rng.choice(self.focus.freezes)
        self.slow_disks = rng.random() < 0.4

    # ------------------------------------------------------------------ parts

    def make_keeper(self, node: str, boot: str, restored: KeeperState, remaining: dict[str, float]) -> Keeper:
        rng = self.world.rng
        return self.parts.keeper(
            "sim", node, self.voters, self.timing, boot, lambda: rng.getrandbits(64), restored, remaining,
            tokens={**self.disks[node], **(run.tokens if (run := self.machines[node].run) else {})},
        )  # fmt: skip

    def start_guard(self, name: str, *, wiped: bool) -> None:
        self.token_disk = TokenDisk(self.disks[name], self.disk_takes, self.check_disks)
        super().start_guard(name, wiped=wiped)

    def disk_takes(self) -> float:
        rng = self.world.rng
        return rng.uniform(0.0, 1.5) * self.ttl if self.slow_disks and rng.random() < 0.3 else rng.uniform(0.0, 0.01)

    def check_disks(self) -> None:
        for group in self.groups:
            if all(group in disk for disk in self.disks.values()):
                raise Violation(f"the token of {group} lies on two disks: {self.disks}")

    def read(self, node: str) -> State | None:
        """A store that never heard a leader since it started has nothing to tell: then what was last known."""
        told = [
            s.state
            for s in self.stores.values()
            if s.alive and s.applied and (s.name, node) not in self.world.cuts and s.name in (node, *self.nodes)
        ]
        if told:
            self.known[node] = self.world.rng.choice(told)
        return self.known.get(node)

    def wanted(self, store: Store, group: str) -> Command | None:
        """Silence alone moves nothing."""
        now = store.time()
        facts = store.granter.facts(now)
        good = [n for n in self.nodes if facts[n].confirming and facts[n].silent_for < store.timing.suspicion]
        a = store.state.groups.get(group)
        if a is None:
            return Assign(group, 0, self.world.rng.choice(good), True) if good else None
        if facts[a.node].released.get(group, -1) >= a.epoch:
            return Assign(group, a.epoch, self.world.rng.choice(good), True) if good else None
        if not a.revoked and a.previous_node and self.world.rng.random() < 0.02:
            return RevokePrevious(group, a.epoch)
        return None

    # ------------------------------------------------------------------ faults

    def link(self, name: str) -> None:
        """The cable between the two."""
        self.world.say("FAULT link cut")
        self.cut_link()
        self.later(self.world.rng.uniform(0.2, 4.0) * self.ttl, lambda: self.world.cuts.difference_update(LINK))

    def blackout(self, name: str) -> None:
        """Both lose power; each returns when it does, often with the cable out."""
        if self.world.rng.random() < 0.5:
            self.link(name)
        for node in self.nodes:
            self.reboot(node)

    def power(self, name: str, *, on: bool) -> None:
        """For scripts."""
        m = self.machines[name]
        assert m.store is not None
        assert m.guard is not None
        assert m.kernel is not None
        if on:
            self.start_store(name)
            self.start_guard(name, wiped=True)
        else:
            m.store.stop()
            m.guard.stop()
            m.kernel.power_off()

    def cut_link(self) -> None:
        self.world.cuts |= LINK

    def later(self, seconds: float, call: Any) -> None:
        self.world.at(self.world.now + seconds, partial(call))
