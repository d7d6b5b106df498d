"""What reaches the store of what was observed, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from hasys.model.errors import Refused
from hasys.reconciler.ports import Report
from hasys.reconciler.reporter import LINGER, MAX_EVENTS, RETRY_FIRST, Reporter
from hasys.v1 import objects_pb2 as pb
from tests.unit.reconciler.fakes import NODE, REF, FakeCluster

pytestmark = pytest.mark.anyio

NOTHING = pb.ResourceStatus()


def status(state: str, epoch: int = 1, message: str = "") -> pb.ResourceStatus:
    return pb.ResourceStatus(node=NODE, epoch=epoch, state=state, message=message)


@asynccontextmanager
async def running(cluster: FakeCluster) -> AsyncIterator[Reporter]:
    async with anyio.create_task_group() as tasks:
        reporter = Reporter(cluster, NODE, wall=anyio.current_time)
        tasks.start_soon(reporter.run)
        yield reporter
        await anyio.sleep(60)
        tasks.cancel_scope.cancel()


async def test_a_burst_of_changes_is_one_report_of_the_last() -> None:
    cluster = FakeCluster()
    async with running(cluster) as reporter:
        for state in ("Stopped", "Starting", "Running"):
            reporter.status(REF, status(state), NOTHING)
    assert cluster.said("ip") == ["Running"]


async def test_what_the_store_has_already_is_not_sent() -> None:
    cluster = FakeCluster()
    async with running(cluster) as reporter:
        reporter.status(REF, status("Running"), status("Running"))
    assert cluster.reports == []


async def test_a_new_attempt_is_answered_though_nothing_differs() -> None:
    cluster = FakeCluster()
    async with running(cluster) as reporter:
        reporter.again(REF)
        reporter.status(REF, status("Running"), status("Running"))
    assert cluster.said("ip") == ["Running"]


async def test_a_report_is_repeated_until_a_server_takes_it() -> None:
    cluster = FakeCluster()
    cluster.failing = 5
    async with running(cluster) as reporter:
        reporter.status(REF, status("Running"), NOTHING)
        reporter.event("ResourceStarted", REF, 1, "")
    assert cluster.said("ip") == ["Running"]
    assert cluster.events() == ["ResourceStarted"]


async def test_what_changes_while_a_report_is_on_its_way_is_sent_too() -> None:
    cluster = FakeCluster()
    cluster.failing = 1
    async with running(cluster) as reporter:
        reporter.status(REF, status("Starting"), NOTHING)
        await anyio.sleep(0.05)
        reporter.status(REF, status("Running"), NOTHING)
    assert cluster.said("ip") == ["Running"]


async def test_a_refused_report_is_not_repeated() -> None:
    class Refusing(FakeCluster):
        async def report(self, report: Report) -> tuple[str, ...]:
            self.reports.append(report)
            raise Refused("no")

    cluster = Refusing()
    async with running(cluster) as reporter:
        reporter.status(REF, status("Running"), NOTHING)
    assert len(cluster.reports) == 1


async def test_the_time_of_a_state_is_kept_while_only_its_message_changes() -> None:
    cluster = FakeCluster()
    async with running(cluster) as reporter:
        reporter.status(REF, status("Starting"), NOTHING)
        await anyio.sleep(5)
        reporter.status(REF, status("Starting", message="waiting"), NOTHING)
    first, second = (r.statuses[REF] for r in cluster.reports)
    assert first.since == second.since


async def test_events_are_bounded_while_no_server_is_reached() -> None:
    cluster = FakeCluster()
    cluster.failing = 3
    async with running(cluster) as reporter:
        for n in range(MAX_EVENTS + 10):
            reporter.event("DriftRepaired", REF, n, "gone")
    epochs = [e.epoch for r in cluster.reports for e in r.events]
    assert epochs == list(range(10, MAX_EVENTS + 10))


async def test_an_event_says_at_each_attempt_how_long_ago_it_happened() -> None:
    cluster = FakeCluster()
    cluster.failing = 3
    async with running(cluster) as reporter:
        begun = anyio.current_time()
        reporter.event("ResourceStarted", REF, 1, "", took=0.25)
    ((event,),) = [report.events for report in cluster.reports]
    waited = LINGER + RETRY_FIRST * (1 + 2 + 4)
    assert anyio.current_time() - begun == pytest.approx(60), "the clock is virtual"
    assert event.age.ToTimedelta().total_seconds() == pytest.approx(waited, abs=1e-3)
    assert event.duration.ToTimedelta().total_seconds() == 0.25
