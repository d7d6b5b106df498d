"""``hasys run``: commands of an administrator on this node, and fence agents against a lost one. Each at most once,
bounded in time and output.

Independent of groups and leases: what is run here is the administrator's own act, and the history says whose.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from hasys.api.kinds import runner_of
from hasys.model.errors import HasysError
from hasys.reconciler.ports import Report
from hasys.resources import fence_agent, output, scripts
from hasys.resources.cgroup import Cgroup
from hasys.resources.output import Outputs
from hasys.resources.process import Command
from hasys.resources.records import Records
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)

PLACE = ".run"
"""Where records and output are kept: no group can have this name."""
AGAIN = 1.0
"""Seconds until a result is told again."""
AT_ONCE = 8
"""Commands that run side by side; more wait."""
TIMEOUT = 60.0
"""Seconds for a command when the operation says nothing."""


class OwnProcesses(Protocol):
    """hasys's own processes on this node: :class:`hasys.reconciler.own.Own`."""

    def pid(self, role: str) -> int: ...
    async def restart(self, role: str) -> str: ...


class Runs:
    """One per agent. ``base`` is the agent's own cgroup: what runs here dies with a fenced agent."""

    def __init__(
        self,
        node: str,
        base: Cgroup,
        records: Records,
        outputs: Outputs,
        report: Callable[[Report], Awaitable[Sequence[str]]],
        own: OwnProcesses,
    ) -> None:
        self._node = node
        self._base = base
        self._records = records
        self._outputs = outputs
        self._report = report
        self._own = own
        self._known: set[str] = set()
        self._room = anyio.CapacityLimiter(AT_ONCE)

    async def follow(self, operations: AsyncIterator[pb.Operation]) -> None:
        """Run what is asked of this node, until cancelled."""
        async with anyio.create_task_group() as tasks:
            async for operation in operations:
                self._look(operation, tasks)

    def _look(self, operation: pb.Operation, tasks: TaskGroup) -> None:
        name, spec, status = operation.metadata.name, operation.spec, operation.status
        if runner_of(spec) != self._node:
            return
        if status.state in ("Succeeded", "Failed"):
            self._known.discard(name)
            self._records.forget(PLACE, name)
        elif status.state == "Running" and not status.run.outcome and name not in self._known:
            self._known.add(name)
            tasks.start_soon(self._run, name, spec)

    async def _run(self, name: str, spec: pb.OperationSpec) -> None:
        async with self._room:
            if (begun := self._records.read(PLACE, name)) is not None:
                result = self._found_again(spec, begun.get("pid"))
            else:
                self._records.write(PLACE, name, {"command": list(spec.command), "pid": self._own.pid(spec.role)})
                result = await self._done(name, spec)
        await self._tell(api_pb2.RunReport(operation=name, result=result))

    def _found_again(self, spec: pb.OperationSpec, pid: object) -> pb.RunResult:
        """An agent before this one had begun it. ``pid``: of the process that was to be restarted; our own, perhaps."""
        now = self._own.pid(spec.role) if spec.type == pb.OperationSpec.RestartProcess else 0
        if now and now != pid:
            return pb.RunResult(outcome=f"pid {pid} ended, pid {now} took over", exited=True)
        return pb.RunResult(outcome="the agent ended while it ran: how it ended is not known")

    async def _done(self, name: str, spec: pb.OperationSpec) -> pb.RunResult:
        if spec.type == pb.OperationSpec.Fence:
            return await self._fence(spec)
        if spec.type == pb.OperationSpec.Run:
            return await self._result(name, spec)
        log.warning("%s restarts the %s", spec.actor, spec.role)
        try:
            return pb.RunResult(outcome=await self._own.restart(spec.role), exited=True)
        except HasysError as e:
            return pb.RunResult(outcome=str(e))

    async def _fence(self, spec: pb.OperationSpec) -> pb.RunResult:
        log.warning("fencing %s: %s", spec.node, spec.reason)
        try:
            done = await fence_agent.fence(spec.fencing)
        except fence_agent.Failed as e:
            log.error("%s is not fenced: %s", spec.node, e)
            return pb.RunResult(outcome=str(e), exited=True, exit_code=1)
        return pb.RunResult(outcome=done, exited=True)

    async def _result(self, name: str, spec: pb.OperationSpec) -> pb.RunResult:
        log.warning("%s runs %s as %s", spec.actor, list(spec.command), spec.user or "root")
        file = self._outputs.file(PLACE, name)
        timeout = spec.timeout.ToNanoseconds() / 1e9 if spec.HasField("timeout") else TIMEOUT
        try:
            command = Command(tuple(spec.command), spec.user or "root")
            ended = await scripts.run(command, Cgroup(self._base.path / f"run.{name}"), output.pipe_of(file), timeout)
        except HasysError as e:
            return pb.RunResult(outcome=str(e))
        finally:
            self._outputs.drain(file)
            said = output.tail(file)
            self._outputs.forget(file)
        exited = ended.code is not None
        return pb.RunResult(outcome=ended.cause, exited=exited, exit_code=ended.code or 0, output=said)

    async def _tell(self, result: api_pb2.RunReport) -> None:
        """Until it is accepted or refused for good."""
        while True:
            try:
                for line in await self._report(Report(runs=(result,))):
                    log.warning("result refused: %s", line)
                return
            except HasysError as e:
                log.info("a result is not reported yet: %s", e)
                await anyio.sleep(AGAIN)
