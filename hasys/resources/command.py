"""Command: a step of the flow that runs a command to its end, once per start; and its counterpart at the stop.

Once per epoch: an agent that restarts, and a retry of other steps, do not run it again. What it leaves running belongs
to it and ends with it. The undo runs for every command that was begun, however it ended.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio

from hasys.model.errors import HasysError
from hasys.resources import output, scripts, settings
from hasys.resources.cgroup import Cgroup
from hasys.resources.port import CgroupTrace, Driver, State, Surroundings, Temporary, Trace
from hasys.resources.service import Home, command_of
from hasys.resources.supervised import programs_of
from hasys.v1 import objects_pb2


class Command(Driver):
    """See the module."""

    kind = "Command"

    def __init__(self, around: Surroundings, spec: objects_pb2.CommandSpec, home: Home) -> None:
        super().__init__(around)
        self._spec = spec
        self._home = replace(home, programs=programs_of(objects_pb2.CommandSpec(run=spec.run, undo=spec.undo)))

    def traces(self) -> tuple[Trace, ...]:
        return (CgroupTrace(str(self._home.cgroup.path)),)

    async def adopt(self) -> bool:
        record = self._home.remembered()
        return record.get("command") == "done" and self._home.is_now(record)

    def continues(self, earlier: Driver) -> bool:
        return isinstance(earlier, Command) and earlier._home.programs == self._home.programs

    def take_over(self, earlier: Driver) -> None:
        super().take_over(earlier)
        if isinstance(earlier, Command) and (known := earlier._home.remembered()):
            self._home.remember(command=known.get("command"))

    async def run(self) -> None:
        if not await self.adopt():
            self.become(State.STARTING)
            await self.around.permitted()
            await self._home.cgroup.empty()
            self._home.remember(command="begun")
            if not await self._do(self._spec.run, self._home.cgroup, "command"):
                return
            self._home.remember(command="done")
        self.become(State.RUNNING)
        await anyio.sleep_forever()

    def kill(self) -> None:
        self._home.cgroup.kill()

    async def stop(self, *, force: bool) -> None:
        if self._spec.HasField("undo") and not force and self._home.remembered():
            await self._home.cgroup.empty()
            self._home.outputs.drain(self._file)
            if not await self._do(self._spec.undo, self._home.helpers, "undo"):
                self.around.record("UndoFailed", self.condition.message)
                if self._spec.on_start_failure != objects_pb2.Continue:
                    raise Temporary(self.condition.message)
        await self._home.cgroup.empty()
        self._home.forget()

    async def _do(self, script: objects_pb2.Script, cgroup: Cgroup, name: str) -> bool:
        """Run it to its end; what it said and how it ended stand in the condition."""
        limit = settings.seconds(script, "timeout")
        keep = cgroup is self._home.cgroup
        failed = State.FAILED if keep else self.condition.state
        try:
            pipe = output.pipe_of(self._file)
            # Not cancelled half way: it may have a half-made world to finish. Its own timeout bounds it.
            with anyio.CancelScope(shield=True):
                ended = await scripts.run(command_of(script, self._home), cgroup, pipe, limit, keep=keep)
        except HasysError as e:
            self.become(failed, f"{name}: {e}")
            return False
        self._home.outputs.drain(self._file)
        said = output.tail(self._file)
        if ended.code == 0:
            self.become(self.condition.state, "", exit_code=0, output=said)
            return True
        last = output.last_line(self._file)
        message = f"{name} {ended.cause}{': ' + last if last else ''}"
        self.become(failed, message, exit_code=ended.code, output=said)
        return False

    @property
    def _file(self) -> Path:
        return self._home.outputs.file(self._home.place.group, self._home.place.name)
