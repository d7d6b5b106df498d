"""The agent under an operator's oath: what it runs, from what, and how the leader's word takes over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from hasys.guard.client import Note, OathReport, SwornTo
from hasys.guard.protocol import AddressEntry, Plan
from hasys.reconciler import lastknown
from hasys.reconciler.cache import Cache
from hasys.reconciler.duty import Duty, wish
from hasys.reconciler.lastknown import LastKnown
from hasys.reconciler.ports import Report
from hasys.reconciler.telling import AGAIN
from hasys.reconciler.witnessing import Witnessing
from hasys.resources.addresses import Held
from tests.unit.reconciler.fakes import NODE, FakeDriver, World, app, group, vip, world

pytestmark = pytest.mark.anyio


async def settle(seconds: float = 0.05) -> None:
    """Let virtual time pass."""
    await anyio.sleep(seconds)


async def sworn(w: World) -> None:
    """Web is assigned to n2 at epoch 1; this node runs it by an oath of epoch 2."""
    w.put(group("n2", 1), vip(), app(after=["ip"]))
    await settle()
    w.take_log()
    w.guard.oaths["web"] = SwornTo("web", 2)
    w.permit("web", 2)
    await settle(3)


async def test_a_sworn_group_runs_though_the_store_gives_it_to_another_node(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await sworn(w)
        assert w.running == {"app"}
        assert w.held == ["10.0.0.9"]
        assert "plan web@2 v1: app ip" in [line.replace("ip app", "app ip") for line in w.log]


async def test_from_last_known_objects_nothing_is_touched_but_what_is_sworn(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.cache.stale = True
        w.put(group(), vip(), app())
        w.permit("web", 1)
        await settle(5)
        assert w.log == ["gate 10.0.0.9"]
        w.guard.oaths["web"] = SwornTo("web", 2)
        w.permit("web", 2)
        await settle(3)
        assert w.running == {"app"}


async def test_from_last_known_objects_what_this_node_held_last_is_run(tmp_path: Path) -> None:
    """Two nodes without a third voter: the guard has the token, no store answers."""
    async with world(tmp_path) as w:
        w.cache.stale = True
        w.guard.tokens.add("web")
        w.put(group("n2", 1), vip(), app())
        await settle(3)
        assert w.log == ["gate 10.0.0.9"], "as last known it was another node's"
        w.put(group(), vip(), app())
        w.permit("web", 1)
        await settle(5)
        assert w.running == {"app"}


async def test_the_leaders_epoch_takes_over_without_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDriver, "continues", lambda self, earlier: True)
    async with world(tmp_path) as w:
        await sworn(w)
        w.take_log()
        w.put(group(NODE, 3, previous_node="n2", previous_epoch=1, revoked=True))
        await settle()
        w.guard.oaths.clear()
        w.permit("web", 3)
        await settle(5)
        assert not [line for line in w.log if line.startswith(("stop", "kill", "start", "del", "release"))]
        assert [line for line in w.log if line.startswith("plan web@3")]
        assert w.running == {"app"}


async def test_a_new_agent_adopts_what_an_oath_started_though_the_leader_has_just_taken_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeDriver, "continues", lambda self, earlier: True)
    async with world(tmp_path) as w:
        w.guard.oaths["web"] = SwornTo("web", 2)
        w.guard.plans["web"] = Plan("web", 2, 1, (AddressEntry("eth0", "10.0.0.9", "ip"),))
        w.addresses.held.add(Held("eth0", "10.0.0.9", 24))
        w.running.add("app")
        w.epochs["app"] = 2
        w.permit("web", 3)
        w.put(group(NODE, 3, previous_node="n2", previous_epoch=1, revoked=True), vip(), app(after=["ip"]))
        await settle(5)
        assert not [line for line in w.log if line.startswith(("stop", "kill", "start", "remove", "release"))], w.log
        assert w.epochs["app"] == 3
        assert w.running == {"app"}
        assert "ResourceStarted" not in w.cluster.events()


async def test_an_oath_that_is_given_up_is_stopped_in_order_and_released(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await sworn(w)
        w.guard.oaths["web"] = SwornTo("web", 2, leaving=True)
        w.runtime.wake("web")
        await settle(3)
        assert w.log[-1] == "release web@2"
        assert "stop app" in w.log
        assert (w.running, w.held) == (set(), [])


def test_an_oath_counts_until_the_leader_gives_the_group_here_at_a_later_epoch() -> None:
    oath = SwornTo("web", 5)
    assert (wish(group("n2", 9), NODE, oath).duty, wish(group("n2", 9), NODE, oath).epoch) == (Duty.HOLD, 5)
    assert wish(group(NODE, 5), NODE, oath).epoch == 5
    assert wish(group(NODE, 6), NODE, oath).epoch == 6
    assert wish(group("n2", 9), NODE, SwornTo("web", 5, leaving=True)).duty is Duty.LEAVE


async def test_what_was_last_known_is_read_back_as_it_was(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.put(group(), vip(), app())
        kept = LastKnown(tmp_path / "data" / "last-known", w.cache)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "last-known").write_bytes(kept._content())
    read = lastknown.read(tmp_path / "data" / "last-known")
    assert read is not None
    again = Cache()
    assert again.take(read) == {"web"}
    assert again.synced
    assert (again.groups, again.resources("web")) == (w.cache.groups, w.cache.resources("web"))


@pytest.mark.parametrize("content", [None, b"\xff\xff\xff"])
async def test_nothing_readable_is_nothing_known(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "last-known").write_bytes(content)
    assert lastknown.read(tmp_path / "last-known") is None


class Source:
    """A guard with one report."""

    untold = True

    def __init__(self) -> None:
        self.serial = self.note = 0

    async def reports(self) -> Sequence[OathReport]:
        return (OathReport(7, 1_700_000_000.5, "web", 5, True, "by root on n1: fire"),)

    async def told(self, serial: int) -> None:
        self.serial, self.untold = serial, False

    async def notes(self) -> Sequence[Note]:
        return (Note(9, 1_700_000_001.5, "NodeWentDown", "web (epoch 5)", 5, "it lost power"),)

    async def noted(self, serial: int) -> None:
        self.note = serial


async def test_a_report_is_confirmed_only_when_the_store_has_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        source = Source()
        told = Witnessing(source, w.cluster.report, NODE)
        w.machine.tasks.start_soon(told.run)
        w.cluster.failing = 2
        told.look()
        await settle(AGAIN * 1.5)
        assert source.serial == 0
        await settle(AGAIN)
        assert source.serial == 7
        (report,) = w.cluster.reports
        assert isinstance(report, Report)
        event, note = report.events
        assert (event.reason, event.epoch, event.time.seconds) == ("OathSworn", 5, 1_700_000_000)
        assert "fire" in event.message
        assert (note.reason, note.type, note.message) == ("NodeWentDown", "Warning", f"{NODE} is back: it lost power")
        assert (note.regarding.kind, note.regarding.name, note.epoch) == ("Node", NODE, 5)
        assert source.note == 9
