"""Control groups (version 2): how processes of a resource are found and killed without fail, forks included.

Layout: ``<mount>/hasys.<instance>/agent`` for the agent, ``.../groups/<group>/<resource>`` for each resource. Source of
the file names: Linux Documentation/admin-guide/cgroup-v2.rst (cgroup.kill since 5.14).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio

from hasys.resources.port import Permanent, Temporary

USUAL = "/sys/fs/cgroup"
AGENT = "agent"
GROUPS = "groups"
KILL_DEADLINE = 5.0
"""Seconds that killed processes may take to vanish before they are named as the blocker."""


def find_mount(mounts: Path = Path("/proc/mounts")) -> Path:
    """Where the cgroup2 file system is mounted; below /sys/fs/cgroup if it is there, else the first place (copies in
    chroots show a part of another tree). The guard follows the same rule. Raises :class:`Permanent` without any."""
    found = [fields[1] for line in mounts.read_text().splitlines() if (fields := line.split(" "))[2:3] == ["cgroup2"]]
    for path in sorted(found, key=lambda path: not path.startswith(USUAL)):
        return Path(path.encode().decode("unicode_escape"))
    raise Permanent("cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")


def base_of(instance: str) -> Path:
    """The directory of one node's cgroups."""
    return find_mount() / f"hasys.{instance}"


class Cgroup:
    """One directory of the cgroup file system. Its calls touch kernel memory only and do not block."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def procs_file(self) -> Path:
        return self.path / "cgroup.procs"

    def create(self) -> None:
        """Make it, parents included. Raises :class:`Permanent` when the kernel refuses."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise Permanent(f"cgroup {self.path}: {e.strerror}: run as root with a writable cgroup2") from None

    def join(self) -> None:
        """Move this process in."""
        self.create()
        try:
            self.procs_file.write_text("0")
        except OSError as e:
            raise Permanent(f"cgroup {self.path}: cannot join: {e.strerror}") from None

    def pids(self) -> list[int]:
        """Processes in it and below, as seen from our pid namespace."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.path):
            try:
                found += [int(p) for p in Path(directory, "cgroup.procs").read_text().split()]
            except OSError:
                continue  # went away meanwhile: nobody is in there
        return found

    def populated(self) -> bool:
        """Does any process live in it or below? A missing directory has none."""
        try:
            return "populated 1" in (self.path / "cgroup.events").read_text()
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL to everything in it and below, forks in progress included; stopped processes too."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            return

    async def empty(self, within: float = KILL_DEADLINE) -> None:
        """Kill until nothing is left, then remove the directories. Raises :class:`Temporary` naming who stays.

        Sleeps in growing steps: cgroup.events announces changes by POLLPRI alone, which event loops do not offer.
        """
        deadline = anyio.current_time() + within
        step = 0.0005
        while self.populated():
            self.kill()
            if anyio.current_time() >= deadline:
                raise Temporary(f"killed, but still there: {', '.join(_named(self.pids())) or 'unknown process'}")
            await anyio.sleep(step)
            step = min(step * 2, 0.05)
        self.remove()

    def remove(self) -> None:
        """Remove the directory and those below. An inhabited one stays."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            try:
                os.rmdir(directory)
            except OSError:
                return

    def children(self) -> Iterator[Cgroup]:
        """The cgroups right below."""
        try:
            names = sorted(e.name for e in os.scandir(self.path) if e.is_dir())
        except OSError:
            return
        for name in names:
            yield Cgroup(self.path / name)


def _named(pids: list[int]) -> Iterator[str]:
    """``123 (postgres, state D)`` for the first few."""
    for pid in pids[:5]:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        yield f"process {pid} ({name}, state {rest.split()[0]})"
