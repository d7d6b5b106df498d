"""Application: a program that runs while this node has the group. Restarted in place before a failover."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import anyio

from hasys.model.errors import HasysError
from hasys.resources import output, settings
from hasys.resources.port import CgroupTrace, Driver, Permanent, State, Surroundings, Trace
from hasys.resources.restart import RestartPolicy
from hasys.resources.service import Ending, Foreground, Home, Scripted, Service, StartFailed
from hasys.v1 import objects_pb2


class Application(Driver):
    """See the module."""

    kind = "Application"

    def __init__(
        self,
        around: Surroundings,
        spec: objects_pb2.ApplicationSpec,
        home: Home,
    ) -> None:
        super().__init__(around)
        self._programs = _programs(spec)
        home = replace(home, programs=self._programs)
        self._service: Service = Foreground(home, spec.run) if spec.HasField("run") else Scripted(home, spec)
        self._cgroup = home.cgroup
        restart = spec.restart
        self._policy = RestartPolicy(
            retries=settings.retries(spec),
            start_time=settings.seconds(restart, "start_time"),
            backoff=settings.seconds(restart, "backoff"),
        )

    def traces(self) -> tuple[Trace, ...]:
        return (CgroupTrace(str(self._cgroup.path)),)

    async def adopt(self) -> bool:
        return await self._service.adopt()

    def continues(self, earlier: Driver) -> bool:
        return isinstance(earlier, Application) and earlier._programs == self._programs

    def take_over(self, earlier: Driver) -> None:
        super().take_over(earlier)
        if isinstance(earlier, Application):
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
        self._cgroup.kill()

    async def stop(self, *, force: bool) -> None:
        await self._service.stop(force=force)

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


def _programs(spec: objects_pb2.ApplicationSpec) -> str:
    """Changes when what is run changes; not with restart limits, check interval or the flow."""
    programs = objects_pb2.ApplicationSpec(start=spec.start, stop=spec.stop, status=spec.status)
    if spec.HasField("run"):
        programs = objects_pb2.ApplicationSpec(run=spec.run)
    return hashlib.blake2b(programs.SerializeToString(deterministic=True), digest_size=8).hexdigest()
