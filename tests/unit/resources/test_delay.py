"""B6: Delay, in virtual time."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hasys.resources.delay import Delay
from hasys.resources.port import Place, State, Surroundings
from hasys.resources.records import Records
from hasys.v1 import objects_pb2 as pb

pytestmark = pytest.mark.anyio


def delay(directory: Path, epoch: int = 1) -> Delay:
    spec = pb.DelaySpec()
    spec.duration.FromMilliseconds(1500)
    around = Surroundings(
        Place("n1", "web", "settle", epoch), anyio.lowlevel.checkpoint, lambda: None, lambda reason, cause: None
    )
    return Delay(around, spec, Records(directory))


async def test_it_takes_exactly_its_duration(tmp_path: Path) -> None:
    driver = delay(tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run)
        await anyio.sleep(1.49)
        states = [driver.condition.state]
        await anyio.sleep(0.02)
        states.append(driver.condition.state)
        assert states == [State.STARTING, State.RUNNING]
        tasks.cancel_scope.cancel()


async def test_a_new_agent_does_not_wait_again_but_a_new_epoch_does(tmp_path: Path) -> None:
    with anyio.move_on_after(2):
        await delay(tmp_path).run()
    assert await delay(tmp_path).adopt()
    assert not await delay(tmp_path, epoch=2).adopt()


async def test_a_stopped_delay_starts_anew(tmp_path: Path) -> None:
    driver = delay(tmp_path)
    with anyio.move_on_after(2):
        await driver.run()
    await driver.stop(force=False)
    assert not await driver.adopt()
