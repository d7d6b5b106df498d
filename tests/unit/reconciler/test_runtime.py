"""The keyed queue, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from hasys.reconciler.runtime import BACKOFF_FIRST, BACKOFF_MAX, FORGET, RESYNC, Runtime
from hasys.resources.port import Permanent, Temporary

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(reconcile: Callable[[str], Awaitable[float | None]]) -> AsyncIterator[Runtime]:
    runtime = Runtime(reconcile, jitter=lambda: 1.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.run)
        yield runtime
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


class Looks:
    """Remembers when each key was looked at; answers as told."""

    def __init__(self, *answers: float | Exception | None, takes: float = 0.0) -> None:
        self.begun = anyio.current_time()
        self.at: list[float] = []
        self.answers = list(answers)
        self.takes = takes

    async def __call__(self, key: str) -> float | None:
        self.at.append(round(anyio.current_time() - self.begun, 6))
        await anyio.sleep(self.takes)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_many_wakes_before_a_look_are_one_look() -> None:
    looks = Looks()
    async with running(looks) as runtime:
        for _ in range(100):
            runtime.wake("web")
        await anyio.sleep(1)
    assert looks.at == [0]


async def test_a_wake_during_a_look_makes_one_more() -> None:
    looks = Looks(takes=1)
    async with running(looks) as runtime:
        runtime.wake("web")
        await anyio.sleep(0.5)
        for _ in range(3):
            runtime.wake("web")
        await anyio.sleep(5)
    assert looks.at == [0, 1]


async def test_one_slow_key_does_not_hold_up_another() -> None:
    looks = Looks(takes=10)
    async with running(looks) as runtime:
        runtime.wake("web")
        await anyio.sleep(1)
        runtime.wake("db")
        await anyio.sleep(1)
    assert looks.at == [0, 1]


async def test_it_looks_again_when_the_reconcile_says_so_and_else_at_the_resync() -> None:
    looks = Looks(0.25)
    async with running(looks) as runtime:
        runtime.wake("web")
        await anyio.sleep(RESYNC + 1)
    assert looks.at == [0, 0.25, RESYNC + 0.25]


async def test_failures_are_repeated_with_growing_waits_up_to_a_bound() -> None:
    looks = Looks(*[Temporary("busy")] * 12)
    async with running(looks) as runtime:
        runtime.wake("web")
        await anyio.sleep(60)
    waits = [round(b - a, 6) for a, b in zip(looks.at, looks.at[1:], strict=False)]
    assert waits[:4] == [BACKOFF_FIRST, 2 * BACKOFF_FIRST, 4 * BACKOFF_FIRST, 8 * BACKOFF_FIRST]
    assert max(waits[:12]) == BACKOFF_MAX


async def test_a_temporary_error_may_name_its_own_wait() -> None:
    looks = Looks(Temporary("busy", 0.7))
    async with running(looks) as runtime:
        runtime.wake("web")
        await anyio.sleep(1)
    assert looks.at == [0, 0.7]


async def test_a_permanent_error_waits_for_news() -> None:
    looks = Looks(Permanent("no such user"))
    async with running(looks) as runtime:
        runtime.wake("web")
        await anyio.sleep(RESYNC - 1)
        runtime.wake("web")
        await anyio.sleep(0.1)
    assert looks.at == [0, RESYNC - 1]


async def test_a_bug_in_one_key_ends_neither_it_nor_the_others() -> None:
    looks = Looks(ZeroDivisionError(), None)
    async with running(looks) as runtime:
        runtime.wake("web")
        await anyio.sleep(1)
    assert looks.at == [0, BACKOFF_FIRST]


async def test_a_forgotten_key_is_looked_at_again_only_when_woken() -> None:
    looks = Looks(FORGET)
    async with running(looks) as runtime:
        runtime.wake("web")
        await anyio.sleep(2 * RESYNC)
        runtime.wake("web")
        await anyio.sleep(0.1)
    assert looks.at == [0, 2 * RESYNC]


async def test_a_wake_before_the_start_is_not_lost() -> None:
    looks = Looks()
    runtime = Runtime(looks)
    runtime.wake("web")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.run)
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    assert looks.at == [0]
