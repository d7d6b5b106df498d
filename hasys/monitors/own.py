"""hasys's own processes on this node, as the agent sees them. The agent itself looks, so it is alive."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hasys.api.convert import duration
from hasys.monitors.port import Check, Found, Machine, judged
from hasys.processes import RoleLock
from hasys.v1 import monitors_pb2 as mpb

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class HasysCheck(Check):
    """See the module."""

    def __init__(self, spec: mpb.HasysMonitor, machine: Machine) -> None:
        self._names = [mpb.HasysMonitor.Process.Name(one) for one in spec.processes if one]
        self._machine = machine

    async def look(self) -> Found:
        known = await self._machine.own()
        return judged(mpb.All, {name: known.get(name, "") for name in self._names or known})


def processes(run_dir: Path, roles: Sequence[str]) -> Iterator[mpb.OwnProcess]:
    """This node's own processes, those that do not run with pid 0; the supervisor only where there is one."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    for role in ("supervisor", *roles):
        taken = RoleLock(run_dir, role).taken()
        if taken is None or not taken.by.alive:
            if role != "supervisor":
                yield mpb.OwnProcess(role=role)
            continue
        one = mpb.OwnProcess(role=role, pid=taken.by.pid, restarts=max(0, taken.starts - 1))
        one.uptime.CopyFrom(duration(max(0, round(now - taken.by.start_time / _TICKS))))
        one.memory = _resident(taken.by.pid)
        yield one


def _resident(pid: int) -> int:
    """Bytes; 0 when it ended meanwhile."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
