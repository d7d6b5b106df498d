"""One resource's life, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from hasys.placement.flow import Progress
from hasys.reconciler.unit import Unit
from hasys.resources.port import Driver, Permanent, Place, State, Surroundings, Temporary, Trace
from tests.unit.reconciler.fakes import app

pytestmark = pytest.mark.anyio


class Scripted(Driver):
    """A driver whose faults are given; ``did`` is what was asked of it."""

    kind = "Application"

    def __init__(self, *, run: Exception | None = None, stop: list[Exception] | None = None, slow: float = 0) -> None:
        around = Surroundings(
            Place("n1", "web", "app", 1), anyio.lowlevel.checkpoint, lambda: None, lambda reason, cause, took=None: None
        )
        super().__init__(around)
        self.did: list[str] = []
        self._failure = run
        self._stops = stop or []
        self._slow = slow

    def traces(self) -> tuple[Trace, ...]:
        return ()

    async def adopt(self) -> bool:
        return False

    async def run(self) -> None:
        self.did.append("run")
        if self._failure is not None:
            raise self._failure
        self.become(State.RUNNING)
        await anyio.sleep_forever()

    def kill(self) -> None:
        self.did.append("kill")

    async def stop(self, *, force: bool) -> None:
        self.did.append(f"stop {'by force' if force else 'in order'}")
        if not force:
            await anyio.sleep(self._slow)
        if self._stops:
            raise self._stops.pop(0)


@asynccontextmanager
async def unit(driver: Driver) -> AsyncIterator[Unit]:
    async with anyio.create_task_group() as tasks:
        yield Unit(app(), driver, tasks)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Permanent("no such user"), "no such user"),
        (ZeroDivisionError("oops"), "internal error: ZeroDivisionError: oops"),
    ],
)
async def test_whatever_a_driver_raises_becomes_its_condition(failure: Exception, message: str) -> None:
    async with unit(driver := Scripted(run=failure)) as u:
        u.start()
        await anyio.sleep(0.1)
        assert (driver.condition.state, driver.condition.message) == (State.FAILED, message)
        assert u.given_up
        assert u.progress is Progress.FAILED


async def test_a_unit_that_gave_up_can_be_started_again() -> None:
    async with unit(driver := Scripted(run=Permanent("no"))) as u:
        for _ in range(2):
            u.start()
            await anyio.sleep(0.1)
        assert driver.did == ["run", "run"]


async def test_a_stop_is_repeated_until_it_succeeds_and_names_what_is_in_the_way() -> None:
    async with unit(driver := Scripted(stop=[Temporary("process 7 does not die")] * 3)) as u:
        u.start()
        await anyio.sleep(0.1)
        u.stop(force=False)
        await anyio.sleep(0.01)
        assert (driver.condition.state, driver.condition.message) == (State.STOPPING, "process 7 does not die")
        assert u.progress is Progress.BUSY
        await anyio.sleep(5)
        assert u.gone
        assert driver.did == ["run", *["stop in order"] * 4]


async def test_force_overtakes_an_orderly_stop_and_kills_before_it_waits() -> None:
    async with unit(driver := Scripted(slow=60)) as u:
        u.start()
        await anyio.sleep(0.1)
        u.stop(force=False)
        await anyio.sleep(1)
        u.stop(force=True)
        await anyio.sleep(0.01)
        assert driver.did == ["run", "stop in order", "kill", "stop by force"]
        assert u.gone


async def test_an_orderly_stop_does_not_soften_a_forced_one() -> None:
    async with unit(driver := Scripted()) as u:
        u.start()
        await anyio.sleep(0.1)
        u.stop(force=True)
        u.stop(force=False)
        await anyio.sleep(1)
        assert driver.did == ["run", "kill", "stop by force"]


async def test_a_bug_in_a_drivers_stop_is_shown_and_tried_again() -> None:
    async with unit(driver := Scripted(stop=[ZeroDivisionError("oops")])) as u:
        u.stop(force=False)
        await anyio.sleep(0.01)
        assert driver.condition.message == "internal error: ZeroDivisionError: oops"
        await anyio.sleep(1)
        assert u.gone
