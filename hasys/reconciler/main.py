"""The agent process: ``hasys agent run``.

It can crash, restart and be upgraded without touching what runs: whatever ends it, programs and addresses stay, and the
next agent adopts them. Handing over before a planned stop of the node is not its business but the supervisor's.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterable

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from hasys.api.client import Client, from_node_config
from hasys.api.kinds import Ref
from hasys.cancelled import PartEnded, lasting
from hasys.config import TAKING_OVER, NodeConfig, RebootCommand
from hasys.guard import client as guard_client
from hasys.model.lines import log_to_stderr
from hasys.monitors.own import processes
from hasys.notify import ALIVE, READY, Notifier
from hasys.reconciler import commonstart, lastknown
from hasys.reconciler.around import Around
from hasys.reconciler.aside import Aside
from hasys.reconciler.cache import Cache
from hasys.reconciler.cluster import ApiCluster
from hasys.reconciler.commonstart import common_start
from hasys.reconciler.gates import Gates
from hasys.reconciler.group import GroupReconciler, Machine
from hasys.reconciler.lastknown import LastKnown
from hasys.reconciler.link import GuardLink
from hasys.reconciler.members import Members
from hasys.reconciler.networks import Networks
from hasys.reconciler.own import Own
from hasys.reconciler.ports import Cluster
from hasys.reconciler.rebooting import Rebooting
from hasys.reconciler.reporter import Reporter
from hasys.reconciler.runs import Runs
from hasys.reconciler.runtime import FORGET, Runtime
from hasys.reconciler.standby import Standbys
from hasys.reconciler.watching import Neighbours, Watching
from hasys.reconciler.witnessing import Witnessing
from hasys.resources.addresses import KernelAddresses
from hasys.resources.cgroup import AGENT, GROUPS, Cgroup, base_of
from hasys.resources.drivers import Drivers
from hasys.resources.leftovers import Leftovers
from hasys.resources.mounts import KernelMounts
from hasys.resources.output import Outputs
from hasys.resources.port import Temporary
from hasys.resources.records import Records
from hasys.resources.settings import address_of
from hasys.resources.systemd_unit import RealSystemctl
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)

SILENCE = 2.0
"""Seconds without a store after which the last known objects are read from disk."""
LED_ASTRAY = frozenset({"ForeignAddressRemoved", "OathEnded"})
"""Reasons of events after which neighbours may believe that an address is where it is not."""
WORKER_THREADS = 8
"""Threads for calls that may block: netlink (one at a time) and look-ups of users."""


def run(config: NodeConfig) -> None:
    """Run the agent until SIGTERM or SIGINT. Raises ``HasysError`` when this machine cannot run it."""
    log_to_stderr(config.log.form, "agent", config.name)
    anyio.run(functools.partial(_main, config), backend="asyncio")


async def _main(config: NodeConfig) -> None:
    base = Cgroup(base_of(config.instance))
    own = Cgroup(base.path / AGENT)
    own.join()
    to_thread.current_default_thread_limiter().total_tokens = WORKER_THREADS
    asked = anyio.Event()
    async with Client(from_node_config(config), lasting=True) as client, anyio.create_task_group() as tasks:
        cluster = ApiCluster(client, config.name)
        agent = Agent(config, cluster, base, own, tasks)
        tasks.start_soon(_until_signalled, tasks, asked)
        tasks.start_soon(_show_life, Notifier.from_environment())
        await agent.before_roles()
        await agent.start()
        tasks.start_soon(lasting, "runs", lambda: agent.runs.follow(cluster.operations()))
        _quiet_collector()
    if not asked.is_set():
        raise PartEnded("the agent ended without being asked: what a resource or a monitor awaits was cancelled")


class Agent:
    """The parts and how they wake each other."""

    def __init__(self, config: NodeConfig, cluster: Cluster, base: Cgroup, own: Cgroup, tasks: TaskGroup) -> None:
        self.cache = Cache()
        self._cluster = cluster
        self._base = base
        self._tasks = tasks
        self._groups: dict[str, GroupReconciler] = {}
        self._index: tuple[int, dict[str, set[str]]] = (-1, {})
        """Shape of the cache for which it was made, and address -> groups."""
        self.runtime = Runtime(self._reconcile)
        self.addresses = KernelAddresses(self._addresses_changed)
        self.reporter = Reporter(cluster, config.name)
        connect = functools.partial(guard_client.connect, config.guard_socket)
        self.link = GuardLink(connect, os.getpid(), str(own.path), self._wake)
        around = Around(self.cache, self.addresses, lambda: self.link.connected, _own_store(config))
        neighbours = Neighbours(
            config.name,
            self.cache,
            self.reporter,
            cluster,
            base,
            self._restart,
            self.link.permit,
            _own_processes(config),
        )
        self.watching = Watching(neighbours, around, tasks)
        self._kept = lastknown.path_of(config)
        self.last_known = LastKnown(self._kept, self.cache)
        self.witnessing = Witnessing(
            self.link, cluster.report, config.name, Aside(config.data_dir / "aside", self._kept, config.name)
        )
        self.members = Members(self.cache, self.link, cluster.set_servers, config.me)
        self.standbys = Standbys(self.cache, self.link, config.name)
        self._outputs = Outputs(config.run_dir / "output")
        self._config = config
        self._records = records = Records(config.run_dir / "resources")
        mounts = KernelMounts()
        self.runs = Runs(config.name, own, records, self._outputs, cluster.report, Own(config.run_dir))
        self.rebooting = Rebooting(
            config.name, config.reboot, self.cache, records, (self._run_reboot, self._not_rebooted)
        )
        gates = Gates(self.cache, self.link, config.name)
        self.networks = Networks(config, self.cache, gates, self.addresses, self.link)
        self._machine = Machine(
            node=config.name,
            cache=self.cache,
            guard=self.link,
            gates=gates,
            reporter=self.reporter,
            leftovers=Leftovers(self.addresses, base, records, self._outputs, mounts),
            driver=Drivers(
                base, self.addresses, records, self._outputs, mounts, RealSystemctl(), self.networks.monitor
            ).make,
            tasks=tasks,
            wake=self.runtime.wake,
        )

    async def before_roles(self) -> None:
        """The common start of this node, if it has one: docs/flow.md."""
        if self._config.common_start is not None:
            cgroup = Cgroup(self._base.path / "common")
            await common_start(
                self._config.common_start, cgroup, self._records, self._outputs, self._common_start_failed
            )

    def _common_start_failed(self, cause: str) -> None:
        self.reporter.event("CommonStartFailed", Ref("Node", "", self._config.name), 0, cause)
        self._tasks.start_soon(self.reporter.flush)

    async def _run_reboot(self, wanted: RebootCommand) -> str:
        """Outside every cgroup that is fenced: a reboot is not stopped half-way by hasys's own end."""
        cgroup = Cgroup(self._base.path / "common")
        return await commonstart.once(wanted.command, wanted.timeout, cgroup, self._outputs, "reboot")

    def _not_rebooted(self, cause: str) -> None:
        self.reporter.event("NodeNotRebooted", Ref("Node", "", self._config.name), 0, cause)
        self._tasks.start_soon(self.reporter.flush)

    async def start(self) -> None:
        """Start every part. The addresses are read first: all else compares with them."""
        await self.addresses.read()
        parts = (
            self.addresses, self.runtime, self.link, self.reporter, self._outputs, self.last_known, self.witnessing,
            self.members,
            self.watching,
            self.networks,
            self.rebooting,
        )  # fmt: skip
        for part in parts:
            self._tasks.start_soon(lasting, type(part).__name__.lower(), part.run)
        if self._config.policy in TAKING_OVER:
            self._tasks.start_soon(lasting, "standbys", self.standbys.run)
        self._tasks.start_soon(lasting, "watch", self._follow)
        self._tasks.start_soon(self._remember)

    async def _remember(self) -> None:
        """No store answers: what was last known serves whoever holds a group by an operator's oath."""
        await anyio.sleep(SILENCE)
        if self.cache.synced or self.cache.groups:
            return
        kept = await to_thread.run_sync(lastknown.read, self._kept)
        if self.cache.synced or self.cache.groups:
            return  # the store spoke meanwhile
        if kept is None:
            log.warning(
                "no store answers and %s holds nothing: an operator's oath would have nothing to run", self._kept
            )
            return
        self.cache.stale = True
        self.members.look()
        self.standbys.look()
        for name in self.cache.take(kept):
            self.runtime.wake(name)
        log.warning("no store answers: %d groups as last known", len(self.cache.groups))

    async def _follow(self) -> None:
        """Keep the cache like the store."""
        async for batch in self._cluster.watch():
            if self.cache.stale:
                self.cache.begin_again()
            first = not self.cache.synced
            if not first:
                self._hear(batch.events)
            touched = self.cache.take(batch)
            members = any(obj.WhichOneof("kind") in ("node", "fencing", "cluster") for obj, _ in batch.changes)
            if touched or members:
                self.last_known.changed()
                self.standbys.look()
            if self.cache.synced and (members or batch.synced):
                self.members.look()
                self.rebooting.look()
            if batch.synced:
                self.networks.monitor.look()
                self.reporter.forget()
                self.witnessing.look()
                if first:
                    touched |= self.link.groups() | self._inhabited()
                    log.info("store: %d groups known", len(self.cache.groups))
            for name in touched:
                self.runtime.wake(name)

    def _hear(self, events: Iterable[pb.Event]) -> None:
        """Another node has just given an address of ours up: whoever it led astray is told where it really is."""
        for event in events:
            group = self._groups.get(event.regarding.group or event.regarding.name)
            if event.reason in LED_ASTRAY and group is not None:
                group.announce()

    async def _reconcile(self, name: str) -> float | None:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = GroupReconciler(name, self._machine)
        again = await group.reconcile()
        self.watching.look(name, group.serving)
        if again == FORGET:
            del self._groups[name]
        return again

    def _restart(self, group: str, resource: str) -> str:
        """For monitors: see :meth:`GroupReconciler.restart`."""
        found = self._groups.get(group)
        if found is None:
            raise Temporary(f"{group} is not here now")
        return found.restart(resource)

    def _wake(self, group: str | None) -> None:
        self.witnessing.look()
        if group is None:
            self.members.look()
            self.standbys.look()
            for name in self.link.groups() | self.link.sworn():
                self.runtime.wake(name)
            self.runtime.wake_all()
        else:
            self.runtime.wake(group)

    def _addresses_changed(self, addresses: frozenset[str]) -> None:
        """Wake the groups whose addresses appeared or went."""
        shape, index = self._index
        if shape != self.cache.shape:
            index = {}
            for name in self.cache.groups:
                for resource in self.cache.resources(name).values():
                    if isinstance(resource, pb.VirtualIP):
                        index.setdefault(address_of(resource.spec), set()).add(name)
            self._index = self.cache.shape, index
        for address in addresses & index.keys():
            for name in index[address]:
                self.runtime.wake(name)

    def _inhabited(self) -> set[str]:
        """Groups that have cgroups here, whatever the store says of them."""
        return {child.path.name for child in Cgroup(self._base.path / GROUPS).children()}


def _own_store(config: NodeConfig) -> tuple[str, int]:
    """Where this node's own server listens."""
    return config.me.addresses[0], config.me.api_port


async def _until_signalled(tasks: TaskGroup, asked: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: stopping; what runs stays and is adopted by the next agent", number.name)
            asked.set()
            tasks.cancel_scope.cancel()
            return


def _own_processes(config: NodeConfig) -> Callable[[], Iterable[mpb.OwnProcess]]:
    return lambda: processes(config.run_dir, (*(("store",) if config.me.votes else ()), "guard", "agent"))


async def _show_life(listener: Notifier) -> None:
    """To systemd or our supervisor: this loop turns. Before the common start, which may take its time."""
    listener.say(READY)
    while listener.period:
        listener.say(ALIVE)
        await anyio.sleep(listener.period)


def _quiet_collector() -> None:
    """What was loaded stays for ever: keep it out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
