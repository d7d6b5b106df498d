"""The processes of this machine, read once for all monitors that look at the same time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import anyio

from hasys.monitors.threads import Blocking

FRESH = 0.15
"""Seconds for which a scan serves whoever asks."""
YOUNG = 60.0
"""Seconds after its start in which a process may still give itself another title (nginx and others do)."""
TICKS = os.sysconf("SC_CLK_TCK")
_ARGUMENTS = 4096
"""Bytes of a command line that are looked at."""
_UNREAD = b""
"""The identity of no process: what is known under it is not settled."""


@dataclass(frozen=True, slots=True)
class Program:
    """A process that runs."""

    pid: int
    name: str
    """Of the program, as the kernel knows it: at most 15 characters."""
    command: str
    """The whole command line; of a kernel thread empty."""


class ProcessTable:
    """Shared by all monitors of an agent. ``procfs`` is /proc but in tests."""

    def __init__(self, limiter: anyio.CapacityLimiter, procfs: str = "/proc") -> None:
        self._procfs = procfs
        self._blocking = Blocking(limiter)
        self._programs: tuple[Program, ...] = ()
        self._read_at = float("-inf")
        self._lock = anyio.Lock()
        self._known: dict[int, tuple[bytes, Program]] = {}
        self.scans = 0

    @property
    def count(self) -> int:
        """Processes at the last scan."""
        return len(self._programs)

    async def read(self) -> tuple[Program, ...]:
        """The processes, as of now or a moment ago. Zombies do not count: they are dead."""
        async with self._lock:
            if anyio.current_time() >= self._read_at + FRESH:
                self._programs = await self._blocking.call(self._scan, "the list of processes")
                self._read_at = anyio.current_time()
            return self._programs

    def _scan(self) -> tuple[Program, ...]:
        self.scans += 1
        found: dict[int, tuple[bytes, Program]] = {}
        grown_up = int((time.clock_gettime(time.CLOCK_BOOTTIME) - YOUNG) * TICKS)
        for entry in os.listdir(self._procfs):
            if not entry.isdecimal():
                continue
            pid = int(entry)
            one = self._one(pid, f"{self._procfs}/{entry}", grown_up)
            if one is not None:
                found[pid] = one
        self._known = found
        return tuple(program for _, program in found.values())

    def _one(self, pid: int, folder: str, grown_up: int) -> tuple[bytes, Program] | None:
        """One process; what was known of it is used again while name, start and memory layout are the same."""
        stat = _read(f"{folder}/stat")
        if stat is None:
            return None
        head, _, rest = stat.rpartition(b")")
        fields = rest.split()
        if len(fields) < 48 or fields[0] in (b"Z", b"X"):
            return None
        name = head.partition(b"(")[2]
        # name, start time, and where its code and arguments lie: another program, or other arguments, change one
        identity = b" ".join((name, fields[19], fields[23], fields[45], fields[46]))
        known = self._known.get(pid)
        same = known is not None and known[0] == identity
        if same and (fields[0] == b"D" or int(fields[19]) < grown_up):
            return known  # to read its arguments again may hang, and they are settled
        if fields[0] == b"D":  # to read them may hang: once it runs
            return _UNREAD, Program(pid, name.decode("utf-8", "replace"), "")
        arguments = _read(f"{folder}/cmdline") or b""
        command = arguments.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        return identity, Program(pid, name.decode("utf-8", "replace"), command)


def _read(path: str) -> bytes | None:
    """A file of /proc; None when its process has gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(file, _ARGUMENTS)
    except OSError:
        return None
    finally:
        os.close(file)
