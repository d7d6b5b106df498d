"""Runs the programs of monitors: in cgroups of their own, and with an end.

What a look needs lives below the agent's cgroup and is killed when it has ended or was given up. What a restart command
starts belongs to the group: it stays, and the guard's plan names it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from hasys.guard.protocol import CgroupEntry, Entry
from hasys.model.errors import HasysError
from hasys.monitors.port import Ended
from hasys.reconciler.cache import Cache
from hasys.resources import process
from hasys.resources.cgroup import Cgroup
from hasys.resources.leftovers import Leftovers
from hasys.resources.port import Temporary
from hasys.resources.process import Command

TAIL = 64 * 1024
"""Bytes kept of what a program prints: enough for what drbdsetup says of a volume on many nodes."""
KILL = 1.0
"""Seconds in which a killed program should be gone; one that is not (hung storage) is left behind and named."""


class Commands:
    """Of one monitor; it runs one at a time. ``keep``: what a program leaves running when it has ended well stays."""

    def __init__(self, cgroup: Cgroup, *, keep: bool = False) -> None:
        self._cgroup = cgroup
        self._keep = keep

    async def run(
        self, argv: Sequence[str], *, user: str = "root", directory: str = "/", env: Mapping[str, str] | None = None
    ) -> Ended:
        """See :class:`hasys.monitors.port.Commands`."""
        if not self._keep and self._cgroup.populated():
            self._cgroup.kill()
            raise HasysError(f"{argv[0]}: the last one still hangs and cannot be killed")
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        printed = bytearray()
        done = False
        try:
            # opened anew by the program, for reading too: it never dies of a pipe that nobody reads
            path = Path(f"/proc/self/fd/{writing}")
            running = await process.start(Command(tuple(argv), user, directory, env or {}), self._cgroup, path)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_collect, reading, printed)
                    await running.wait()
                    tasks.cancel_scope.cancel()
                done = running.code == 0
            finally:
                if not (self._keep and done):
                    await self._end(running)
        finally:
            with contextlib.suppress(OSError):
                _take(reading, printed)
            os.close(reading)
            os.close(writing)
        return Ended(running.code, printed.decode("utf-8", "replace").replace("\0", ""))

    async def _end(self, running: process.Process) -> None:
        """Kill it and all that it started."""
        running.signal(9)
        with anyio.move_on_after(KILL, shield=True), contextlib.suppress(Temporary):
            await self._cgroup.empty(KILL)
            await running.wait()


async def _collect(reading: int, printed: bytearray) -> None:
    while True:
        await anyio.wait_readable(reading)
        _take(reading, printed)
        await anyio.sleep(0.02)  # a flood waits: the pipe is its bound


def _take(reading: int, printed: bytearray) -> None:
    with contextlib.suppress(BlockingIOError):
        printed += os.read(reading, 65536)
    del printed[:-TAIL]


def left_by_commands(cache: Cache, leftovers: Leftovers, group: str) -> tuple[Entry, ...]:
    """What restart commands of a group's monitors may leave running, for the guard to undo."""
    return tuple(
        CgroupEntry(str(leftovers.cgroup(group, name)), name)
        for name, monitor in sorted(cache.monitors(group).items())
        if monitor.spec.restart.command
    )
