"""Which process has a role of this node: a lock that dies with its holder, its pid, and the start time that proves it.

Pids are reused; pid and start time together are not (within one boot). The lock is taken by the process that has the
role, whoever started it, so that two stores, agents or guards of one node can never run beside each other.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from hasys.files import private_folder
from hasys.model.errors import Refused


class AlreadyRuns(Refused):
    """Another process has this role."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told apart from every later one with the same pid."""

    pid: int
    start_time: int
    """Clock ticks after boot, field 22 of /proc/PID/stat."""

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The living process with this pid, or None. A zombie does not live."""
        state, identity = cls._read(pid)
        return None if state in (b"Z", b"X") else identity

    @classmethod
    def of_child(cls, pid: int) -> Identity:
        """A child of this process that nobody has waited for: it is itself although it may have ended."""
        _, identity = cls._read(pid)
        assert identity is not None, "its entry stays until somebody waits for it"
        return identity

    @classmethod
    def _read(cls, pid: int) -> tuple[bytes, Identity | None]:
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return b"X", None
        fields = stat[stat.rindex(b")") + 2 :].split()
        return fields[0], cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self


@dataclass(frozen=True, slots=True)
class Taken:
    """A role that was taken."""

    by: Identity
    starts: int
    """How often it was taken, this time included."""


class RoleLock:
    """Held by the process itself for as long as it lives."""

    def __init__(self, run_dir: Path, role: str) -> None:
        self.role = role
        self.path = run_dir / f"{role}.pid"
        self._descriptor = -1

    def take(self) -> None:
        """Become the one with this role, until the process ends. Raises :class:`AlreadyRuns`."""
        private_folder(self.path.parent)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            holder = self.holder()
            who = f"pid {holder.pid}" if holder else "another process"
            raise AlreadyRuns(f"the {self.role} of this node runs already ({who}, {self.path})") from None
        me = Identity.of(os.getpid())
        assert me is not None
        record = {"pid": me.pid, "startTime": me.start_time, "starts": self.starts() + 1}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(record).encode() + b"\n", 0)
        self._descriptor = descriptor

    def holder(self) -> Identity | None:
        """The living process that has the role; None also while it is just taking it."""
        return self.recorded() if self.held() else None

    def recorded(self) -> Identity | None:
        """The living process that took the role last. Does not touch the lock: it may be asked as often as one likes,
        beside a process that is just taking it."""
        found = self.taken()
        return found.by if found and found.by.alive else None

    def taken(self) -> Taken | None:
        """What the process that took the role last wrote, dead or alive; None: nothing that can be read."""
        try:
            record = json.loads(self.path.read_bytes())
            found = Taken(Identity(int(record["pid"]), int(record["startTime"])), int(record.get("starts", 0)))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return found if found.by.pid > 0 else None

    def starts(self) -> int:
        """How often the role was taken since the run directory was made: at boot, on most systems."""
        found = self.taken()
        return found.starts if found else 0

    def held(self) -> bool:
        """Does a living process have the role?"""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)
