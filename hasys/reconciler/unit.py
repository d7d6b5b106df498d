"""One resource of a group on this node: owns the task that runs its driver."""

from __future__ import annotations

import logging

import anyio
from anyio.abc import TaskGroup

from hasys.api.kinds import Resource
from hasys.model.errors import HasysError
from hasys.placement.flow import Progress
from hasys.resources.port import Driver, State
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)

STOP_RETRY_FIRST, STOP_RETRY_MAX = 0.05, 1.0
"""Seconds between attempts to stop what does not stop."""

_PROGRESS = {
    State.RUNNING: Progress.UP,
    State.FAILED: Progress.FAILED,
}


class Unit:
    """Waiting -> started -> stopping -> gone. A unit that is gone is thrown away; a new one starts anew."""

    def __init__(self, resource: Resource, driver: Driver, tasks: TaskGroup) -> None:
        self.resource = resource
        """The object that the driver was made from."""
        self.driver = driver
        self.started = False
        self.stopping = False
        self.gone = False
        """Nothing of it is left on this machine."""
        self.adopted = False
        self.prepared = False
        self.told_state: State | None = None
        """The state that the last event spoke of."""
        self._begun = 0.0
        """When the present start, or stop, began."""
        self._force = False
        self._tasks = tasks
        self._scope = anyio.CancelScope()
        self._idle = anyio.Event()
        self._idle.set()

    @property
    def progress(self) -> Progress:
        """For the flow. What was prepared or adopted but not started counts as waiting."""
        if self.stopping:
            return Progress.WAITING if self.gone else Progress.BUSY
        if not self.started:
            return Progress.WAITING
        return _PROGRESS.get(self.driver.condition.state, Progress.BUSY)

    @property
    def up(self) -> bool:
        """It runs, or its failure is tolerated."""
        tolerated = self.resource.spec.on_start_failure == pb.Continue and self.progress is Progress.FAILED
        return tolerated or self.progress is Progress.UP

    @property
    def took(self) -> float:
        """Seconds since its start, or its stop, began."""
        return anyio.current_time() - self._begun

    @property
    def present(self) -> bool:
        """Something of it may be on this machine."""
        return not self.gone and (self.started or self.adopted or self.prepared or self.stopping)

    @property
    def given_up(self) -> bool:
        """It failed, and its driver tries no more."""
        return self.started and self._idle.is_set() and self.driver.condition.state is State.FAILED

    async def adopt(self) -> None:
        """Look whether it runs from before this agent."""
        self.adopted = await self.driver.adopt()

    async def prepare(self) -> None:
        """Do what may be done before the permit. Failures do not matter: the start does it again."""
        if not self.prepared:
            self.prepared = True
            try:
                await self.driver.prepare()
            except HasysError as e:
                log.info("%s: %s", self.resource.metadata.name, e)

    def start(self) -> None:
        """Run the driver from now on; also again, after it gave up."""
        assert not self.stopping, "a unit that stops is not started again"
        assert self._idle.is_set(), "it runs already"
        self.started = True
        self._begun = anyio.current_time()
        self._launch()

    def replace(self, resource: Resource, driver: Driver) -> None:
        """Carry on with a driver made from a changed spec, without a stop."""
        running = self.started and not self.given_up
        self._scope.cancel()
        driver.take_over(self.driver)
        self.resource, self.driver = resource, driver
        if running:
            self._launch()

    def stop(self, *, force: bool) -> None:
        """Begin to stop; a later ``force`` overtakes an orderly stop."""
        if self.gone or (self.stopping and (self._force or not force)):
            return
        self._force = force
        self.stopping = True
        self._begun = anyio.current_time()
        if force:
            self.driver.kill()
        self._scope.cancel()
        self._scope = anyio.CancelScope()
        idle, self._idle = self._idle, anyio.Event()
        self._tasks.start_soon(self._stop, self._scope, idle, self._idle)

    def _launch(self) -> None:
        self._scope = anyio.CancelScope()
        idle, self._idle = self._idle, anyio.Event()
        self._tasks.start_soon(self._run, self.driver, self._scope, idle, self._idle)

    async def _run(self, driver: Driver, scope: anyio.CancelScope, idle: anyio.Event, done: anyio.Event) -> None:
        await idle.wait()
        with scope:
            try:
                await driver.run()
            except HasysError as e:
                driver.become(State.FAILED, str(e))
            except Exception as e:
                log.exception("%s: driver failed", self.resource.metadata.name)
                driver.become(State.FAILED, f"internal error: {type(e).__name__}: {e}")
        done.set()

    async def _stop(self, scope: anyio.CancelScope, idle: anyio.Event, done: anyio.Event) -> None:
        await idle.wait()
        with scope:
            await self._stop_until_gone()
        done.set()

    async def _stop_until_gone(self) -> None:
        self.driver.become(State.STOPPING)
        delay = STOP_RETRY_FIRST
        while True:
            try:
                await self.driver.stop(force=self._force)
                break
            except HasysError as e:
                self.driver.become(State.STOPPING, str(e))
            except Exception as e:
                log.exception("%s: driver failed to stop", self.resource.metadata.name)
                self.driver.become(State.STOPPING, f"internal error: {type(e).__name__}: {e}")
            await anyio.sleep(delay)
            delay = min(delay * 2, STOP_RETRY_MAX)
        self.gone = True
        if (self.started or self.adopted) and not self._force:
            self.driver.around.record("ResourceStopped", "", took=self.took)
        self.driver.become(State.STOPPED)
        self.driver.around.changed()
