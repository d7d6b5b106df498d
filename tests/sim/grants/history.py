"""One history: machines, a schedule of faults drawn from the seed, a healing, and what must be true at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from hasys.lease.granting import Granter
from hasys.lease.keeping import Keeper, KeeperState
from hasys.lease.wire import Grant, KeepAlive, decode, encode
from hasys.model.timing import PROFILES, Timing
from tests.sim.grants.consensus import Disk, Log, Setup, Store
from tests.sim.grants.guard import Guard, GuardSetup, RunDir, TokenDisk
from tests.sim.grants.kernel import Gate, Kernel
from tests.sim.grants.state import Assign, Command, LowerTtlMax, Retime, RevokePrevious, State
from tests.sim.grants.world import Clock, Violation, Weather, World

CLUSTER = "sim"
KEY = bytes(32)
M = TypeVar("M", KeepAlive, Grant)
TIMINGS: Mapping[str, Timing] = {
    "default": replace(PROFILES["default"], ttl=1.0, heartbeat=0.09, keepalive=0.14, leader_fallback=0.35,
                       election_min=0.37, election_max=0.49).check(),
    "slow": replace(PROFILES["default"], ttl=1.6, heartbeat=0.14, keepalive=0.21, leader_fallback=0.5,
                    election_min=0.55, election_max=0.8).check(),
}  # fmt: skip


@dataclass(frozen=True)
class Focus:
    """Which faults a history draws from, how many, and how shaky its processes are."""

    kinds: tuple[str, ...]
    most: int = 7
    freezes: tuple[float, ...] = (0.0, 0.0, 0.002, 0.01)
    """Probability of a freeze at each step of a guard that may be interrupted; one is drawn."""
    longest_freeze: float = 2.0
    """TTLs."""


FOCI: Mapping[str, Focus] = {
    "everything": Focus((
        "restart_store", "reboot", "restart_guard", "freeze", "cut", "cut", "bad_weather", "force_election",
        "force_election", "move", "move", "retime",
    )),
    "elections": Focus(("force_election", "force_election", "cut", "cut", "move", "reboot"), 12, (0.0,)),
    "forgetting": Focus(("restart_store", "restart_store", "force_election", "cut", "freeze", "reboot"), 14, (0.0,)),
    "moves": Focus(("move", "move", "move", "force_election", "bad_weather", "restart_guard", "cut"), 14),
    "freezes": Focus(("freeze", "move", "restart_guard"), 4, (0.003, 0.01), 1.2),
    "timings": Focus(("retime", "force_election", "cut", "move", "reboot"), 10, (0.0,)),
    "weather": Focus(("bad_weather", "bad_weather", "cut", "move", "force_election"), 10),
}  # fmt: skip
FAULTY, HEALED = 4.0, 4.2
"""TTLs of the first profile: with faults, then without."""


@dataclass
class Parts:
    """The code under test, and what a seeded fault replaces of it."""

    granter: Callable[..., Granter] = Granter
    keeper: Callable[..., Keeper] = Keeper
    gate: Callable[[Kernel], Gate] = Gate
    store: type[Store] = Store


@dataclass
class Machine:
    """A node or the witness."""

    name: str
    clock: Clock
    disk: Disk
    store: Store | None = None
    kernel: Kernel | None = None
    run: RunDir | None = None
    guard: Guard | None = None
    boots: int = 0


class History(Setup):
    """Everything of one seed."""

    token_disk: TokenDisk | None = None
    """Of the guard that is being started, where tokens decide."""

    def __init__(self, seed: int, parts: Parts | None = None, focus: str = "", *, trace: bool = False) -> None:
        self.parts = parts or Parts()
        self.focus = FOCI[focus or [*FOCI][seed % len(FOCI)]]
        self.world = world = World(seed)
        world.tracing = trace
        self.draw()
        self.ttl = self.timing.ttl
        self.log: Log = ()
        self.truth: dict[tuple[str, int], str] = {}
        self.initial = self.final = State(timing=self.timing, ttl_max=self.ttl)
        self.stores: dict[str, Store] = {}
        self.retimed = False
        self.machines = {n: Machine(n, self.clock(), Disk()) for n in dict.fromkeys(self.voters + self.nodes)}
        for name, m in self.machines.items():
            if name in self.voters:
                self.start_store(name)
            if name in self.nodes:
                m.kernel = Kernel(world, name, m.clock)
                self.start_guard(name, wiped=True)

    def draw(self) -> None:
        """What the seed decides before the first event."""
        rng = self.world.rng
        self.timing = TIMINGS[rng.choice(("default", "default", "slow"))]
        self.nodes: tuple[str, ...] = ("n1", "n2") if rng.random() < 0.6 else ("n1", "n2", "n3")
        self.voters: tuple[str, ...] = (*self.nodes, "w")[:3]
        self.groups: tuple[str, ...] = ("web", "db")[: rng.choice((1, 1, 2))]
        self.lag = rng.choice((0.0, 0.0, 0.2))
        self.freezes = rng.choice(self.focus.freezes)

    def clock(self) -> Clock:
        return self.world.drifting_clock()

    def stop_takes(self) -> float:
        """How long an orderly stop takes, on the node's clock."""
        return self.world.rng.uniform(0.0, 2.0 if self.world.rng.random() < 0.3 else 0.2)

    # ------------------------------------------------------------------ processes

    def start_store(self, name: str) -> None:
        m = self.machines[name]
        m.store = self.stores[name] = self.parts.store(self.world, name, m.clock, m.disk, self)

    def start_guard(self, name: str, *, wiped: bool) -> None:
        m = self.machines[name]
        assert m.kernel is not None
        if wiped or m.run is None:
            m.kernel.power_off()
            m.run = RunDir()
        m.boots += 1
        setup = GuardSetup(
            self.voters, lambda store, message: self.ask(name, store, message), lambda: self.read(name),
            self.make_keeper, self.parts.gate, lambda g, e: self.truth.get((g, e)), self.stop_takes, self.freezes,
            self.focus.longest_freeze * self.ttl, self.token_disk,
        )  # fmt: skip
        m.guard = Guard(self.world, name, m.kernel, m.run, f"{name}-{m.boots}", setup)

    def make_keeper(self, node: str, boot: str, restored: KeeperState, remaining: dict[str, float]) -> Keeper:
        nonces = self.world.rng
        return self.parts.keeper(
            CLUSTER, node, self.voters, self.timing, boot, lambda: nonces.getrandbits(64), restored, remaining
        )

    def make_granter(self, leader: str) -> Granter:
        return self.parts.granter(CLUSTER, leader, self.nodes, self.timing)

    # ------------------------------------------------------------------ messages

    def ask(self, node: str, store: str, message: KeepAlive) -> None:
        sent = self.wired(message)
        self.world.send(node, store, lambda: self.stores[store].do(lambda: self.stores[store].keepalive(sent)))

    def wired(self, message: M) -> M:
        """Every fifth history sends real datagrams, with their rounding."""
        if self.world.seed % 5:
            return message
        got = decode(encode(message, KEY), CLUSTER, lambda node: KEY)
        assert isinstance(got, type(message))
        return got

    def deliver(self, leader: str, grant: Grant) -> None:
        sent = self.wired(grant)

        def arrive() -> None:
            guard = self.machines[grant.node].guard
            if guard is not None:
                guard.do(lambda: guard.granted(sent))

        self.world.send(leader, grant.node, arrive)

    def read(self, node: str) -> State | None:
        """The agent's view: of a store it reaches, as old as that store's state."""
        reachable = [s for s in self.stores.values() if s.alive and (s.name, node) not in self.world.cuts]
        return self.world.rng.choice(reachable).state if reachable else None

    def chosen(self, log: Log) -> None:
        """A store applied this prefix: state-machine safety of the model itself, and the truth about epochs."""
        shorter = min(len(log), len(self.log))
        if log[:shorter] != self.log[:shorter]:
            raise Violation("the model's Raft is broken: two different prefixes were applied")
        for _, command in log[len(self.log) :]:
            if command is not None:
                self.final = self.final.after(command)
                for group, a in self.final.groups.items():
                    self.truth.setdefault((group, a.epoch), a.node)
        if len(log) > len(self.log):
            self.log = log

    # ------------------------------------------------------------------ the controller on a leader

    def control(self, store: Store) -> None:
        if store.authority() is None:
            return
        for group in self.groups:
            command = self.wanted(store, group)
            if command is not None:
                store.propose(command)
                return
        s = store.state
        if s.timing is not None and s.ttl_max > s.timing.ttl and store.granter.settled(store.time()):
            store.propose(LowerTtlMax(s.timing))

    def wanted(self, store: Store, group: str) -> Command | None:
        now = store.time()
        facts = store.granter.facts(now)
        good = [n for n in self.nodes if facts[n].confirming and facts[n].silent_for < store.timing.suspicion]
        a = store.state.groups.get(group)
        if a is None:
            return Assign(group, 0, self.world.rng.choice(good), True) if good else None
        sworn = [n for n in self.nodes if facts[n].claims.get(group, -1) >= (a.epoch if n == a.node else 0)]
        if sworn:
            return Assign(group, a.epoch, sworn[0], True, above=facts[sworn[0]].claims[group])
        lost = facts[a.node].silent_for > store.timing.suspicion
        if lost or facts[a.node].released.get(group, -1) >= a.epoch:
            others = [n for n in good if n != a.node] or good
            return Assign(group, a.epoch, self.world.rng.choice(others), True) if others else None
        if not a.revoked and a.previous_node:
            previous = facts[a.previous_node]
            if previous.silent_for > store.timing.suspicion or self.world.rng.random() < 0.02:
                return RevokePrevious(group, a.epoch)
        return None

    # ------------------------------------------------------------------ faults

    def inject(self) -> None:
        """Draw one fault now."""
        rng = self.world.rng
        name = rng.choice([*self.machines])
        getattr(self, rng.choice(self.focus.kinds))(name)

    def restart_store(self, name: str) -> None:
        store = self.machines[name].store
        if store is not None and store.alive:
            self.world.say(f"FAULT store {name} restarts")
            store.stop()
            self.world.at(self.world.now + self.world.rng.uniform(0.0, 0.6), lambda: self.start_store(name))

    def restart_guard(self, name: str) -> None:
        guard = self.machines[name].guard
        if guard is not None and guard.alive:
            self.world.say(f"FAULT guard {name} restarts")
            guard.stop()
            self.world.at(
                self.world.now + self.world.rng.uniform(0.0, 0.5), lambda: self.start_guard(name, wiped=False)
            )

    def reboot(self, name: str) -> None:
        m = self.machines[name]
        if (m.store is not None and not m.store.alive) or (m.guard is not None and not m.guard.alive):
            return
        self.world.say(f"FAULT {name} loses power")
        off = self.world.rng.uniform(0.3, 2.5) * self.ttl
        if m.store is not None:
            m.store.stop()
            self.world.at(self.world.now + off, lambda: self.start_store(name))
        if m.guard is not None and m.kernel is not None:
            m.guard.stop()
            m.kernel.power_off()
            self.world.at(self.world.now + off, lambda: self.start_guard(name, wiped=True))

    def freeze(self, name: str) -> None:
        m, rng = self.machines[name], self.world.rng
        seconds = rng.uniform(0.05, 2.5) * self.ttl
        which = rng.choice(("store", "guard", "both"))
        self.world.say(f"FAULT {name} {which} frozen for {seconds:.3f}")
        if m.store is not None and which != "guard":
            m.store.freeze(seconds)
        if m.guard is not None and which != "store":
            m.guard.freeze(seconds)

    def cut(self, name: str) -> None:
        """One-way, two-way, or off from everybody, for a while."""
        rng, cuts = self.world.rng, self.world.cuts
        others = [n for n in self.machines if n != name]
        if rng.random() < 0.6:
            others = [rng.choice(others)]
        directions = rng.choice(((0,), (1,), (0, 1)))
        pairs = {(name, o) for o in others if 0 in directions} | {(o, name) for o in others if 1 in directions}
        self.world.say(f"FAULT cut {sorted(pairs)}")
        cuts |= pairs
        self.world.at(self.world.now + rng.uniform(0.2, 3.0) * self.ttl, lambda: cuts.difference_update(pairs))

    def bad_weather(self, name: str) -> None:
        rng, world = self.world.rng, self.world
        world.weather = Weather(
            rng.choice((0.0, 0.1, 0.5)), rng.choice((0.0, 0.3)), rng.choice((0.0, 0.1, 0.5)), rng.uniform(0.1, 2.5)
        )  # fmt: skip
        world.say(f"FAULT {world.weather}")

        def calm() -> None:
            world.weather = Weather()

        world.at(world.now + rng.uniform(0.3, 2.0) * self.ttl, calm)

    def force_election(self, name: str) -> None:
        store = self.stores[self.world.rng.choice(self.voters)]
        if store.leading is None:
            store.do(lambda: store.campaign() if store.alive else None)

    def leaders(self) -> list[Store]:
        """All that believe so."""
        return [s for s in self.stores.values() if s.alive and s.leading is not None]

    def move(self, name: str) -> None:
        """A planned move; sometimes before the last one ended."""
        rng = self.world.rng
        group = rng.choice(self.groups)
        for store in self.leaders():
            a = store.state.groups.get(group)
            if a is not None:
                target = rng.choice([n for n in self.nodes if n != a.node])
                revoke = rng.random() < 0.2
                store.do(partial(store.propose, Assign(group, a.epoch, target, revoke)))

    def retime(self, name: str) -> None:
        timing = TIMINGS[self.world.rng.choice([*TIMINGS])]
        for store in self.leaders():
            if store.timing != timing and not self.retimed:
                self.retimed = True
                store.do(partial(store.propose, Retime(timing)))

    # ------------------------------------------------------------------ running

    def run(self) -> None:
        """Play the history. Raises :class:`Violation`."""
        world, rng = self.world, self.world.rng
        settle = rng.uniform(1.2, 2.2) * self.ttl
        end = settle + FAULTY * self.ttl
        for _ in range(rng.randint(1, self.focus.most)):
            world.at(settle + rng.uniform(0.0, FAULTY * 0.8) * self.ttl, self.inject)
        world.run(end)
        self.heal()
        world.run(end + HEALED * max(t.ttl for t in (self.timing, *(TIMINGS.values() if self.retimed else ()))))
        self.check_settled()

    def heal(self) -> None:
        """No fault is left but drift; processes that were down come back by themselves."""
        world = self.world
        world.say("HEALED")
        world.weather = Weather()
        world.cuts.clear()
        self.freezes = 0.0
        for m in self.machines.values():
            if m.guard is not None:
                m.guard.setup.freezes = 0.0
            for process in (m.store, m.guard):
                if process is not None:
                    process.frozen_until = min(process.frozen_until, world.now)
                    process.thaw()

    def check_settled(self) -> None:
        """Liveness: each group speaks, on the node that the committed state names."""
        for group in self.groups:
            holder = self.world.holder(group)
            a = self.final.groups.get(group)
            if holder is None or a is None or holder != a.node:
                raise Violation(f"L1: {group} speaks on {holder}, assigned {a}, {HEALED} TTL after the last fault")


def play(seed: int, parts: Parts | None = None, focus: str = "") -> History:
    """Run one seed; its focus is drawn from the seed unless named."""
    history = History(seed, parts, focus)
    history.run()
    return history
