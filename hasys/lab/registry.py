"""Who made what: every lab leaves a record on the host, so that the next one can clear away what a killed one left.

A lab owns exactly: its folder ``/run/hasys-lab/<id>``, network namespaces ``hl-<id>-*``, the cgroup ``hasys-lab.<id>``
and the folder ``/var/tmp/hasys-lab.<id>``. Nothing else is ever removed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hasys.lab.shell import LabError, run

ROOT = Path("/run/hasys-lab")
NETNS = Path("/run/netns")
DIES = 5.0
"""Seconds within which a killed cgroup is empty."""


def cgroup_mount() -> Path:
    """Where this host has its cgroup v2 tree. Raises :class:`LabError` when there is none."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(target)
    raise LabError("no cgroup v2 tree is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")


def start_time(pid: int) -> int | None:
    """Start time of a living process in ticks since boot: with the pid it names a process for good. None: gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True, slots=True)
class Record:
    """One lab's claim to its things."""

    id: str

    @property
    def folder(self) -> Path:
        return ROOT / self.id

    @property
    def cgroup(self) -> Path:
        return cgroup_mount() / f"hasys-lab.{self.id}"

    @property
    def data(self) -> Path:
        """Machines' disks: on a real file system, and kept while a machine is off."""
        return Path("/var/tmp") / f"hasys-lab.{self.id}"  # noqa: S108  claimed with mkdir, mode 0700, by root

    def netns(self, name: str) -> str:
        return f"hl-{self.id}-{name}"

    def orphaned(self) -> bool:
        """Its owner is gone and did not ask to keep it."""
        if (self.folder / "keep").exists():
            return False
        try:
            pid, started = map(int, (self.folder / "owner").read_text().split())
        except (OSError, ValueError):
            return self._age() > 60  # half made: the owner died within claim()
        return start_time(pid) != started

    def _age(self) -> float:
        """Seconds since the folder changed; 0 when it has just been removed."""
        try:
            return time.time() - self.folder.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self) -> None:
        """Remove everything this lab owns. Repeating it is harmless."""
        kill_cgroup(self.cgroup)
        if NETNS.is_dir():
            for path in NETNS.glob(f"hl-{self.id}-*"):
                run("ip", "netns", "del", path.name)
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def claim() -> Record:
    """Make a new lab's record, owned by this process."""
    ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        record = Record(secrets.token_hex(2))
        try:
            record.folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        (record.folder / "owner").write_text(f"{os.getpid()} {start_time(os.getpid())}\n")
        record.data.mkdir(mode=0o700)
        record.cgroup.mkdir()
        return record


def clear_stale() -> list[str]:
    """Remove what labs of dead processes left behind; returns their ids."""
    if not ROOT.is_dir():
        return []
    with _alone():
        stale = [r for r in (Record(p.name) for p in ROOT.iterdir()) if r.orphaned()]
        for record in stale:
            record.remove()
        return [r.id for r in stale]


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time: labs that start together would remove the same things under each other's hands."""
    folder = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def kill_cgroup(path: Path) -> None:
    """Kill every process below ``path`` and remove the tree. Raises :class:`LabError` when something does not die."""
    if not path.is_dir():
        return
    (path / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + DIES
    while "populated 1" in (path / "cgroup.events").read_text():
        if time.monotonic() > deadline:
            raise LabError(f"{path}: processes {pids_below(path)} did not die within {DIES:g} s")
        time.sleep(0.002)
    for folder, _, _ in os.walk(path, topdown=False):
        os.rmdir(folder)


def pids_below(path: Path) -> list[int]:
    """Process ids (as the host numbers them) in a cgroup and all below it."""
    pids: list[int] = []
    for folder, _, _ in os.walk(path):
        try:
            pids += map(int, (Path(folder) / "cgroup.procs").read_text().split())
        except OSError:  # removed while we walked
            continue
    return pids


if __name__ == "__main__":  # how a kept lab's script removes it
    for lab_id in sys.argv[1:]:
        Record(lab_id).remove()
