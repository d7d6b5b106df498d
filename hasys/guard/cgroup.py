"""Control groups (version 2) of one node: where they are, whether anything runs in them, and how it ends.

``<mount>/hasys.<instance>/agent`` holds the agent and its helpers, ``.../groups/<group>/<resource>`` the processes of a
resource. ``cgroup.kill`` (Linux 5.14) works on stopped processes and on those that fork meanwhile.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

MOUNTS = Path("/proc/mounts")
USUAL = "/sys/fs/cgroup"


def mount(mounts: Path = MOUNTS) -> Path | None:
    """Where the unified hierarchy is mounted; None when it is not. Below /sys/fs/cgroup if it is there, else the first
    place: copies in chroots show a part of another tree. The agent follows the same rule."""
    found = [fields[1] for line in mounts.read_text().splitlines() if (fields := line.split())[2:3] == ["cgroup2"]]
    for path in sorted(found, key=lambda path: not path.startswith(USUAL)):
        return Path(path.encode().decode("unicode_escape"))
    return None


def base(root: Path, instance: str) -> Path:
    """The node's part of the hierarchy."""
    return root / f"hasys.{instance}"


def populated(path: str | Path) -> bool:
    """Whether any process lives in the group or below. A group that does not exist is empty."""
    try:
        return b"populated 1" in Path(path, "cgroup.events").read_bytes()
    except (FileNotFoundError, OSError) as e:
        if isinstance(e, FileNotFoundError) or e.errno == 19:  # ENODEV: removed while it was read
            return False
        raise


def kill(path: str | Path) -> None:
    """SIGKILL for everything in the group and below; returns before they are dead. Raises ``OSError``."""
    try:
        Path(path, "cgroup.kill").write_text("1")
        return
    except FileNotFoundError:
        if not os.path.exists(path):
            return
    for pid in processes(path):  # before Linux 5.14
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def processes(path: str | Path) -> list[int]:
    """The processes in the group and below, as this process's namespace numbers them (0: not visible in it)."""
    found: list[int] = []
    for folder, _, _ in os.walk(path):
        try:
            found += [int(line) for line in Path(folder, "cgroup.procs").read_text().split()]
        except OSError:
            continue  # removed while it was read
    return [pid for pid in found if pid]


def contains_me(path: str | Path) -> bool:
    """Whether the calling process is in the group or below: then it must never be killed by us."""
    return os.getpid() in processes(path)


def remove(path: str | Path) -> None:
    """Remove an empty group and those below it; one that is in use stays."""
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            continue
