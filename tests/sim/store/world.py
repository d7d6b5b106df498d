"""The simulated cluster: members with everything that a store process has, and all that can happen to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hasys.lease.granting import Granter
from hasys.lease.keeping import Keeper
from hasys.lease.wire import KeepAlive
from hasys.model.errors import Refused, Unavailable
from hasys.model.timing import RHO
from hasys.store.assigned import Assigned
from hasys.store.machine import Machine as StateMachine
from hasys.store.port import Applied
from hasys.store.raft import leading
from hasys.store.raft.core import Core
from hasys.store.raft.following import Failure
from hasys.store.raft.foundation import Outgoing
from hasys.store.raft.journal import Job, Opened, open_journal
from hasys.store.watch import WatchHub
from tests.sim.raft_world import Ledger, Machine, World
from tests.sim.store import leases
from tests.sim.store.checks import Checker, LeaseChecker, LogView, Violation
from tests.sim.store.clients import Clients, read_confirmed
from tests.sim.store.dialects import Dialect
from tests.sim.store.disk import FailingDisk
from tests.sim.store.watchers import VirtualLoop, Watcher

HISTORY = 60
"""Changes that a hub keeps: so few that slow watchers must list again."""
SIZES = ("BATCH_BYTES", "CHUNK_BYTES")
QUICK_DISK = (0.0001, 0.004)
QUICK_NETWORK = (0.0002, 0.003)

Read = Callable[["StoreWorld", "Member", Callable[[int | None], None]], None]
"""How a member answers a read: calls back with the version of the state it answered from, or None."""


@dataclass(frozen=True)
class Parts:
    """The code under test, and what a seeded fault replaces of it."""

    core: type[Core] = Core
    opening: Callable[[FailingDisk], Opened] = open_journal
    disk: type[FailingDisk] = FailingDisk
    state: type[StateMachine] = StateMachine
    hub: type[WatchHub] = WatchHub
    granter: type[Granter] = Granter
    keeper: type[Keeper] = Keeper
    read: Read = read_confirmed


class State(Ledger):
    """The real state machine of a member, compared with the others' at each command. Implements the port."""

    def __init__(self, checker: Checker, machine: StateMachine) -> None:
        super().__init__({})
        self.machine, self.checker = machine, checker

    @property
    def revision(self) -> int:
        return self.machine.revision

    def apply(self, index: int, command: bytes) -> bytes:
        if index <= self.revision:
            raise Violation(f"state-machine safety: entry {index} was applied after {self.revision}")
        expected = self.checker.reference.answer(index, command)  # first, so that watchers can be compared with it
        answer = self.machine.apply(index, command)
        if answer != expected:
            raise Violation(f"state-machine safety: entry {index} was answered in two ways")
        return answer

    def snapshot(self) -> bytes:
        data = self.machine.snapshot()
        self.checker.reference.snapshot_at(self.revision, data)
        return data

    def snapshot_parts(self) -> Iterator[bytes]:
        begun_with, left = self.snapshot(), self.machine.snapshot_parts()

        def made() -> Iterator[bytes]:
            whole = b""
            for part in left:
                whole += part
                yield part
            if whole != begun_with:
                raise Violation("state-machine safety: a snapshot in pieces is not the state that it began with")

        return made()

    def restore(self, index: int, data: bytes) -> None:
        self.machine.restore(index, data)
        if self.machine.snapshot() != data:
            raise Violation(f"state-machine safety: a snapshot after entry {index} was not restored as it was")


@dataclass
class Member(Machine):
    """One machine, with what its store process has while it runs, and its guard."""

    world: StoreWorld = field(init=False, repr=False)
    disk: FailingDisk
    state: State = field(init=False)
    hub: WatchHub | None = None
    assigned: Assigned | None = None
    granter: Granter | None = None
    push_at: float = 0.0
    guard: leases.Guard | None = None
    boots: int = 0
    loop: VirtualLoop = field(init=False)
    opened: Opened | None = None
    """What a stopped process would find; None: it runs."""
    dialect: Dialect = Dialect.PRESENT
    wiped: bool = False
    seed: tuple[str, ...] = ()
    """The members in its node.yaml, if it joined later."""

    def keepalive(self, message: KeepAlive) -> None:
        leases.answer(self, message)


class StoreWorld(World):
    """``seed`` decides network, disks and clients; the plan (schedule.py) decides what else happens."""

    machines: dict[str, Member]  # type: ignore[assignment]

    def __init__(self, count: int, seed: int, parts: Parts | None = None, *, trace: bool = False) -> None:
        self.parts = parts or Parts()
        self.tracing = trace
        self.trace: list[str] = []
        self.checker = Checker()
        self.leases = LeaseChecker()
        self.clients = random.Random(f"clients of {seed}")
        self.slow: dict[tuple[str, str], float] = {}
        """(from, to): seconds that a message may take at most."""
        self.late = 0.0
        """Probability that a message comes after up to two seconds."""
        self.late_answers = 0.0
        """Probability of the same for an answer to a leader."""
        self.traps: list[tuple[str, float]] = []
        """(kind of message, seconds): whoever sends the next one loses its power so much later."""
        self._lines: dict[frozenset[str], int] = {}
        self._numbers = 0
        self.crashes = self.elections = self.snapshots = 0
        super().__init__(count, seed)
        self.seeded = tuple(self.machines)
        self.present = set(self.seeded)
        """Machines that are switched on, or will be when they are repaired."""
        joiner = f"n{count + 1}"
        self.machines[joiner] = self._machine(joiner)
        self.changes = 0
        self.load = Clients(self)
        self.watchers: list[Watcher] = []

    def _machine(self, name: str) -> Member:
        rate = 1 + self.rng.uniform(-RHO, RHO)
        member = Member(name, self.parts.disk(), rate, self.rng.uniform(0, 1e6))
        member.world = self
        member.loop = VirtualLoop(self, lambda: member.local(self.now))  # type: ignore[abstract]
        return member

    def members(self) -> Iterable[Member]:
        return self.machines.values()

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def say(self, text: str) -> None:
        if self.tracing:
            self.trace.append(f"{self.now:9.4f} {text}")

    # ------------------------------------------------------------ processes
    def begin(self) -> None:
        """Start everything and wait for the first leader: what fails during a first start is another story."""
        for member in self.members():
            member.dialect = self.rng.choice(tuple(Dialect))
        for name in self.seeded:
            self.start(name)
        self.run_until(lambda: all(self.votes(self.machines[n]) for n in self.seeded), 30.0)
        self.run_until(lambda: self.leader() is not None, 30.0)
        self.load.begin()
        nodes = list(self.members())[: self.rng.choice((0, 2, 2, 3))]
        for member in nodes:
            self._boot_guard(member)
        self.watchers = [Watcher(self, kinds) for kinds in ((), ("Delay",), ("Group",))]

    def _boot_guard(self, member: Member) -> None:
        member.boots += 1
        member.guard = leases.Guard(self, member, member.boots)

    def make_core(self, machine: Machine) -> Core:
        member = self.machines[machine.name]
        machine_of_it = self.parts.state()
        member.state = member.ledger = State(self.checker, machine_of_it)
        opened, member.opened = member.opened or self.parts.opening(member.disk), None
        member.hub = self.parts.hub(machine_of_it, history=HISTORY)
        member.assigned = Assigned(machine_of_it)
        member.granter = self.parts.granter(leases.CLUSTER, member.name, tuple(self.machines), self.timing)
        core = self.parts.core(
            member.name,
            member.seed or self.seeded,
            timing=self.timing,
            opened=opened,
            machine=member.state,
            now=member.local(self.now),
        )
        core.compact_bytes, core.compact_entries = self.rng.choice(((4000, 60), (1500, 20), (20_000, 300)))
        core.keep_entries = self.rng.choice((2, 10, 40))
        core.parts_at_once = 1
        self.say(f"{member.name} starts: term {opened.journal.term}, log to {opened.journal.last} {opened.lost}")
        return core

    def start(self, name: str) -> None:
        member = self.machines[name]
        if member.core is None and name in self.present:
            member.disk.repaired()
            super().start(name)

    def restart_later(self, name: str, seconds: float) -> None:
        """Start it, unless something else happened to it meanwhile."""
        life = self.machines[name].life
        self.at(seconds, lambda: self.start(name) if self.machines[name].life == life else None)

    def crash(self, name: str, *, power: bool, wipe: bool = False) -> None:
        member = self.machines[name]
        if member.core is not None:
            self.crashes += 1
            self.say(f"{name} {'loses its power' if power else 'crashes'}{' and its disk' if wipe else ''}")
            member.hub = member.assigned = member.granter = None
            super().crash(name, power=power, wipe=wipe)
        elif power:
            member.disk.power_cut(self.rng)
        if wipe:
            member.wiped = True
            self.checker.forgot(name)
        if power and member.guard is not None:
            member.guard.off()
            self._boot_guard(member)
        member.opened = self.parts.opening(member.disk)
        self.checker.restarted(name, member.opened)

    def is_frozen(self, member: Machine) -> bool:
        return member.frozen_until > self.now

    def freeze(self, name: str, seconds: float) -> None:
        self.say(f"{name} is stopped for {seconds:.3f} s")
        super().freeze(name, seconds)

    def _written(self, machine: Machine, job: Job, life: int) -> None:
        try:
            super()._written(machine, job, life)
        except OSError as e:
            self.say(f"{machine.name}: {e.strerror}: the process ends")
            machine.job = None
            self.crash(machine.name, power=False)
            self.restart_later(machine.name, self.rng.uniform(0.05, 2.0))

    # ------------------------------------------------------------ members
    def membership(self) -> tuple[str, ...]:
        """Voters and learners, as the leader has it; without a leader: of the seed."""
        leader = self.leader()
        core = self.machines[leader].core if leader is not None else None
        return core.membership.names if core is not None else self.seeded

    def _members_settled(self) -> bool:
        """Somebody leads, and the newest change of the members is committed."""
        leader = self.leader()
        core = self.machines[leader].core if leader is not None else None
        return core is not None and core._memberships[-1][0] <= core.committed

    @staticmethod
    def votes(member: Member) -> bool:
        return member.core is not None and member.core.voting

    def change_members(self, change: Callable[[Core, float], int]) -> bool:
        """Ask the leader; False when it refuses."""
        leader = self.leader()
        core = self.machines[leader].core if leader is not None else None
        if leader is None or core is None:
            return False
        try:
            change(core, self.machines[leader].local(self.now))
        except (Refused, Unavailable) as e:
            self.say(f"{leader} refuses: {e}")
            return False
        finally:
            self._pump(self.machines[leader])
        self.changes += 1
        return True

    def retire(self, name: str) -> None:
        """Switch a machine off for good, unless it is a member after all, or may be one again; its disk is gone."""
        if self._members_settled() and name not in self.membership():
            self.present.discard(name)
            self.crash(name, power=True, wipe=True)
            self.machines[name].wiped = False

    # ------------------------------------------------------------ network
    def line(self, a: str, b: str) -> int:
        return self._lines.get(frozenset((a, b)), 0)

    def drop_line(self, a: str, b: str, seconds: float) -> None:
        """Every connection between two members breaks: what is under way is lost, and none for a while."""
        self._lines[frozenset((a, b))] = self.line(a, b) + 1
        self.say(f"the connections between {a} and {b} break")
        for one, other in ((a, b), (b, a)):
            core = self.machines[one].core
            if core is not None:
                core.disconnected(self.machines[one].local(self.now), other)
                self._pump(self.machines[one])
        self.at(seconds, lambda: self._connect(a, b))

    def _connect(self, a: str, b: str) -> None:
        for one, other in ((a, b), (b, a)):
            machine = self.machines[one]
            if machine.core is not None and self.machines[other].core is not None:
                machine.core.connected(machine.local(self.now), other)
                self._pump(machine)

    def _arrival(self, sender: str, to: str, raw: bytes, network: int) -> Callable[[], None]:
        """A member hears those that it knows."""
        inherited = super()._arrival(sender, to, raw, network)

        def arrive() -> None:
            core = self.machines[to].core
            if core is not None and sender in core.reachable_members().names:
                inherited()

        return arrive

    def _transmit(self, sender: str, out: Outgoing) -> None:
        member = self.machines[sender]
        assert member.core is not None
        self.checker.said(sender, member.core._journal, out)
        kind = str(out.message.WhichOneof("body"))
        self._spring(member, kind)
        raw = member.dialect.encode(out.message)
        for network in range(2 if out.everywhere else 1):
            for _ in range(2 if self.rng.random() < 0.02 else 1):
                if (sender, out.peer) not in self.cut and self.rng.random() >= self.loss:
                    self._carry(sender, out.peer, raw, network, kind)

    def _carry(self, sender: str, to: str, raw: bytes, network: int, kind: str) -> None:
        arrive, line = self._arrival(sender, to, raw, network), self.line(sender, to)
        self.at(self._way(sender, to, kind), lambda: arrive() if self.line(sender, to) == line else None)

    def _way(self, sender: str, to: str, kind: str = "") -> float:
        if self.late_answers and kind.endswith("_answer") and self.rng.random() < self.late_answers:
            return self.rng.uniform(0.2, 2.0)
        slow = self.slow.get((sender, to))
        if self.late and self.rng.random() < self.late:
            return self.rng.uniform(0.05, 2.0)
        return self.rng.uniform(slow / 2, slow) if slow is not None else self.rng.uniform(*self.delay)

    def _spring(self, member: Member, kind: str) -> None:
        trap = next((t for t in self.traps if t[0] == kind), None)
        if trap is not None:
            self.traps.remove(trap)
            life = member.life
            self.say(f"{member.name} sends a {kind} and is about to lose its power")
            self.at(trap[1], lambda: self._trapped(member, life))

    def _trapped(self, member: Member, life: int) -> None:
        if member.life == life and member.core is not None:
            self.crash(member.name, power=True)
            self.restart_later(member.name, self.rng.choice((0.001, 0.05, 0.5)))

    def datagram(self, sender: str, to: str, deliver: Callable[[Member], None]) -> None:
        """Between guards and stores: may be lost, doubled, late."""
        member = self.machines[to]
        if (sender, to) in self.cut or self.rng.random() < self.loss:
            return

        def arrive() -> None:
            if not self._postponed(member, arrive):
                deliver(member)

        self.at(0.0001 if sender == to else self._way(sender, to), arrive)

    # ------------------------------------------------------------ checks
    def _check(self, machine: Machine, core: Core) -> None:
        if core.leading and core.term not in self.checker.leaders:
            self.elections += 1
            self.say(f"{machine.name} leads term {core.term}")
        if core.committed != core.applied and not core.leading:
            raise Violation(f"{machine.name} has not applied what is committed")
        super()._check(machine, core)
        self.checker.look(machine.name, core, self.views)
        member = self.machines[machine.name]
        if core.leading and member.push_at <= self.now:
            leases.push(member)

    def views(self, names: tuple[str, ...]) -> dict[str, LogView]:
        """The logs of those among these members that vote."""
        found = {}
        for member in (self.machines[name] for name in names):
            core, opened = member.core, member.opened
            if core is not None and core.voting:
                found[member.name] = LogView(core._journal, running=True)
            elif core is None and opened is not None and opened.journal.voting:
                found[member.name] = LogView(opened.journal, running=False)
        return found

    # ------------------------------------------------------------ clients
    def propose(self, member: Member, command: bytes, done: Callable[[Applied | Failure], None]) -> bool:
        """Through a member that runs; its answer is checked."""
        if member.core is None or self.is_frozen(member):
            return False

        def checked(result: Applied | Failure) -> None:
            if isinstance(result, Applied):
                self.checker.answered(result.index, result.answer, command)
            done(result)

        member.core.propose(member.local(self.now), command, checked)
        self._pump(member)
        return True

    # ------------------------------------------------------------ the end
    def settle(self, limit: float = 30.0) -> None:
        """Everything is repaired: one leader, one state on every member, every watcher has seen everything."""
        self.say("everything is repaired")
        self.heal()
        self.slow.clear()
        self.traps.clear()
        self.loss = self.late = self.late_answers = 0.0
        self.delay = QUICK_NETWORK
        for member in self.members():
            member.disk_delay = QUICK_DISK
            member.disk.repaired()
            self.start(member.name)
        self.run_until(self._quiet, limit)
        for name in sorted(self.present - set(self.membership())):
            self.retire(name)  # it could not learn of its removal; its API would refuse, watchers here ask the hub
        self.load.stop()
        self.run_until(self._one_state, 10.0)
        self.run_until(lambda: all(w.has_seen_all() for w in self.watchers), 30.0)

    def _quiet(self) -> bool:
        leader = self.leader()
        core = self.machines[leader].core if leader is not None else None
        if core is None or not self._members_settled() or core.membership.learners & self.present:
            return False
        return all(self._follows(self.machines[n], leader) for n in core.voters)

    def _follows(self, member: Member, leader: str | None) -> bool:
        return self.votes(member) and member.core is not None and member.core.leader == leader

    def _one_state(self) -> bool:
        end = self.checker.reference.machine.revision
        members = [self.machines[n] for n in self.membership() if n in self.present]
        if any(m.core is None or m.state.revision < end for m in members):
            return False
        if self.checker.acknowledged > end:
            raise Violation(f"entry {self.checker.acknowledged} was acknowledged and is nowhere")
        if len({m.state.snapshot() for m in members}) > 1:
            raise Violation("state-machine safety: the members' states differ in the end")
        return True


@contextmanager
def small_messages(rng: random.Random) -> Iterator[None]:
    """Requests and snapshot chunks of a few hundred bytes, so that what needs several happens all the time."""
    sizes = rng.choice(((65536, 262_144), (400, 700), (100, 300)))
    before = [getattr(leading, name) for name in SIZES]
    try:
        for name, size in zip(SIZES, sizes, strict=True):
            setattr(leading, name, size)
        yield
    finally:
        for name, size in zip(SIZES, before, strict=True):
            setattr(leading, name, size)
