"""Processes by name, or by a pattern of the whole command line: is each one (or any one) there?"""

from __future__ import annotations

import fnmatch
import re

from hasys.monitors.port import Check, Found, judged
from hasys.monitors.processes import ProcessTable, Program
from hasys.v1 import monitors_pb2 as mpb

KERNEL_NAME = 15
"""Characters that the kernel keeps of a name."""


class Wanted:
    """A name, or a pattern in which ``*`` and ``?`` stand for anything, as in a shell."""

    def __init__(self, *, name: str = "", pattern: str = "") -> None:
        self.text = name or pattern
        self._name = name[:KERNEL_NAME]
        self._pattern = re.compile(fnmatch.translate(pattern)) if pattern else None

    def matches(self, program: Program) -> bool:
        if self._pattern is not None:
            return self._pattern.match(program.command) is not None
        return program.name == self._name


class ProcessCheck(Check):
    """See the module."""

    def __init__(self, spec: mpb.ProcessMonitor, table: ProcessTable) -> None:
        self._rule = spec.need
        self._wanted = [Wanted(name=name) for name in spec.names] + [Wanted(pattern=text) for text in spec.patterns]
        self._table = table

    async def look(self) -> Found:
        programs = await self._table.read()
        troubles = {
            wanted.text: "" if any(map(wanted.matches, programs)) else f"no process {wanted.text}"
            for wanted in self._wanted
        }
        return judged(self._rule, troubles)


class ProcessCountCheck(Check):
    """How many processes of a name or pattern there are."""

    def __init__(self, spec: mpb.ProcessCountMonitor, table: ProcessTable) -> None:
        self._wanted = Wanted(name=spec.name, pattern=spec.pattern)
        self._minimum = spec.minimum if spec.HasField("minimum") else 0
        self._maximum = spec.maximum if spec.HasField("maximum") else None
        self._table = table

    async def look(self) -> Found:
        count = sum(map(self._wanted.matches, await self._table.read()))
        trouble = ""
        if count < self._minimum:
            trouble = f"fewer than {self._minimum} processes {self._wanted.text}"
        elif self._maximum is not None and count > self._maximum:
            trouble = f"more than {self._maximum} processes {self._wanted.text}"
        return Found(trouble, f"{count} found", float(count), "processes")
