"""Runs one reconcile function for many keys: one worker per key, bursts merged, failures repeated with back-off."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio.abc import TaskGroup

from hasys.model.errors import HasysError
from hasys.model.lines import about
from hasys.resources.port import Permanent, Temporary

log = logging.getLogger(__name__)

FORGET: Final = -1.0
"""Result of a reconcile whose key means nothing any more: its worker ends."""
RESYNC: Final = 30.0
"""Seconds after which a key is looked at though nothing happened: events are hints."""
BACKOFF_FIRST, BACKOFF_MAX = 0.1, 5.0
"""Seconds between repetitions of what failed; doubled each time, with jitter so that many groups do not beat as one."""

Reconcile = Callable[[str], Awaitable[float | None]]
"""Gets a key; returns the seconds after which to look again, None for the usual resync, or :data:`FORGET`."""


class Runtime:
    """See the module. ``wake`` may be called at any time from the same event loop."""

    def __init__(self, reconcile: Reconcile, *, jitter: Callable[[], float] = random.random) -> None:
        self._reconcile = reconcile
        self._jitter = jitter
        self._news: dict[str, anyio.Event] = {}
        self._early: list[str] = []
        self._tasks: TaskGroup | None = None

    def wake(self, key: str) -> None:
        """Look at this key soon; many calls before the look are one."""
        news = self._news.get(key)
        if news is not None:
            news.set()
            return
        self._news[key] = anyio.Event()
        if self._tasks is None:
            self._early.append(key)
        else:
            self._tasks.start_soon(self._work, key)

    def wake_all(self) -> None:
        """Look at every key that has a worker."""
        for news in self._news.values():
            news.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            early, self._early = self._early, []
            for key in early:
                self._tasks.start_soon(self._work, key)
            await anyio.sleep_forever()

    async def _work(self, key: str) -> None:
        about(key)
        failures = 0
        while True:
            news = self._news[key] = anyio.Event()
            wait, failures = await self._once(key, failures)
            if wait == FORGET and not news.is_set():
                del self._news[key]
                return
            with anyio.move_on_after(max(wait, 0.0)):
                await news.wait()

    async def _once(self, key: str, failures: int) -> tuple[float, int]:
        """The seconds to wait, and the failures in a row."""
        try:
            again = await self._reconcile(key)
            return (RESYNC if again is None else again), 0
        except Permanent as e:
            log.error("%s: %s", key, e)
            return RESYNC, 0
        except HasysError as e:
            log.warning("%s: %s", key, e)
            delay = e.delay if isinstance(e, Temporary) else None
            return (self._backoff(failures) if delay is None else delay), failures + 1
        except Exception:  # a bug must not take the other groups down; the key is tried again
            log.exception("%s: reconciling failed", key)
            return self._backoff(failures), failures + 1

    def _backoff(self, failures: int) -> float:
        return min(BACKOFF_FIRST * 2.0**failures, BACKOFF_MAX) * (0.5 + 0.5 * self._jitter())
