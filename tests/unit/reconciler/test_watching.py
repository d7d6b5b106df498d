"""Which monitors look on this node, and what reaches the store, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from hasys.api.kinds import Ref
from hasys.model.errors import Refused
from hasys.reconciler.around import Around
from hasys.reconciler.cluster import ApiCluster
from hasys.reconciler.watching import Neighbours, Watching
from hasys.resources.addresses import Held
from hasys.resources.cgroup import Cgroup
from hasys.resources.port import Temporary
from hasys.v1 import api_pb2 as api
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb
from tests.unit.reconciler.fakes import NODE, World, app, group, world

pytestmark = pytest.mark.anyio

LOOKED = 7.0
"""Seconds after which a monitor with the default interval has looked."""


def monitor(name: str = "m", **spec: object) -> pb.Monitor:
    """Is 10.0.0.9 on this node?"""
    whole = mpb.MonitorSpec(ip=mpb.IpMonitor(addresses=["10.0.0.9"]), failures=1, **spec)  # type: ignore[arg-type]
    return pb.Monitor(metadata=pb.Metadata(name=name, group="web", uid=name), spec=whole)


class Desk:
    """The monitors of a world."""

    def __init__(self, world: World, watching: Watching) -> None:
        self.world = world
        self.watching = watching
        self.restarts: list[str] = []

    async def look(self, serving: int, seconds: float = LOOKED) -> None:
        self.watching.look("web", serving)
        await anyio.sleep(seconds)

    def said(self, name: str = "m") -> list[str]:
        """State and epoch of each result that was reported."""
        ref = Ref("Monitor", "web", name)
        return [
            f"{r.results[ref].state}@{r.results[ref].epoch}" for r in self.world.cluster.reports if ref in r.results
        ]


@asynccontextmanager
async def desk(directory: Path) -> AsyncIterator[Desk]:
    async with world(directory) as w, anyio.create_task_group() as tasks:
        made: list[Desk] = []

        def restart(group: str, resource: str) -> str:
            made[0].restarts.append(resource)
            return "begun"

        base = Cgroup(directory / "cg")
        neighbours = Neighbours(NODE, w.cache, w.reporter, w.cluster, base, restart, w.guard.permit)
        around = Around(w.cache, w.addresses, lambda: True, ("127.0.0.1", 1))
        made.append(Desk(w, Watching(neighbours, around, tasks)))
        w.put(group())
        yield made[0]
        tasks.cancel_scope.cancel()


async def test_a_monitor_of_the_active_looks_while_the_group_is_up_here(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        d.world.addresses.held.add(Held("eth0", "10.0.0.9", 24))
        d.world.put(monitor())
        await d.look(serving=0)
        assert d.said() == []
        await d.look(serving=3)
        assert d.said() == ["Waiting@3", "Ok@3"]
        await d.look(serving=5)
        assert d.said()[2:] == ["Waiting@5", "Ok@5"]


async def test_a_monitor_of_all_nodes_looks_without_the_group_and_says_what_follows(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        d.world.put(monitor(on=mpb.MonitorSpec.All, action=mpb.MonitorSpec.Failover))
        await d.look(serving=0)
        assert d.said() == ["Waiting@0", "Failed@0"]
        last = d.world.cluster.reports[-1]
        assert last.results[Ref("Monitor", "web", "m")].action == "Failover"
        assert "MonitorFailed" in d.world.cluster.events()
        await d.look(serving=3)
        assert len(d.said()) == 2  # that the group came here changes nothing for it


async def test_a15_a_monitor_of_the_standby_looks_wherever_the_group_is_not(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        d.world.put(monitor(on=mpb.MonitorSpec.Standby))
        there = group()
        there.status.assignment.node = "n2"
        d.world.put(there)
        await d.look(serving=0)
        assert d.said() == ["Waiting@0", "Failed@0"]
        here = group()
        here.status.assignment.node = NODE
        d.world.put(here)
        count = len(d.world.cluster.reports)
        await d.look(serving=3, seconds=60)
        assert len(d.world.cluster.reports) == count  # nothing is looked at any more


async def test_a_node_that_is_none_of_the_groups_does_not_look(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        foreign = group()
        del foreign.spec.nodes[:]
        foreign.spec.nodes.add(name="n2")
        d.world.put(foreign, monitor(on=mpb.MonitorSpec.All))
        await d.look(serving=0)
        assert d.said() == []


async def test_what_the_store_believes_of_a_monitor_that_does_not_look_here_any_more_is_corrected(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as d:
        known = monitor()
        known.status.nodes[NODE].state = "Failed"
        d.world.put(known)
        await d.look(serving=0)
        assert d.said() == ["Idle@0"]


async def test_another_spec_and_a_deletion_end_the_watcher(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        d.world.put(monitor())
        await d.look(serving=3)
        d.world.put(monitor(action=mpb.MonitorSpec.Stop))
        await d.look(serving=3)
        assert d.said() == ["Waiting@3", "Failed@3", "Waiting@3", "Failed@3"]
        count = len(d.world.cluster.reports)
        d.world.drop(monitor())
        await d.look(serving=3, seconds=60)
        assert len(d.world.cluster.reports) == count


async def test_a_restart_asks_the_guard_first(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        restart = mpb.MonitorRestart(resource="app", retries=1, start_time={"seconds": 1})  # type: ignore[arg-type]
        d.world.put(monitor(action=mpb.MonitorSpec.Restart, restart=restart))
        await d.look(serving=3)
        assert d.restarts == []
        assert "MonitorRestart" in d.world.cluster.events()  # an attempt, which failed for want of a permit
        d.world.put(app(), group(epoch=4))
        await anyio.sleep(1)
        d.world.permit("web", 4)
        await anyio.sleep(1)
        await d.look(serving=4)
        assert d.restarts == ["app"]


async def test_a_group_restarts_one_resource_in_place(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(), app("app"), app("other"))
        await anyio.sleep(1)
        w.permit("web", 1)
        await anyio.sleep(5)
        assert w.groups["web"].serving == 1
        w.take_log()
        assert w.groups["web"].restart("app") == "app is stopped and started again"
        with pytest.raises(Temporary, match="app does not run here now"):
            w.groups["web"].restart("app")
        await anyio.sleep(5)
        assert [line for line in w.take_log() if "plan" not in line] == ["stop app", "start app"]
        assert w.groups["web"].serving == 1  # it came up once: what fails afterwards is what monitors are for
        w.put(group("n2", 2, previous_node=NODE, previous_epoch=1))
        await anyio.sleep(0.5)
        assert w.groups["web"].serving == 0


class OldClient:
    """A server of an earlier version."""

    def __init__(self, unknown: str) -> None:
        self.asked: list[list[str]] = []
        self._unknown = unknown

    async def watch(self, kinds: list[str]) -> AsyncIterator[api.WatchResponse]:
        self.asked.append(list(kinds))
        if self._unknown in kinds:
            raise Refused(f"kind '{self._unknown}' is unknown: use one of Group")
        yield api.WatchResponse()


async def test_an_agent_does_without_a_kind_that_an_older_leader_does_not_know() -> None:
    client = OldClient("Monitor")
    batches = [batch async for batch in ApiCluster(client, NODE).watch()]  # type: ignore[arg-type]
    assert len(batches) == 1
    assert "Monitor" not in client.asked[-1]
