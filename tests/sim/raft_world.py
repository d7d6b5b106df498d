"""Several cores in one process: virtual drifting clocks, a network that loses, repeats and reorders, disks that forget.

After every step the world checks what must always hold; :meth:`World.settle` checks what must hold in the end.
"""

from __future__ import annotations

import contextlib
import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hasys.model.timing import PROFILES, RHO, Timing, over
from hasys.store.port import Applied
from hasys.store.raft.core import Core
from hasys.store.raft.following import Failure
from hasys.store.raft.foundation import Outgoing
from hasys.store.raft.journal import Job, open_journal
from hasys.v1 import raft_pb2 as pb
from tests.sim.raft_disk import PowerCut, SimulatedDisk

TIMING = PROFILES["default"]


class Ledger:
    """A state machine that remembers every command, and checks it against all other members' at once."""

    def __init__(self, truth: dict[int, bytes]) -> None:
        self.truth = truth
        self.entries: dict[int, bytes] = {}

    def apply(self, index: int, command: bytes) -> bytes:
        assert self.truth.setdefault(index, command) == command, f"two commands were applied as entry {index}"
        assert index > max(self.entries, default=0), f"entry {index} was applied twice or out of order"
        self.entries[index] = command
        return b"answer to " + command

    def snapshot(self) -> bytes:
        return b"\n".join(b"%d %s" % item for item in sorted(self.entries.items()))

    def snapshot_parts(self) -> Iterator[bytes]:
        data = self.snapshot()
        return (data[at : at + 100] for at in range(0, len(data), 100))

    def restore(self, index: int, data: bytes) -> None:
        self.entries = {}
        for line in data.splitlines():
            at, command = line.split(b" ", 1)
            self.entries[int(at)] = command
            assert self.truth.get(int(at)) == command, "a snapshot holds what was never applied"


@dataclass
class Machine:
    """One member's machine: a clock, a disk, maybe a running core."""

    name: str
    disk: SimulatedDisk
    rate: float
    offset: float
    core: Core | None = None
    ledger: Ledger | None = None
    life: int = 0
    """Grows with each start and stop: what belongs to an earlier life is void."""
    job: Job | None = None
    disk_delay: tuple[float, float] = (0.0001, 0.004)
    frozen_until: float = 0.0
    wake_at: float = float("inf")
    seen: dict[int, int] = field(default_factory=dict)

    def local(self, true: float) -> float:
        return self.offset + true * self.rate

    def true(self, local: float) -> float:
        return (local - self.offset) / self.rate


class World:
    """``rng`` decides everything; the same seed gives the same history."""

    def __init__(self, count: int, seed: int, timing: Timing = TIMING) -> None:
        self.rng = random.Random(seed)
        self.timing = timing
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        names = [f"n{i + 1}" for i in range(count)]
        self.machines = {n: self._machine(n) for n in names}
        self.cut: set[tuple[str, str]] = set()
        """(from, to): what is sent that way is lost."""
        self.loss = 0.0
        self.delay = (0.0002, 0.003)
        self.truth: dict[int, bytes] = {}
        self.acknowledged: dict[bytes, int] = {}
        self.leaders: dict[int, str] = {}
        self.logs: dict[tuple[int, int], bytes] = {}
        self.authority: dict[int, float] = {}
        """Term: latest true time of a proof that could back a grant."""
        self.silent: dict[int, float] = {}
        """Term: true time since which its leader takes earlier proofs as impossible."""
        self._writes = 0

    def _machine(self, name: str) -> Machine:
        rate = 1 + self.rng.uniform(-RHO, RHO)
        return Machine(name, SimulatedDisk(), rate, self.rng.uniform(0, 1e6))

    # ------------------------------------------------------------ time
    def at(self, delay: float, event: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (self.now + delay, self._serial, event))

    def run(self, seconds: float) -> None:
        """Let that much true time pass."""
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until

    def run_until(self, condition: Callable[[], bool], limit: float) -> float:
        """Let time pass until it holds; the time it took. Fails when it takes longer than ``limit``."""
        start = self.now
        while not condition():
            assert self.now - start < limit, f"not within {limit} s"
            self.run(0.01)
        return self.now - start

    # ------------------------------------------------------------ members
    def start(self, name: str) -> None:
        machine = self.machines[name]
        assert machine.core is None
        machine.life += 1
        machine.job = None
        machine.wake_at = float("inf")
        machine.core = self.make_core(machine)
        for other in self.machines.values():
            if other.core is not None and other is not machine:
                machine.core.connected(machine.local(self.now), other.name)
                other.core.connected(other.local(self.now), name)
                self._pump(other)
        self._pump(machine)

    def make_core(self, machine: Machine) -> Core:
        """A member's process opens its journal and its state."""
        machine.ledger = Ledger(self.truth)
        core = Core(
            machine.name,
            tuple(self.machines),
            timing=self.timing,
            opened=open_journal(machine.disk),
            machine=machine.ledger,
            now=machine.local(self.now),
        )
        core.compact_bytes, core.compact_entries, core.keep_entries = 2000, 40, 10
        return core

    def start_all(self) -> None:
        for name in self.machines:
            self.start(name)

    def crash(self, name: str, *, power: bool, wipe: bool = False) -> None:
        """The process dies; with ``power`` its disk forgets what was not synced."""
        machine = self.machines[name]
        if machine.job is not None:
            machine.disk.fuse = self.rng.randint(0, 5)
            with contextlib.suppress(PowerCut, OSError):  # the disk may fail it first
                machine.job.run()
            machine.disk.fuse = None
        machine.core = machine.ledger = machine.job = None
        machine.life += 1
        if power:
            machine.disk.power_cut(self.rng)
        if wipe:
            machine.disk.wipe()
        for other in self.machines.values():
            if other.core is not None:
                local = other.local(self.now)
                if not power:
                    other.core.peer_closed(local, name)
                other.core.disconnected(local, name)
                self._pump(other)

    def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP: its clock goes on, it does nothing, what is sent to it waits."""
        self.machines[name].frozen_until = self.now + seconds

    def _pump(self, machine: Machine) -> None:
        core = machine.core
        assert core is not None
        local = machine.local(self.now)
        core.advance(local)
        for out in core.take_outgoing():
            self._transmit(machine.name, out)
        if machine.job is None and (job := core.take_job(local)) is not None:
            machine.job = job
            life = machine.life
            self.at(self.rng.uniform(*machine.disk_delay), lambda: self._written(machine, job, life))
        self._check(machine, core)
        self._wake_later(machine, core)

    def _wake_later(self, machine: Machine, core: Core) -> None:
        deadline = core.next_deadline()
        if deadline == float("inf"):
            return
        at = max(self.now, machine.true(deadline)) + 1e-6
        if at < machine.wake_at or machine.wake_at <= self.now:
            machine.wake_at = at
            life = machine.life
            self.at(at - self.now, lambda: self._woken(machine, at, life))

    def _woken(self, machine: Machine, at: float, life: int) -> None:
        if machine.life != life or machine.wake_at != at:
            return
        if self._postponed(machine, lambda: self._woken(machine, at, life)):
            return
        machine.wake_at = float("inf")
        self._pump(machine)

    def _written(self, machine: Machine, job: Job, life: int) -> None:
        if machine.life != life or machine.core is None:
            return
        if self._postponed(machine, lambda: self._written(machine, job, life)):
            return
        job.run()
        machine.job = None
        machine.core.persisted(machine.local(self.now), job)
        self._pump(machine)

    def _postponed(self, machine: Machine, event: Callable[[], None]) -> bool:
        """Events of a frozen machine happen when it thaws."""
        if machine.frozen_until <= self.now:
            return False
        self.at(machine.frozen_until - self.now, event)
        return True

    # ------------------------------------------------------------ network
    def _transmit(self, sender: str, out: Outgoing) -> None:
        for network in range(2 if out.everywhere else 1):
            for _ in range(2 if self.rng.random() < 0.02 else 1):
                if (sender, out.peer) not in self.cut and self.rng.random() >= self.loss:
                    raw = out.message.SerializeToString()
                    self.at(self.rng.uniform(*self.delay), self._arrival(sender, out.peer, raw, network))

    def _arrival(self, sender: str, to: str, raw: bytes, network: int) -> Callable[[], None]:
        machine = self.machines[to]
        life = machine.life

        def arrive() -> None:
            if machine.life != life or machine.core is None or self._postponed(machine, arrive):
                return
            machine.core.receive(machine.local(self.now), sender, pb.Message.FromString(raw), network)
            self._pump(machine)

        return arrive

    def isolate(self, name: str) -> None:
        for other in self.machines:
            if other != name:
                self.cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.cut.clear()

    # ------------------------------------------------------------ clients
    def write(self, name: str) -> bytes | None:
        """Propose through a member; what it acknowledges is checked in the end."""
        machine = self.machines[name]
        if machine.core is None or machine.frozen_until > self.now:
            return None
        self._writes += 1
        command = b"w%d " % self._writes + b"." * self.rng.choice((1, 10, 300))

        def done(result: Applied | Failure) -> None:
            if isinstance(result, Applied):
                assert self.truth[result.index] == command, "acknowledged, but another command has its place"
                assert result.answer == b"answer to " + command
                self.acknowledged[command] = result.index

        machine.core.propose(machine.local(self.now), command, done)
        self._pump(machine)
        return command

    # ------------------------------------------------------------ what must hold
    def leader(self) -> str | None:
        """The member that leads with a committed entry of its term, if there is one now."""
        for machine in self.machines.values():
            if machine.core is not None and machine.core.leading and machine.core.authority() is not None:
                return machine.name
        return None

    def _check(self, machine: Machine, core: Core) -> None:
        if core.leading:
            holder = self.leaders.setdefault(core.term, machine.name)
            assert holder == machine.name, f"{holder} and {machine.name} both lead in term {core.term}"
        for command, index, term in core.tail(4):
            assert self.logs.setdefault((index, term), command) == command, f"logs differ at {index} of term {term}"
        authority = core.authority()
        if authority is not None:
            self._check_authority(machine, authority.term, authority.t_q, authority.silent_since)

    def _check_authority(self, machine: Machine, term: int, t_q: float, silent_since: float) -> None:
        """No proof of an earlier leader is younger than this one believes (design, "silence")."""
        proof = machine.true(t_q)
        assert proof <= self.now + 1e-9
        self.authority[term] = max(self.authority.get(term, proof), proof)
        self.silent.setdefault(term, machine.true(silent_since))
        slack = over(self.timing.ttl) * (1 - RHO) - self.timing.ttl * (1 + RHO)
        for earlier, at in self.authority.items():
            for later, since in self.silent.items():
                assert earlier >= later or at <= since + slack + 2 * RHO * self.timing.ttl, (
                    f"term {earlier} had proof at {at}, term {later} counts from {since}"
                )

    def settle(self, limit: float = 30.0) -> None:
        """Everything is repaired: one leader, every acknowledged write on every member, and writes work."""
        self.heal()
        self.loss = 0.0
        for machine in self.machines.values():
            machine.disk_delay = (0.0001, 0.004)
            if machine.core is None:
                self.start(machine.name)
        self.run_until(self._quiet, limit)
        self._write_at_last(5.0)
        acknowledged = dict(self.acknowledged)
        index = max(acknowledged.values())
        self.run_until(lambda: all(self._applied(m) >= index for m in self.machines.values()), 5.0)
        for machine in self.machines.values():
            assert machine.ledger is not None
            for written, at in acknowledged.items():
                assert machine.ledger.entries.get(at) == written, f"{machine.name} has lost entry {at}"

    def _write_at_last(self, limit: float) -> None:
        """A client that repeats what is refused gets through."""
        until = self.now + limit
        while True:
            leader = self.leader()
            command = self.write(leader) if leader is not None else None
            self.run(0.1)
            if command is not None and command in self.acknowledged:
                return
            assert self.now < until, f"no write was taken within {limit} s"

    def _quiet(self) -> bool:
        cores = [m.core for m in self.machines.values()]
        leader = self.leader()
        return leader is not None and all(c is not None and c.voting and c.leader == leader for c in cores)

    @staticmethod
    def _applied(machine: Machine) -> int:
        return 0 if machine.core is None else machine.core.applied
