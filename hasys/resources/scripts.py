"""Runs a program to its end, within its time, and says how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import anyio

from hasys.resources import process
from hasys.resources.cgroup import Cgroup
from hasys.resources.process import Command, Process


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended; ``code`` None: it did not end within its time and was killed."""

    code: int | None
    timeout: float

    @property
    def cause(self) -> str:
        """In words, for "start script ..."."""
        return f"did not end within {self.timeout:g} s" if self.code is None else process.ended(self.code)


async def run(command: Command, cgroup: Cgroup, pipe: Path, timeout: float, *, keep: bool = False) -> Ended:
    """Run it in the cgroup with its output going to ``pipe``; ``keep``: what it leaves running stays, if it ended.

    Raises ``Permanent`` or ``Temporary`` when it cannot be started. Cancelled: it is killed.
    """
    running = await process.start(command, cgroup, pipe)
    try:
        with anyio.move_on_after(timeout) as waiting:
            await running.wait()
    finally:
        if not running.over or not keep:
            await _end(running, cgroup)
    return Ended(None if waiting.cancelled_caught else running.code, timeout)


async def _end(running: Process, cgroup: Cgroup) -> None:
    """Kill a script that was given up, and all that it started in its process group and cgroup."""
    with anyio.CancelScope(shield=True):
        with contextlib.suppress(ProcessLookupError):
            if not running.over:  # else the number may mean another group by now
                os.killpg(running.pid, signal.SIGKILL)
        await cgroup.empty()
        await running.wait()
