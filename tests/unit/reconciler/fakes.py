"""A guard, a store, addresses and drivers that obey at once, and a world made of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from hasys.api import kinds
from hasys.api.kinds import Ref, Resource
from hasys.guard.client import GuardGone, ReleaseBlocked, Stale, SwornTo
from hasys.guard.protocol import Address, AddressEntry, Plan
from hasys.model.errors import Unavailable
from hasys.model.mounts import Mount
from hasys.reconciler.cache import Cache
from hasys.reconciler.gates import Gates
from hasys.reconciler.group import GroupReconciler, Machine
from hasys.reconciler.ports import Batch, Report
from hasys.reconciler.reporter import Reporter
from hasys.reconciler.runtime import Runtime
from hasys.resources.addresses import Held, Link
from hasys.resources.cgroup import Cgroup
from hasys.resources.drbd import Drbd
from hasys.resources.leftovers import Leftovers
from hasys.resources.output import Outputs
from hasys.resources.port import CgroupTrace, Driver, State, Surroundings, Temporary, Trace
from hasys.resources.records import Records
from hasys.resources.virtual_ip import VirtualIP
from hasys.v1 import objects_pb2 as pb

NODE = "n1"


class FakeGuard:
    """Permits what ``allowed`` names. ``log`` is everything that anybody did, in order."""

    def __init__(self, log: list[str]) -> None:
        self.session = 1
        self.connected = True
        self.allowed: dict[str, int] = {}
        self.plans: dict[str, Plan] = {}
        self.floors: dict[str, int] = {}
        self.oaths: dict[str, SwornTo] = {}
        self.tokens: set[str] = set()
        self.gated: frozenset[Address] = frozenset()
        self.blocker = ""
        self.log = log

    def permits(self, group: str, epoch: int) -> bool:
        return self.allowed.get(group) == epoch and group in self.plans

    def planned(self, group: str) -> Plan | None:
        return self.plans.get(group)

    def released(self, group: str) -> int:
        return self.floors.get(group, 0)

    def oath(self, group: str) -> SwornTo | None:
        return self.oaths.get(group)

    def may_go_on(self, group: str) -> bool:
        return group in self.tokens

    async def gate(self, addresses: Iterable[Address]) -> None:
        await self._reach()
        self.gated = frozenset(addresses)
        self.log.append(f"gate {' '.join(sorted(a.address for a in self.gated))}".strip())

    async def plan(self, plan: Plan) -> bool:
        await self._reach()
        if plan.epoch <= self.released(plan.group):
            raise Stale("guard: released")
        self.plans[plan.group] = plan
        self.log.append(f"plan {plan.group}@{plan.epoch} v{plan.version}: {' '.join(e.resource for e in plan.entries)}")
        return self.permits(plan.group, plan.epoch)

    async def permit(self, group: str, epoch: int) -> bool:
        await self._reach()
        return self.permits(group, epoch)

    async def release(self, group: str, epoch: int) -> None:
        await self._reach()
        if self.blocker:
            raise ReleaseBlocked(self.blocker)
        self.floors[group] = epoch
        self.plans.pop(group, None)
        self.allowed.pop(group, None)
        self.log.append(f"release {group}@{epoch}")

    async def _reach(self) -> None:
        await checkpoint()
        if not self.connected:
            raise GuardGone("guard: not connected")


class FakeAddresses:
    """The addresses of a machine with one working interface."""

    def __init__(self, log: list[str]) -> None:
        self.revision = 0
        self.links = {"eth0": Link("eth0", 2, b"\x02\0\0\0\0\1", True, True)}
        self.held: set[Held] = set()
        self.log = log
        self.failing = 0
        self._news = anyio.Event()

    def link(self, name: str) -> Link | None:
        return self.links.get(name)

    def holders(self, address: str) -> tuple[Held, ...]:
        return tuple(sorted(h for h in self.held if h.address == address))

    async def add(self, held: Held) -> None:
        await checkpoint()
        if self.failing:
            self.failing -= 1
            raise Temporary(f"cannot add {held.address}")
        self.log.append(f"add {held.address} {held.interface}")
        self.held.add(held)
        self.tell()

    async def remove(self, held: Held) -> None:
        await checkpoint()
        self.log.append(f"remove {held.address} {held.interface}")
        self.held.discard(held)
        self.tell()

    async def changed(self, since: int, address: str | None = None) -> None:
        while self.revision <= since:
            await self._news.wait()

    def tell(self) -> None:
        """The kernel says that something is different."""
        self.revision += 1
        news, self._news = self._news, anyio.Event()
        news.set()


class FakeDrbd(Drbd):
    """Volumes that are Primary here; while one is held open it stays so."""

    def __init__(self) -> None:
        self.primary: set[str] = set()
        self.held = False

    async def stray(self, resource: str, device: str) -> str:
        await checkpoint()
        if resource not in self.primary:
            return ""
        if not self.held:
            self.primary.discard(resource)
        return f"{resource} was Primary" + (" and stays so: held open" if self.held else "")


class FakeMounts:
    """The mount table of a machine; ``users`` keep what they use from being unmounted until they are killed."""

    def __init__(self, log: list[str]) -> None:
        self.mounted: list[Mount] = []
        self.users: dict[str, str] = {}
        self.log = log

    def table(self) -> tuple[Mount, ...]:
        return tuple(self.mounted)

    def number(self, device: str) -> str:
        return f"8:{len(device)}"

    def in_use(self, device: str) -> bool:
        return any(m.device == self.number(device) for m in self.mounted)

    async def unmount(self, device: str, point: str, *, kill: bool) -> str:
        await checkpoint()
        if point in self.users and not kill:
            return f"{point} is used by {self.users[point]}"
        if point in self.users:
            self.log.append(f"kill {self.users.pop(point)}")
        if any(m.point == point for m in self.mounted):
            self.log.append(f"unmount {point}")
        self.mounted = [m for m in self.mounted if m.point != point]
        return ""


class FakeCluster:
    """Takes reports; fails as often as told."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.servers: tuple[str, ...] = ()
        self.failing = 0

    def set_servers(self, servers: Sequence[str]) -> None:
        self.servers = tuple(servers)

    async def watch(self) -> AsyncIterator[Batch]:
        yield Batch(synced=True)

    async def report(self, report: Report) -> Sequence[str]:
        await checkpoint()
        if self.failing:
            self.failing -= 1
            raise Unavailable("no leader")
        self.reports.append(report)
        return ()

    def said(self, name: str) -> list[str]:
        """The states that were reported of a resource, in order: ``Running``, ``Failed: why``."""
        found = [s for r in self.reports for ref, s in r.statuses.items() if ref.name == name]
        return [f"{s.state}: {s.message}" if s.message else s.state for s in found]

    def events(self) -> list[str]:
        return [e.reason for r in self.reports for e in r.events]


class FakeDriver(Driver):
    """Takes a second to start and a second to stop; fails as told."""

    kind = "Application"

    def __init__(self, around: Surroundings, world: World) -> None:
        super().__init__(around)
        self.world = world

    @property
    def name(self) -> str:
        return self.around.place.name

    def traces(self) -> tuple[Trace, ...]:
        return (CgroupTrace(f"/cg/{self.around.place.group}/{self.name}"),)

    async def adopt(self) -> bool:
        epoch = self.around.place.epoch
        return self.name in self.world.running and self.world.epochs.get(self.name, epoch) == epoch

    def take_over(self, earlier: Driver) -> None:
        super().take_over(earlier)
        self.world.epochs[self.name] = self.around.place.epoch

    async def run(self) -> None:
        if not await self.adopt():
            self.become(State.STARTING)
            await self.around.permitted()
            self.world.log.append(f"start {self.name}")
            await anyio.sleep(1)
            if self.name in self.world.broken:
                self.become(State.FAILED, self.world.broken[self.name])
                return
            self.world.running.add(self.name)
            self.world.epochs[self.name] = self.around.place.epoch
        self.become(State.RUNNING)
        await anyio.sleep_forever()

    async def stop(self, *, force: bool) -> None:
        if self.name in self.world.stubborn and not force:
            raise Temporary("process 7 does not end")
        if self.name in self.world.running and not force:
            await anyio.sleep(1)
        self.world.running.discard(self.name)
        self.world.log.append(f"{'kill' if force else 'stop'} {self.name}")


class World:
    """One node's agent around fakes. Objects are put as the store would; ``log`` tells what was done, in order."""

    def __init__(self, tasks: TaskGroup, directory: Path) -> None:
        self.log: list[str] = []
        self.announced: list[str] = []
        self.running: set[str] = set()
        self.epochs: dict[str, int] = {}
        """Program -> epoch under which it was started, or taken over."""
        self.broken: dict[str, str] = {}
        self.stubborn: set[str] = set()
        self.guard = FakeGuard(self.log)
        self.addresses = FakeAddresses(self.log)
        self.mounts = FakeMounts(self.log)
        self.drbd = FakeDrbd()
        self.cluster = FakeCluster()
        self.cache = Cache()
        self.cache.synced = True
        self.reporter = Reporter(self.cluster, NODE, wall=lambda: 0.0)
        self.runtime = Runtime(self.reconcile, jitter=lambda: 1.0)
        self.version = 0
        base = Cgroup(directory / "cgroup")
        leftovers = Leftovers(
            self.addresses, base, Records(directory / "r"), Outputs(directory / "o"), self.mounts, self.drbd
        )
        self.machine = Machine(
            node=NODE,
            cache=self.cache,
            guard=self.guard,
            gates=Gates(self.cache, self.guard, NODE),
            reporter=self.reporter,
            leftovers=leftovers,
            driver=self.driver,
            tasks=tasks,
            wake=self.runtime.wake,
        )
        self.groups: dict[str, GroupReconciler] = {}
        tasks.start_soon(self.runtime.run)
        tasks.start_soon(self.reporter.run)

    def driver(self, resource: Resource, around: Surroundings) -> Driver:
        if isinstance(resource, pb.VirtualIP):
            return VirtualIP(around, resource.spec, self.addresses, self._announce)
        return FakeDriver(around, self)

    def _announce(self, address: str, link: Link) -> None:
        self.announced.append(address)

    async def reconcile(self, name: str) -> float | None:
        return await self.groups.setdefault(name, GroupReconciler(name, self.machine)).reconcile()

    def put(self, *objects: pb.Group | pb.Monitor | Resource) -> None:
        """Store objects, as one change."""
        self.version += 1
        stored = []
        for message in objects:
            obj = kinds.wrap(message)
            meta = kinds.metadata(obj)
            meta.resource_version = meta.generation = self.version
            stored.append(obj)
        for name in self.cache.take(Batch([(obj, False) for obj in stored])):
            self.runtime.wake(name)

    def drop(self, message: Resource | pb.Group | pb.Monitor) -> None:
        for name in self.cache.take(Batch([(kinds.wrap(message), True)])):
            self.runtime.wake(name)

    def permit(self, group: str, epoch: int) -> None:
        """The guard's grant names the group now."""
        self.guard.allowed = {**self.guard.allowed, group: epoch}
        self.runtime.wake(group)

    @property
    def held(self) -> list[str]:
        return sorted(h.address for h in self.addresses.held)

    def entry(self, name: str) -> list[str]:
        """The addresses that the guard's plan of a group names."""
        return [e.address for e in self.guard.plans[name].entries if isinstance(e, AddressEntry)]

    def take_log(self) -> list[str]:
        log, self.log[:] = list(self.log), []
        return log


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    async with anyio.create_task_group() as tasks:
        yield World(tasks, directory)
        tasks.cancel_scope.cancel()


def group(node: str = NODE, epoch: int = 1, *, version: int = 1, **assignment: object) -> pb.Group:
    """Group web, assigned as given."""
    a = pb.Assignment(node=node, epoch=epoch, **assignment)  # type: ignore[arg-type]
    return pb.Group(
        metadata=pb.Metadata(name="web"),
        spec=pb.GroupSpec(nodes=[pb.GroupNode(name=NODE), pb.GroupNode(name="n2")]),
        status=pb.GroupStatus(assignment=a, resources_version=version),
    )


def vip(
    name: str = "ip", address: str = "10.0.0.9/24", after: Sequence[str] = (), interface: str = "eth0"
) -> pb.VirtualIP:
    return pb.VirtualIP(
        metadata=pb.Metadata(name=name, group="web"),
        spec=pb.VirtualIPSpec(address=address, interface=pb.Interface(name=interface), after=after),
    )


def app(name: str = "app", after: Sequence[str] = (), command: str = "x", tolerated: bool = False) -> pb.Application:
    return pb.Application(
        metadata=pb.Metadata(name=name, group="web"),
        spec=pb.ApplicationSpec(
            run=pb.Run(command=[command]), after=after, on_start_failure=pb.Continue if tolerated else pb.Stop
        ),
    )


def deleting(resource: Resource) -> Resource:
    resource.metadata.deleting.GetCurrentTime()
    return resource


REF = Ref("VirtualIP", "web", "ip")
