"""Calls that may block run in threads of their own kind: at most :data:`THREADS`, never those that the agent needs.

A call that hangs cannot be killed: its thread is left behind. Each asker has at most one such thread, because it asks
again only once the last call has come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread

from hasys.model.errors import HasysError

THREADS = 64
"""Most calls that block at the same time."""

T = TypeVar("T")


class Hanging(HasysError):
    """The last call has not come back yet."""


class Blocking:
    """One asker's way to a thread."""

    def __init__(self, limiter: anyio.CapacityLimiter) -> None:
        self._limiter = limiter
        self._under_way = False

    async def call(self, work: Callable[[], T], what: str) -> T:
        """Run it in a thread; cancelling leaves the thread behind. Raises :class:`Hanging` while one is behind."""
        if self._under_way:
            raise Hanging(f"{what}: the last look still hangs")
        self._under_way = True

        def whole() -> T:
            try:
                return work()
            finally:
                self._under_way = False

        started = False

        def begin() -> T:
            nonlocal started
            started = True
            return whole()

        try:
            return await to_thread.run_sync(begin, abandon_on_cancel=True, limiter=self._limiter)
        finally:
            if not started:
                self._under_way = False
