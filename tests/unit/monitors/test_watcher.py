"""The task of one monitor, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from hasys.model.errors import HasysError
from hasys.monitors.evaluation import Action, Restarts, Settings, Verdict
from hasys.monitors.port import Check, Found
from hasys.monitors.watcher import Outside, Pace, Watcher

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Scripted(Check):
    """Looks as told: a text is trouble, "" is well, "hang" never comes back, "raise" is an error."""

    def __init__(self, looks: Sequence[str]) -> None:
        self._looks = list(looks)
        self.times: list[float] = []

    async def look(self) -> Found:
        self.times.append(anyio.current_time())
        told = self._looks.pop(0) if self._looks else ""
        if told == "hang":
            await anyio.sleep_forever()
        if told == "raise":
            raise OSError(5, "Input/output error")
        if told == "bug":
            raise RuntimeError("oops")
        return Found(told, value=7.0, unit="%")


class Ear:
    """Hears what a watcher says."""

    def __init__(self, fails: bool = False) -> None:
        self.said: list[str] = []
        self.events: list[str] = []
        self.figures: list[float] = []
        self.answers: list[float] = []
        self._fails = fails

    def outside(self) -> Outside:
        return Outside(
            self._said, self._record, self._answered, lambda value, unit: self.figures.append(value), self._restart
        )

    def _said(self, verdict: Verdict) -> None:
        self.said.append(f"{verdict.state.value} {verdict.message}".strip())

    def _answered(self) -> None:
        self.answers.append(anyio.current_time())

    def _record(self, reason: str, cause: str) -> None:
        self.events.append(f"{reason} {cause}".strip())

    async def _restart(self) -> str:
        if self._fails:
            raise HasysError("exit status 1")
        return "done"


@asynccontextmanager
async def watching(check: Check, ear: Ear, seconds: float, **settings: object) -> AsyncIterator[None]:
    watcher = Watcher(check, Settings(**settings), Pace(interval=2.0, timeout=1.0), ear.outside())  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        await anyio.sleep(seconds)
        tasks.cancel_scope.cancel()
    yield


async def test_it_says_each_state_once_and_records_failure_and_recovery() -> None:
    ear = Ear()
    async with watching(Scripted(["", "gone", "gone", "gone", ""]), ear, 20, failures=2, action=Action.FAILOVER):
        assert ear.said == ["Waiting", "Ok", "Failed gone", "Ok"]
        assert ear.events == ["MonitorFailed gone; Failover", "MonitorRecovered"]


async def test_the_first_good_look_is_an_answer_and_no_later_one_is() -> None:
    ear, check = Ear(), Scripted(["gone", "", "", "gone", "gone", "gone", ""])
    async with watching(check, ear, 20):
        assert ear.answers == check.times[1:2]


async def test_looks_fall_on_multiples_of_the_interval_and_begin_after_the_start_delay() -> None:
    check = Scripted([])
    async with watching(check, Ear(), 11, start_delay=5.0):
        assert [time % 2.0 for time in check.times] == [0.0] * len(check.times)
        assert len(check.times) == 3


@pytest.mark.parametrize(
    ("look", "says"),
    [
        ("hang", "Failed no answer within 1 s"),
        ("raise", "Failed Input/output error"),
        ("bug", "Failed internal error: RuntimeError: oops"),
    ],
)
async def test_what_hangs_or_breaks_counts_as_failed(look: str, says: str) -> None:
    ear = Ear()
    async with watching(Scripted([look] * 9), ear, 12, failures=3):
        assert ear.said == ["Waiting", says]


@pytest.mark.parametrize(("fails", "how"), [(False, "done"), (True, "failed: exit status 1")])
async def test_each_restart_is_an_event_with_how_it_went(fails: bool, how: str) -> None:
    ear = Ear(fails)
    restarts = Restarts(start_time=1.0, retries=2, backoff=1.0)
    async with watching(Scripted(["gone"] * 20), ear, 30, failures=1, action=Action.RESTART, restarts=restarts):
        assert ear.events == [
            f"MonitorRestart gone; restart 1 of 2: {how}",
            f"MonitorRestart gone; restart 2 of 2: {how}",
            "MonitorFailed gone after 2 restarts; Failover",
        ]


async def test_figures_are_told_at_each_look() -> None:
    ear = Ear()
    async with watching(Scripted([]), ear, 9):
        assert ear.figures == [7.0] * 4 or ear.figures == [7.0] * 5
