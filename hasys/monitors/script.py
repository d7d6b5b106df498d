"""A script of the user: exit status 0 means well, and a figure that it writes may have bounds. Killed, with all that it
started, when it takes too long."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hasys.monitors.port import Check, Commands, Found
from hasys.v1 import monitors_pb2 as mpb

_NUMBER = re.compile(r"([+-]?\d{1,15}(?:\.\d{1,15})?)\s*(%?)")


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
        lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
        if ended.code == 0:
            return self._figure(lines[-1] if lines else "")
        how = f"exit status {ended.code}" if ended.code is not None and ended.code >= 0 else "killed"
        return Found(f"{spec.command[0]}: {how}", lines[-1][:200] if lines else "")

    def _figure(self, said: str) -> Found:
        """Judge the last line as a number, if there are bounds."""
        spec = self._spec
        if not spec.HasField("minimum") and not spec.HasField("maximum"):
            return Found()
        match = _NUMBER.fullmatch(said)
        if match is None:
            return Found(f"{spec.command[0]}: its last line is no number", said[:200])
        value, unit = float(match[1]), "%" if match[2] else ""
        trouble = ""
        if spec.HasField("minimum") and value < spec.minimum:
            trouble = f"{spec.command[0]}: less than {spec.minimum}{unit}"
        elif spec.HasField("maximum") and value > spec.maximum:
            trouble = f"{spec.command[0]}: more than {spec.maximum}{unit}"
        return Found(trouble, said[:200] if trouble else "", value=value, unit=unit)
