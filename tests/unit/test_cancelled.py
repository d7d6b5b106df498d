"""A part that must not end, and who was cancelled."""

from __future__ import annotations

import asyncio

import pytest

from hasys.cancelled import PartEnded, from_outside, lasting


async def _returns() -> None:
    await asyncio.sleep(0)


async def _awaits_what_is_cancelled() -> None:
    awaited = asyncio.get_running_loop().create_future()
    awaited.cancel()
    await awaited


@pytest.mark.parametrize("part", [_returns, _awaits_what_is_cancelled])
def test_a_part_that_ends_by_itself_is_an_error_that_names_it(part: object) -> None:
    with pytest.raises(PartEnded, match="watch ended"):
        asyncio.run(lasting("watch", part))  # type: ignore[arg-type]


def test_a_part_that_is_cancelled_ends_as_one_that_was_cancelled() -> None:
    asked: list[bool] = []

    async def part() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asked.append(from_outside())

    async def cancelled_once_it_runs() -> bool:
        task = asyncio.ensure_future(lasting("watch", part))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(cancelled_once_it_runs())
    assert asked == [True]
