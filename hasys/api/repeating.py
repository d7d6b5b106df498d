"""When to try again, and for how long."""

from __future__ import annotations

import asyncio
import random

from hasys.model.errors import HasysError, Unreached

PAUSE, LONGEST_PAUSE = 0.02, 0.2
"""Seconds between attempts: the first and the longest; each pause is a random part of a growing one."""
NOBODY = 1.0
"""Seconds after which a caller in front of a terminal is told that no server can be connected."""


class Backoff:
    """Growing pauses, each a random part of its length, so that clients do not come back in step."""

    def __init__(self) -> None:
        self._next = PAUSE

    def reset(self) -> None:
        """It works again: the next pause is the shortest."""
        self._next = PAUSE

    async def pause(self, at_most: float = LONGEST_PAUSE) -> None:
        """Sleep, not longer than this."""
        length = self._next * random.uniform(0.5, 1.0)  # noqa: S311  (no secret)
        self._next = min(2 * self._next, LONGEST_PAUSE)
        await asyncio.sleep(max(0.0, min(length, at_most)))


class Patience:
    """How long a watch waits for its first answer; once there was one, it is resumed for ever."""

    def __init__(self, seconds: float | None) -> None:
        now = asyncio.get_running_loop().time()
        self._until = None if seconds is None else now + seconds
        self._nobody = now + min(seconds or NOBODY, NOBODY)

    def answered(self) -> None:
        """There was an answer."""
        self._until = None

    def check(self, error: HasysError) -> None:
        """Raises the error when the time is over."""
        nobody = isinstance(error, Unreached)
        if self._until is not None and asyncio.get_running_loop().time() >= (self._nobody if nobody else self._until):
            raise error
