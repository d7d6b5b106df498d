"""What the process makes of events: counted from now on, a move once and after its late reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from hasys.api.timeline import Timeline
from hasys.model.errors import Unavailable
from hasys.telemetry.exporter import Exporter
from hasys.telemetry.main import Telemetry
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb
from tests.unit.api.test_timeline import event, lost_node
from tests.unit.telemetry.sample import status

pytestmark = pytest.mark.anyio


class Heard(Exporter):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.status = None
        self.counted: list[str] = []
        self.lines: list[Timeline] = []
        self.reconciles: list[list[str]] = []

    def count(self, event: pb.Event) -> None:
        self.counted.append(event.reason)

    def moved(self, line: Timeline) -> None:
        self.lines.append(line)

    def reconciled(self, steps: Sequence[pb.Event]) -> None:
        self.reconciles.append([step.reason for step in steps])


class Told:
    """A cluster with these events before the watch, and those after it began."""

    def __init__(self, before: Sequence[pb.Event], after: Sequence[pb.Event]) -> None:
        self.before, self.after = before, after
        self.reads = 0
        self.down = False
        self.silent = asyncio.Event()

    async def status(self, group: str = "", *, timeout: float = 3.0) -> api.StatusResponse:
        self.reads += 1
        if self.down:
            raise Unavailable("nobody")
        return status()

    async def watch(self, kinds: Sequence[str] = (), group: str = "") -> AsyncIterator[api.WatchResponse]:
        yield api.WatchResponse(changes=[*map(added, self.before), api.Change(type=api.WatchResponse.SYNCED)])
        for one in self.after:
            yield api.WatchResponse(changes=[added(one)])
        self.silent.set()
        await asyncio.Event().wait()


def added(told: pb.Event) -> api.Change:
    return api.Change(type=api.WatchResponse.ADDED, object=pb.Object(event=told))


async def heard(before: Sequence[pb.Event], after: Sequence[pb.Event]) -> Heard:
    exporter, cluster = Heard(), Told(before, after)
    telemetry = Telemetry(cluster, exporter, settle=0.0)
    task = asyncio.create_task(telemetry.follow())
    await cluster.silent.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return exporter


async def test_a_move_that_ends_now_is_told_once_with_what_began_before() -> None:
    events = sorted(lost_node(), key=lambda e: e.time.ToNanoseconds())
    first = next(i for i, e in enumerate(events) if e.reason == "FailoverStarted")
    exporter = await heard(events[: first + 1], events[first + 1 :])
    assert [(line.group, line.epoch, line.what) for line in exporter.lines] == [("web", 2, "failover")]
    assert exporter.counted == [e.reason for e in events[first + 1 :]]


async def test_what_ended_before_is_not_told_again() -> None:
    exporter = await heard(lost_node(), [event("GroupRunning", 50.0)])
    assert exporter.lines == []


async def test_what_is_done_after_a_move_was_told_is_one_reconcile_and_its_own_steps_are_none() -> None:
    later = [event("ResourceRestarted", 90.0, about="web-app"), event("ResourceStarted", 91.0, about="web-app", took=1)]
    exporter = await heard(lost_node(), later)
    assert exporter.reconciles == [["ResourceRestarted", "ResourceStarted"]]
    events = sorted(lost_node(), key=lambda e: e.time.ToNanoseconds())
    first = next(i for i, e in enumerate(events) if e.reason == "FailoverStarted")
    exporter = await heard(events[:first], [e for e in events[first:] if e.reason != "ResourceRestarted"])
    assert (len(exporter.lines), exporter.reconciles) == (1, [])


async def test_steps_of_different_nodes_and_the_stop_of_a_group_that_goes_nowhere_are_reconciles_too() -> None:
    begun = [event("GroupAssigned", 0.0, 1, node="n1"), event("GroupUnassigned", 1.0, 1, node="n1")]
    stopped = event("ResourceStopped", 1.2, 1, node="n1", about="web-ip", took=0.1)
    foreign = event("ForeignAddressRemoved", 1.3, 1, node="n2", about="web-ip")
    exporter = await heard(begun, [stopped, foreign])
    assert exporter.reconciles == [["ResourceStopped"], ["ForeignAddressRemoved"]]


async def test_a_status_serves_the_scrapes_of_a_second_and_one_that_does_not_come_is_none() -> None:
    cluster, exporter = Told((), ()), Heard()
    telemetry = Telemetry(cluster, exporter)
    await asyncio.gather(*(telemetry.read() for _ in range(5)))
    assert cluster.reads == 1
    assert exporter.status is not None
    cluster.down = True
    fresh = Telemetry(cluster, exporter)
    await fresh.read()
    assert exporter.status is None
