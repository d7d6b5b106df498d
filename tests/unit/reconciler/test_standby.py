"""What the agent of two nodes tells its guard: the groups that this node would run in their Active's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp

from hasys.api import kinds
from hasys.api.kinds import Resource
from hasys.guard.client import GuardGone, Note, OathReport
from hasys.guard.protocol import ADOPTED, StoodBy
from hasys.reconciler.aside import Aside
from hasys.reconciler.cache import Cache
from hasys.reconciler.lastknown import LastKnown
from hasys.reconciler.ports import Batch, Report
from hasys.reconciler.standby import Standbys, epoch
from hasys.reconciler.telling import AGAIN
from hasys.reconciler.witnessing import Witnessing
from hasys.v1 import objects_pb2 as pb
from tests.unit.reconciler.fakes import NODE, app, group, vip

pytestmark = pytest.mark.anyio


class Guard:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.session, self.connected = 1, True
        self.told: list[Mapping[str, StoodBy]] = []
        self.fails = 0

    async def standby(self, groups: Mapping[str, StoodBy]) -> None:
        if self.fails:
            self.fails -= 1
            raise GuardGone("guard: connection lost")
        self.told.append(groups)


def of_n2() -> pb.Group:
    made = group("n2", 4)
    assert isinstance(made, pb.Group)
    return made


def manual(g: pb.Group) -> None:
    g.spec.failover.mode = pb.Failover.Manual


def paused(g: pb.Group) -> None:
    g.status.paused = True


def stopped(g: pb.Group) -> None:
    g.status.assignment.stopped = True


def deleting(g: pb.Group) -> None:
    g.metadata.deleting.CopyFrom(Timestamp(seconds=1))


def failed_here(g: pb.Group) -> None:
    g.status.failures[NODE].epoch = 3


def nobodys(g: pb.Group) -> None:
    g.status.assignment.node = ""


def its_own(g: pb.Group) -> None:
    g.status.assignment.node = NODE


def of_others(g: pb.Group) -> None:
    del g.spec.nodes[:]
    g.spec.nodes.add(name="n2")


def test_a_group_of_the_other_node_is_stood_by_for_above_every_known_epoch() -> None:
    g = of_n2()
    assert epoch(g, NODE) == 5
    g.status.assignment.previous_epoch = 9
    assert epoch(g, NODE) == 10


@pytest.mark.parametrize("spoil", [manual, paused, stopped, deleting, failed_here, nobodys, its_own, of_others])
def test_what_an_operator_decides_or_cannot_run_here_is_not_stood_by_for(
    spoil: Callable[[pb.Group], None],
) -> None:
    g = of_n2()
    spoil(g)
    assert epoch(g, NODE) == 0


async def test_the_guard_hears_it_when_it_changes_and_when_it_comes_anew() -> None:
    cache, guard = Cache(), Guard()
    told = Standbys(cache, guard, NODE)
    guard.fails = 1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(told.run)
        told.look()
        await anyio.sleep(0.1)
        assert not guard.told, "nothing is known yet"
        cache.take(Batch([(kinds.wrap(of_n2()), False)], synced=True))
        told.look()
        await anyio.sleep(AGAIN * 1.5)
        assert guard.told == [{"web": StoodBy(5)}]
        told.look()
        await anyio.sleep(0.1)
        assert guard.told == [{"web": StoodBy(5)}]
        guard.session = 2
        told.look()
        await anyio.sleep(0.1)
        assert guard.told == [{"web": StoodBy(5)}, {"web": StoodBy(5)}]
        tasks.cancel_scope.cancel()


async def test_a_drained_node_stands_by_for_nothing() -> None:
    cache, guard = Cache(), Guard()
    me = pb.Node(metadata=pb.Metadata(name=NODE))
    me.spec.drained = True
    cache.take(Batch([(kinds.wrap(of_n2()), False), (kinds.wrap(me), False)], synced=True))
    told = Standbys(cache, guard, NODE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(told.run)
        told.look()
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    assert guard.told == [{}]


def disk(unmount: float | None = None) -> pb.SharedDisk:
    made = pb.SharedDisk(metadata=pb.Metadata(name="disk", group="web"))
    if unmount is not None:
        made.spec.unmount_timeout.FromMilliseconds(int(unmount * 1000))
    return made


def restarting() -> pb.Monitor:
    made = pb.Monitor(metadata=pb.Metadata(name="page", group="web"))
    made.spec.restart.command.append("restart")
    return made


@pytest.mark.parametrize(
    ("members", "watchdog", "wait", "outlives"),
    [
        ([vip()], 10, 3600, 0.0),
        ([vip(), app()], 10, 0, 10.5),
        ([vip(), app()], 0, 0, 0.0),
        ([vip(), app()], 10, 3600, 3600.0),
        ([vip(), app()], 10, 8, 10.5),
        ([disk()], 0, 0, 5.0),
        ([disk(7.0)], 0, 0, 7.0),
        ([disk(0.0)], 0, 0, 0.0),
        ([disk(7.0)], 10, 0, 10.5),
        ([vip(), restarting()], 10, 0, 10.5),
    ],
    ids=[
        "addresses",
        "program",
        "no-watchdog",
        "wait",
        "short-wait",
        "mount",
        "slow-mount",
        "no-time",
        "mount-and-watchdog",
        "monitor",
    ],
)
async def test_the_guard_hears_how_long_the_group_may_live_on_at_its_lost_active(
    members: list[Resource | pb.Monitor], watchdog: int, wait: int, outlives: float
) -> None:
    cache, guard = Cache(), Guard()
    n2 = pb.Node(metadata=pb.Metadata(name="n2"))
    n2.status.watchdog.FromSeconds(watchdog)
    fencing = pb.Fencing(metadata=pb.Metadata(name="n2"))
    fencing.spec.wait.FromSeconds(wait)
    cache.take(Batch([(kinds.wrap(obj), False) for obj in (of_n2(), n2, fencing, *members)], synced=True))
    told = Standbys(cache, guard, NODE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(told.run)
        told.look()
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    assert guard.told == [{"web": StoodBy(5, outlives)}]


BEGUN = OathReport(7, 1_700_000_000.0, "web", 5, True, "policy alone-allowed: nothing was heard")
LOST = OathReport(8, 1_700_000_060.0, "web", 5, False, "revoked by n1 in term 3", BEGUN.time, BEGUN.cause)


class Reports:
    """A guard with reports of one oath."""

    untold = True

    def __init__(self, *reports: OathReport) -> None:
        self._reports = reports

    async def reports(self) -> tuple[OathReport, ...]:
        return self._reports

    async def told(self, serial: int) -> None:
        self.untold = False

    async def notes(self) -> tuple[Note, ...]:
        return ()

    async def noted(self, serial: int) -> None:
        raise AssertionError("there was no note")


async def texts(tmp_path: Path, *reports: OathReport) -> list[str]:
    """What the store is told."""
    known = tmp_path / "last-known"
    cache = Cache()
    cache.take(
        Batch([(obj, False) for obj in (kinds.wrap(of_n2()), kinds.wrap(vip()), kinds.wrap(app()))], synced=True)
    )
    known.write_bytes(LastKnown(known, cache)._content())
    said: list[str] = []
    done = anyio.Event()

    async def report(r: Report) -> list[str]:
        said.extend(event.message for event in r.events)
        done.set()
        return []

    async with anyio.create_task_group() as tasks:
        told = Witnessing(Reports(*reports), report, NODE, Aside(tmp_path / "aside", known, NODE))
        tasks.start_soon(told.run)
        told.look()
        await done.wait()
        tasks.cancel_scope.cancel()
    return said


@pytest.mark.parametrize("reports", [(BEGUN, LOST), (LOST,)], ids=["in-one", "after-a-fence-killed-the-agent"])
async def test_what_lost_is_kept_aside_and_the_event_says_where(
    tmp_path: Path, reports: tuple[OathReport, ...]
) -> None:
    *_, ended = await texts(tmp_path, *reports)
    (file,) = (tmp_path / "aside").iterdir()
    assert str(file) in ended
    kept = yaml.safe_load(file.read_text())
    assert (kept["from"], kept["to"]) == ("2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z")
    assert kept["cause"] == BEGUN.cause
    assert {obj["kind"] for obj in kept["objects"]} == {"Group", "VirtualIP", "Application"}


async def test_what_went_on_is_the_clusters_history_and_nothing_is_kept_aside(tmp_path: Path) -> None:
    adopted = OathReport(8, 1_700_000_060.0, "web", 5, False, f"{ADOPTED} as epoch 6")
    _, ended = await texts(tmp_path, BEGUN, adopted)
    assert "aside" not in ended
    assert not (tmp_path / "aside").exists()


async def test_a_disk_that_keeps_nothing_aside_does_not_keep_the_store_from_hearing_of_it(tmp_path: Path) -> None:
    (tmp_path / "aside").write_text("a file where the folder should be")
    _, ended = await texts(tmp_path, BEGUN, LOST)
    assert "revoked by n1" in ended
    assert "aside" not in ended
