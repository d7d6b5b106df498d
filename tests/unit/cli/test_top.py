"""A21: ``hasys top`` on a terminal of 80x24: what is seen, what the keys do, and that nothing is done without a yes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from textual.pilot import Pilot

from hasys.cli.top import feed
from hasys.cli.top.app import TopApp
from hasys.cli.top.picture import Subject
from hasys.model.errors import Refused, Unavailable
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake import FakeCluster, contract_view, ended
from tests.unit.cli.topped import SIZE, cluster, screen_of, view

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WHOLE = """\
demo  leader n1 (term 4)  quorum  3 voters  profile default
 GROUP  PHASE    ACTIVE  STANDBY  FAILOVER  REASON
 web    Running  n1      n2       Auto      web-app Failed

 NODE  ROLE     STATE  LEASE    CPU  MEMORY  MESSAGE
 n1    Voter    Ready  epoch 3  -    -
 n2    Voter    Ready  none     -    -
 w     Witness  Ready  -        -    -
 MONITOR   STATE  WATCHES  NODE  MESSAGE
 web/page  Ok     http     n1    200
 TIME      EVENT          NODE  MESSAGE
 08:00:02  GroupRunning   n1    web runs on n1
 08:00:01  GroupAssigned  n1    web goes to n1: preferred node









Tab: next table   Enter: all about a line   Escape: back
 ⏎ Details  s Switchover  f Force  p Pause/resume  r Retry  / Filter  q Quit"""


async def seen(pilot: Pilot[None], *words: str) -> str:
    """The screen, once it shows these words; the test's own time limit ends the wait. A key that moves the focus is
    waited for in this way before the next one is pressed: each widget has its own queue of keys."""
    app = pilot.app
    assert isinstance(app, TopApp)
    while True:
        await pilot.pause()
        screen = screen_of(app)
        if all(word in screen for word in words):
            return screen


async def test_everything_is_on_one_screen_of_80_columns_and_24_lines() -> None:
    async with TopApp(cluster()).run_test(size=SIZE) as pilot:
        assert await seen(pilot, "GroupAssigned", "Ready", "Details") == WHOLE


async def test_a_planned_move_is_asked_for_and_its_end_is_told() -> None:
    there = cluster()
    there.changes = [ended("Succeeded", milliseconds=140)]
    async with TopApp(there).run_test(size=SIZE) as pilot:
        await seen(pilot, "Running")
        await pilot.press("s")
        await seen(pilot, "Move web away from n1", "No, leave it", "Yes: the best other node", "Yes: n2")
        assert there.asked == []
        await pilot.press("down", "down", "enter")
        await seen(pilot, "switchover of web to n2 done in 140ms")
    assert there.asked == [pb.OperationSpec(type=pb.OperationSpec.Switchover, group="web", node="n2")]


@pytest.mark.parametrize("keys", [["escape"], ["enter"]])
async def test_a_no_and_the_proposed_answer_do_nothing(keys: Sequence[str]) -> None:
    there = cluster()
    async with TopApp(there).run_test(size=SIZE) as pilot:
        await seen(pilot, "Running")
        await pilot.press("p")
        await seen(pilot, "automatic failover of web off?")
        await pilot.press(*keys)
        await seen(pilot, "not confirmed: nothing was done")
    assert there.asked == []


@pytest.mark.parametrize(("typed", "done"), [("web", True), ("wb", False), ("", False)])
async def test_a_forced_failover_wants_the_name_of_the_group(typed: str, done: bool) -> None:
    there = cluster()
    there.changes = [ended("Failed", "n2 is not ready")]
    async with TopApp(there).run_test(size=SIZE) as pilot:
        await seen(pilot, "Running")
        await pilot.press("f")
        await seen(pilot, "FORCED: conditions are skipped", "Yes: n2")
        await pilot.press("down", "enter")
        await seen(pilot, "type web and Enter to confirm")
        await pilot.press(*typed, "enter")
        await seen(pilot, "failover of web to n2 failed: n2 is not ready" if done else "nothing was done")
    assert len(there.asked) == int(done)


async def test_the_keys_at_the_foot_are_those_of_the_chosen_table() -> None:
    there = cluster()
    there.changes = [ended("Succeeded")]
    async with TopApp(there).run_test(size=SIZE) as pilot:
        assert "Drain" not in await seen(pilot, "s Switchover")
        await pilot.press("tab")
        assert "Switchover" not in await seen(pilot, "d Drain/undrain", "c Confirm it is off")
        await pilot.press("down", "d")
        await seen(pilot, "Move everything away from n2")
        await pilot.press("down", "enter")
        await seen(pilot, "drain of n2 done")
    assert there.asked == [pb.OperationSpec(type=pb.OperationSpec.Drain, node="n2")]


async def test_enter_opens_the_page_about_a_group_and_escape_leaves_it() -> None:
    async with TopApp(cluster()).run_test(size=SIZE) as pilot:
        await seen(pilot, "GroupRunning")
        await pilot.press("enter")
        page = await seen(pilot, "flow (in order of start)", "| no such page", "last move: preferred node")
        assert "NODE  ROLE" not in page
        await pilot.press("escape")
        await seen(pilot, "NODE  ROLE")


async def test_the_filter_counts_for_every_table_until_escape() -> None:
    async with TopApp(cluster()).run_test(size=SIZE) as pilot:
        await seen(pilot, "GroupRunning")
        await pilot.press("slash")
        await seen(pilot, "words to look for")
        await pilot.press("n", "2", "enter")
        screen = await seen(pilot, "[only: n2]", "Switchover")
        assert " n2    Voter" in screen
        assert not any(word in screen for word in (" n1    Voter", "Witness", "MONITOR", "GroupRunning"))
        await pilot.press("escape")
        assert "[only" not in await seen(pilot, "Witness", "MONITOR", "GroupRunning")


async def test_the_chosen_line_stays_chosen_when_others_come_and_go() -> None:
    there = cluster()
    app = TopApp(there)
    async with app.run_test(size=SIZE) as pilot:
        await seen(pilot, "Witness")
        await pilot.press("tab")
        await seen(pilot, "d Drain")
        await pilot.press("down")
        while app.subject != Subject("nodes", "n2"):
            await pilot.pause()
        more = view()
        more.nodes.insert(0, api.NodeView(name="a", role="Observer", state="Ready"))
        app.feed.picture = app.feed.picture.with_status(more)
        app.redraw()
        await seen(pilot, "Observer")
        assert app.subject == Subject("nodes", "n2")


async def test_a_lost_server_is_said_and_what_was_known_stays() -> None:
    app = TopApp(cluster())
    async with app.run_test(size=SIZE) as pilot:
        await seen(pilot, "quorum")
        app.feed.heard -= 10
        app.redraw()
        await seen(pilot, "demo: no server has answered for 1", " s; trying on", "web    Running")  # or 11, or 12
        app.feed.heard = asyncio.get_running_loop().time() + 600
        app.redraw()
        await seen(pilot, "leader n1 (term 4)")


class _Interrupted(FakeCluster):
    """Its first watches fail."""

    fails_with: Callable[[], Exception] = staticmethod(lambda: Unavailable("no leader"))
    times = 1

    async def watch_status(self, group: str = "") -> AsyncIterator[api.StatusResponse]:
        if self.times:
            self.times -= 1
            raise self.fails_with()
        async for status in super().watch_status(group):
            yield status


async def test_a_watch_that_cannot_begin_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_AGAIN", 0.0)
    async with TopApp(_Interrupted(view=contract_view(), silent_after=True)).run_test(size=SIZE) as pilot:
        await seen(pilot, "leader n1 (term 4)")


async def test_what_trying_again_cannot_mend_ends_it_with_the_reason() -> None:
    there = _Interrupted(view=contract_view(), silent_after=True)
    there.fails_with = lambda: Refused("the certificate is not accepted")
    app = TopApp(there)
    async with asyncio.timeout(60):
        await app.run_async(headless=True, size=SIZE)
    assert str(app.failure) == "the certificate is not accepted"


def test_without_a_terminal_it_ends_with_one_line(hasys: Run, cluster: FakeCluster) -> None:
    result = hasys("top")
    assert result.exit_code == 1
    assert result.stderr == "hasys: top needs a terminal; in a script or a pipe use 'hasys status -w'\n"
