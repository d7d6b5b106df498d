"""Who was cancelled: a task, or merely what it waited for.

Both reach a coroutine as the same exception. A task group takes one that nobody asked for in silence: asyncio's as the
orderly end of that one task, anyio's as the end of all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from hasys.model.errors import HasysError


class PartEnded(HasysError):
    """A part of the process ended without being asked."""


def from_outside() -> bool:
    """Is it our own task that is being cancelled, and not the call or connection that it waits for?"""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def lasting(name: str, part: Callable[[], Awaitable[object]]) -> NoReturn:
    """Run a part of a process until its task is cancelled. Raises what ended it, :class:`PartEnded` without a cause."""
    try:
        await part()
    except asyncio.CancelledError as e:
        if from_outside():
            raise
        raise PartEnded(f"{name} ended: what it waited for was cancelled") from e
    raise PartEnded(f"{name} ended without being asked")
