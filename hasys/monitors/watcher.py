"""The task of one monitor on one node: looks at its interval, judges, restarts, and says what it thinks.

Looks fall on multiples of the interval of one clock, so that monitors with the same interval look at the same time and
share what they read (one scan of /proc for all).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from hasys.model.errors import HasysError
from hasys.monitors.evaluation import Judge, Settings, State, Verdict
from hasys.monitors.port import Check, Found

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    interval: float
    timeout: float


@dataclass(frozen=True, slots=True)
class Outside:
    """What a watcher tells and asks."""

    said: Callable[[Verdict], None]
    """The verdict, after each look that changed it."""
    record: Callable[[str, str], None]
    """Record an event: reason and cause."""
    answered: Callable[[], None]
    """The first good look."""
    figure: Callable[[float, str], None]
    """The latest figure and its unit."""
    restart: Callable[[], Awaitable[str]]
    """Mend in place: returns what was done. Raises ``HasysError`` when it failed."""


class Watcher:
    """``run`` looks until cancelled."""

    def __init__(self, check: Check, settings: Settings, pace: Pace, outside: Outside) -> None:
        self._check = check
        self._settings = settings
        self._pace = pace
        self._outside = outside
        self._said: Verdict | None = None
        self.verdict = Verdict(State.WAITING)

    async def run(self) -> None:
        judge = Judge(self._settings, anyio.current_time())
        self._tell(judge.verdict)
        await anyio.sleep(judge.waits(anyio.current_time()))
        while True:
            await anyio.sleep(self._until_next(anyio.current_time()))
            found = await self._look()
            before = judge.verdict
            verdict = judge.take(found, anyio.current_time())
            self._record(before, verdict, found)
            self._tell(judge.verdict)
            if verdict.restart_in is not None:
                await self._restart(judge, verdict)

    def _until_next(self, now: float) -> float:
        interval = self._pace.interval
        return interval - now % interval

    async def _look(self) -> Found:
        """One look. Whatever it does not say in time, or cannot say, is trouble."""
        limit = self._pace.timeout
        try:
            with anyio.fail_after(limit):
                found = await self._check.look()
        except TimeoutError:
            return Found(f"no answer within {limit:g} s")
        except HasysError as e:
            return Found(str(e))
        except OSError as e:
            return Found(e.strerror or str(e))
        except Exception as e:
            log.exception("a monitor failed")
            return Found(f"internal error: {type(e).__name__}: {e}")
        if found.value is not None:
            self._outside.figure(found.value, found.unit)
        return found

    async def _restart(self, judge: Judge, verdict: Verdict) -> None:
        """One attempt; each is an event, with how it went."""
        await anyio.sleep(verdict.restart_in or 0.0)
        attempt = f"restart {verdict.restarts} of {self._settings.restarts.retries}"
        try:
            done = await self._outside.restart()
        except HasysError as e:
            done = f"failed: {e}"
        self._outside.record("MonitorRestart", f"{verdict.message}; {attempt}: {done}")
        judge.restarted(anyio.current_time())

    def _record(self, before: Verdict, after: Verdict, found: Found) -> None:
        if after.state is State.FAILED and before.state is not State.FAILED:
            detail = f" ({found.detail})" if found.detail else ""
            used = f" after {after.restarts} restarts" if after.restarts else ""
            follows = f"; {after.action.value}" if after.action is not None else ""
            self._outside.record("MonitorFailed", f"{after.message}{detail}{used}{follows}")
        elif after.state is State.OK and before.state in (State.FAILED, State.RESTARTING):
            self._outside.record("MonitorRecovered", "")
        elif after.state is State.OK and before.state is State.WAITING:
            self._outside.answered()

    def _tell(self, verdict: Verdict) -> None:
        self.verdict = verdict
        if verdict != self._said:
            self._said = verdict
            self._outside.said(verdict)
