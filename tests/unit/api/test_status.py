"""The Status service: whatever the size of the cluster, its process goes on with everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from hasys.api.server.status import SLICE, StatusService
from hasys.api.server.streams import Streams
from hasys.store.machine import Machine
from hasys.v1 import api_pb2

pytestmark = pytest.mark.anyio
STEPS = 10


def slow(answer: api_pb2.StatusResponse, group: str) -> Iterator[None]:
    """Ten groups, each of which takes as long as may be worked at a stretch."""
    for number in range(STEPS):
        until = time.monotonic() + SLICE
        while time.monotonic() < until:
            pass
        answer.groups.add(name=f"g{number}")
        yield


async def test_while_a_long_answer_is_worked_out_other_tasks_get_their_turn() -> None:
    turns = 0

    async def heartbeat() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(heartbeat())
    service = StatusService(Machine(), slow, Streams())
    alone = service.alone(api_pb2.StatusRequest())
    answer = await anext(alone)
    assert [g.name for g in answer.groups] == [f"g{number}" for number in range(STEPS)]
    assert turns >= STEPS
    beating.cancel()
