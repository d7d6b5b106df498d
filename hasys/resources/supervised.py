"""What every kind that keeps a service running does: start, watch, restart in place, give up."""

from __future__ import annotations

import hashlib

import anyio
from google.protobuf.message import Message

from hasys.model.errors import HasysError
from hasys.resources import output, settings
from hasys.resources.port import CgroupTrace, Driver, Permanent, State, Surroundings, Trace
from hasys.resources.restart import RestartPolicy
from hasys.resources.service import Ending, Service, StartFailed
from hasys.v1 import objects_pb2


class Supervised(Driver):
    """See the module. A subclass says what its service is."""

    def __init__(self, around: Surroundings, service: Service, restart: objects_pb2.Restart) -> None:
        super().__init__(around)
        self._service = service
        self._policy = RestartPolicy(
            retries=settings.retries(restart),
            start_time=settings.seconds(restart, "start_time"),
            backoff=settings.seconds(restart, "backoff"),
        )

    def traces(self) -> tuple[Trace, ...]:
        return (CgroupTrace(str(self._service.home.cgroup.path)),)

    async def adopt(self) -> bool:
        return await self._service.adopt()

    def continues(self, earlier: Driver) -> bool:
        return (
            type(earlier) is type(self)
            and isinstance(earlier, Supervised)
            and earlier._service.home.programs == self._service.home.programs
        )

    def take_over(self, earlier: Driver) -> None:
        super().take_over(earlier)
        if isinstance(earlier, Supervised):
            self._service.take_over(earlier._service)

    async def run(self) -> None:
        self._policy.used = 0
        running = await self._service.adopt()
        while True:
            try:
                ending = await (self._watch() if running else self._once())
            except Permanent as e:  # a missing command, an unknown user: starting again cannot help
                self.become(State.FAILED, str(e))
                return
            running = False
            ran_for = max(0.0, anyio.current_time() - self._service.since)
            delay = self._policy.failed(ran_for)
            said = output.tail(self._service.log)
            if delay is None:
                self.become(State.FAILED, self._given_up(ending), exit_code=ending.code, output=said)
                return
            count = self.condition.restarts + 1
            message = f"{ending.cause}: restart {self._policy.used} of {self._policy.retries}"
            self.become(State.STARTING, message, restarts=count, exit_code=ending.code, output=said)
            self.around.record("ResourceRestarted", message)
            await anyio.sleep(delay)

    def kill(self) -> None:
        self._service.home.cgroup.kill()

    async def stop(self, *, force: bool) -> None:
        trouble = await self._service.stop(force=force)
        if trouble:
            self.around.record("StopFailed", trouble)

    async def _once(self) -> Ending:
        """Start it and keep watch; returns when it has ended or did not come up."""
        self.become(State.STARTING, self.condition.message)
        await self.around.permitted()
        self._service.since = anyio.current_time()
        try:
            await self._service.start()
        except StartFailed as e:
            return Ending(str(e), e.code)
        except Permanent:
            raise
        except HasysError as e:  # no memory to fork, an earlier process that does not die
            return Ending(str(e))
        return await self._watch()

    async def _watch(self) -> Ending:
        """Running once it has lived for the start time."""
        left = self._service.since + self._policy.start_time - anyio.current_time()
        if left > 0:
            with anyio.move_on_after(left):
                return await self._service.ended()
        self.become(State.RUNNING)
        return await self._service.ended()

    def _given_up(self, ending: Ending) -> str:
        if not self._policy.retries:
            return ending.cause
        return f"{ending.cause}: gave up after {self._policy.told}"


def programs_of(message: Message) -> str:
    """Changes when what is run changes: give it what is run alone, not limits, intervals or the flow."""
    return hashlib.blake2b(message.SerializeToString(deterministic=True), digest_size=8).hexdigest()
