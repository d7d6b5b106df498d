"""Which monitors look on this node, and what becomes of what they find.

Level-based like the groups: told the name of a group and the epoch under which it has come up here, it starts, restarts
and ends watchers until they are those that the stored monitors ask for.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from hasys.api.convert import seconds
from hasys.api.kinds import Ref
from hasys.api.monitors import watched
from hasys.model.errors import HasysError
from hasys.monitors.catalogue import Catalogue, complete, pace_of, settings_of
from hasys.monitors.evaluation import State, Verdict
from hasys.monitors.facts import Gauges
from hasys.monitors.port import Machine, Surroundings
from hasys.monitors.watcher import Outside, Watcher
from hasys.reconciler.cache import Cache
from hasys.reconciler.commands import Commands
from hasys.reconciler.ports import Cluster, Report
from hasys.reconciler.reporter import Reporter
from hasys.resources.cgroup import AGENT, GROUPS, Cgroup
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)

ASKS_THE_SERVICE = ("tcp", "http", "script")
"""What a monitor watches when its good look means that clients are answered."""
TELL = 3.0
"""Seconds between two reports of live figures."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What watchers touch beside the machine."""

    node: str
    cache: Cache
    reporter: Reporter
    cluster: Cluster
    base: Cgroup
    """Directory of this node's cgroups."""
    restart: Callable[[str, str], str]
    """Group and resource: begin to stop and start it; returns what was begun. Raises ``HasysError``."""
    permitted: Callable[[str, int], Awaitable[bool]]
    """Group and epoch: does the guard allow effects?"""
    own: Callable[[], Iterable[mpb.OwnProcess]] = tuple
    """hasys's own processes here, now."""


@dataclass(slots=True)
class _Running:
    key: tuple[str, int, int]
    """Uid, generation and epoch that it was made for."""
    scope: anyio.CancelScope
    since: float
    watcher: Watcher | None = None


class Watching:
    """One per agent."""

    def __init__(self, neighbours: Neighbours, machine: Machine, tasks: TaskGroup) -> None:
        self._n = neighbours
        self._machine = machine
        self._tasks = tasks
        self._catalogue = Catalogue()
        self._running: dict[tuple[str, str], _Running] = {}
        self._figures: dict[tuple[str, str], mpb.MonitorFigure] = {}

    def look(self, group: str, serving: int) -> None:
        """Make it so for one group; ``serving``: the epoch under which it has come up here, or 0."""
        monitors = self._n.cache.monitors(group)
        wanted = {name: key for name, m in monitors.items() if (key := self._key(group, m, serving)) is not None}
        for of_group, name in [one for one in self._running if one[0] == group]:
            if wanted.get(name) != self._running[of_group, name].key:
                self._running.pop((of_group, name)).scope.cancel()
                self._figures.pop((of_group, name), None)
        for name, monitor in monitors.items():
            if name not in wanted:
                self._idle(monitor)
            elif (group, name) not in self._running:
                self._begin(monitor, wanted[name])
            else:
                self._say(monitor, wanted[name])  # the store was read anew, perhaps

    async def run(self) -> None:
        """Tell the leader the live figures until cancelled."""
        gauges = Gauges()
        while True:
            await anyio.sleep(TELL)
            figures = gauges.read()
            figures.monitors.extend(self._figures.values())
            figures.own.extend(self._n.own())
            try:
                with anyio.fail_after(TELL):
                    await self._n.cluster.report(Report(figures=figures))
            except (HasysError, TimeoutError) as e:
                log.debug("live figures not told: %s", e)

    def _key(self, group: str, monitor: pb.Monitor, serving: int) -> tuple[str, int, int] | None:
        """Identity of the watcher that should run; None: none should."""
        known = self._n.cache.groups.get(group)
        if known is None or known.metadata.HasField("deleting"):
            return None
        if all(one.name != self._n.node for one in known.spec.nodes):
            return None
        where = monitor.spec.on
        if where == mpb.MonitorSpec.Standby and known.status.assignment.node == self._n.node:
            return None
        everywhere = where != mpb.MonitorSpec.Active
        if not everywhere and not serving:
            return None
        return monitor.metadata.uid, monitor.metadata.generation, 0 if everywhere else serving

    def _begin(self, monitor: pb.Monitor, key: tuple[str, int, int]) -> None:
        running = _Running(key, anyio.CancelScope(), anyio.current_time())
        self._running[monitor.metadata.group, monitor.metadata.name] = running
        self._tasks.start_soon(self._watch, monitor, running)

    async def _watch(self, monitor: pb.Monitor, running: _Running) -> None:
        group, name, epoch = monitor.metadata.group, monitor.metadata.name, running.key[2]
        ref = Ref("Monitor", group, name)
        spec = complete(monitor.spec)
        environment = {"HASYS_NODE": self._n.node, "HASYS_GROUP": group, "HASYS_MONITOR": name}
        looks = Commands(Cgroup(self._n.base.path / AGENT / f"monitor.{group}.{name}"))
        around = Surroundings(group, name, looks, self._machine, self._n.node, environment)
        outside = Outside(
            said=lambda verdict: self._said(ref, running),
            record=lambda reason, cause: self._n.reporter.event(reason, ref, epoch, cause),
            answered=lambda: self._answered(ref, monitor, running),
            figure=lambda value, unit: self._figure(ref, value, unit),
            restart=lambda: self._restart(ref, epoch, spec.restart, environment),
        )
        with running.scope:
            try:
                check = self._catalogue.make(spec, around)
            except (ValueError, OSError) as e:
                log.error("%s: %s", ref, e)
                self._n.reporter.result(
                    ref, self._result(Verdict(State.WAITING, str(e)), running.key), self._stored(ref)
                )
                return
            running.watcher = Watcher(check, settings_of(spec), pace_of(spec), outside)
            await running.watcher.run()

    # ------------------------------------------------------------ what becomes of a finding

    def _said(self, ref: Ref, running: _Running) -> None:
        if running.watcher is not None and self._running.get((ref.group, ref.name)) is running:
            self._n.reporter.result(ref, self._result(running.watcher.verdict, running.key), self._stored(ref))

    def _answered(self, ref: Ref, monitor: pb.Monitor, running: _Running) -> None:
        """For the history of a start: the service itself answered. Not after a mere restart of this agent."""
        epoch, stored = running.key[2], self._stored(ref)
        known = (stored.epoch, stored.state) == (epoch, State.OK.value)
        if epoch and watched(monitor.spec) in ASKS_THE_SERVICE and not known:
            took = anyio.current_time() - running.since
            self._n.reporter.event("FirstAnswer", ref, epoch, "", took)

    def _say(self, monitor: pb.Monitor, key: tuple[str, int, int]) -> None:
        ref = Ref("Monitor", monitor.metadata.group, monitor.metadata.name)
        running = self._running[ref.group, ref.name]
        self._said(ref, running)

    def _idle(self, monitor: pb.Monitor) -> None:
        """It does not look here; say so if the store believes otherwise."""
        ref = Ref("Monitor", monitor.metadata.group, monitor.metadata.name)
        stored = self._stored(ref)
        if stored.state and self._n.cache.synced and not self._n.cache.stale:
            idle = mpb.MonitorResult(state=State.IDLE.value, observed_generation=stored.observed_generation)
            self._n.reporter.result(ref, idle, stored)

    def _result(self, verdict: Verdict, key: tuple[str, int, int]) -> mpb.MonitorResult:
        return mpb.MonitorResult(
            state=verdict.state.value,
            message=verdict.message,
            epoch=key[2],
            action=verdict.action.value if verdict.action is not None else "",
            restarts=verdict.restarts,
            observed_generation=key[1],
        )

    def _stored(self, ref: Ref) -> mpb.MonitorResult:
        monitor = self._n.cache.monitors(ref.group).get(ref.name)
        found = monitor.status.nodes.get(self._n.node) if monitor is not None else None
        return found if found is not None else mpb.MonitorResult()

    def _figure(self, ref: Ref, value: float, unit: str) -> None:
        self._figures[ref.group, ref.name] = mpb.MonitorFigure(group=ref.group, name=ref.name, value=value, unit=unit)

    async def _restart(self, ref: Ref, epoch: int, spec: mpb.MonitorRestart, environment: Mapping[str, str]) -> str:
        if not await self._n.permitted(ref.group, epoch):
            raise HasysError("the guard does not permit it now")
        if spec.resource:
            return self._n.restart(ref.group, spec.resource)
        commands = Commands(Cgroup(self._n.base.path / GROUPS / ref.group / ref.name), keep=True)
        limit = seconds(spec.timeout)
        try:
            with anyio.fail_after(limit):
                ended = await commands.run(tuple(spec.command), user=spec.user or "root", env=environment)
        except TimeoutError:
            raise HasysError(f"{spec.command[0]} did not end within {limit:g} s") from None
        if ended.code != 0:
            said = ended.output.strip().splitlines()
            raise HasysError(f"{spec.command[0]}: exit status {ended.code}" + (f": {said[-1][:200]}" if said else ""))
        return f"{spec.command[0]} ended well"
