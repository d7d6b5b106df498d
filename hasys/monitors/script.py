"""A script of the user: exit status 0 means well. Killed, with all that it started, when it takes too long."""

from __future__ import annotations

from collections.abc import Mapping

from hasys.monitors.port import Check, Commands, Found
from hasys.v1 import monitors_pb2 as mpb


class ScriptCheck(Check):
    """See the module."""

    def __init__(self, spec: mpb.ScriptMonitor, commands: Commands, environment: Mapping[str, str]) -> None:
        self._spec = spec
        self._commands = commands
        self._environment = {**environment, **spec.env}

    async def look(self) -> Found:
        spec = self._spec
        ended = await self._commands.run(
            tuple(spec.command),
            user=spec.user or "root",
            directory=spec.working_directory or "/",
            env=self._environment,
        )
        if ended.code == 0:
            return Found()
        how = f"exit status {ended.code}" if ended.code is not None and ended.code >= 0 else "killed"
        lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
        return Found(f"{spec.command[0]}: {how}", lines[-1][:200] if lines else "")
