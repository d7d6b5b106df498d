"""Unmount a file system, whoever uses it. Blocks, so it runs in a process of its own: a fork of the guard, or a program
that the agent starts (``python -m hasys.guard.unmount``).

Who uses the mount is found by the device of what a process holds open, never by a path alone; each process is looked at
again right before its signal. Process 1, this process and those that it comes from are never killed: they are named.
A lazy unmount is no unmount: the file system would go on being written. It is not used.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hasys.model import mounts
from hasys.model.mounts import Mount

PROC = Path("/proc")
PAUSE = 0.05
"""Seconds between two attempts."""
PATIENCE = 10.0
"""Seconds after which an attempt ends unfinished; whoever started it looks and starts the next one."""


def table() -> tuple[Mount, ...]:
    """The mounts of this process's namespace. Raises ``OSError``."""
    return mounts.parse(Path(mounts.TABLE).read_text(errors="surrogateescape"))


def number_of(device: str) -> str:
    """``major:minor`` of a block device, links followed; empty when there is none."""
    try:
        found = os.stat(device)
    except OSError:
        return ""
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if stat.S_ISBLK(found.st_mode) else ""


def mounted(device: str, point: str, now: Sequence[Mount] | None = None) -> bool:
    """Is the device's file system mounted at this point, be it under another mount? Raises ``OSError``."""
    number = number_of(device)
    return any(m.point == point and mounts.is_of(m, device, number) for m in (table() if now is None else now))


@dataclass(frozen=True, slots=True)
class User:
    """A process that keeps a file system busy. ``start`` tells it from a later one with the same number."""

    pid: int
    start: int
    name: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.name})"


def users(device: int) -> list[User]:
    """The processes that have something open on the file system ``st_dev``."""
    found = (_user(int(entry.name), device) for entry in PROC.iterdir() if entry.name.isdecimal())
    return sorted((user for user in found if user is not None), key=lambda user: user.pid)


def unmount(device: str, point: str, *, kill: bool) -> str:
    """Unmount the device from the point, and what is mounted below it. Returns what is in the way; "" when done."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            now = table()
            if not mounted(device, point, now):
                return ""
            blocker = _once(now, point, kill=kill)
        except OSError as e:
            blocker = f"{point}: {e.strerror}"
        if blocker and (not kill or time.monotonic() > end):
            return blocker
        if blocker:
            time.sleep(PAUSE)


def _once(now: Sequence[Mount], point: str, *, kill: bool) -> str:
    """One attempt from the innermost mount outwards."""
    for mount in mounts.below(now, point):
        device = os.stat(mount.point).st_dev
        code = _umount(mount.point)
        if code in (0, errno.EINVAL):  # EINVAL: it is gone already
            continue
        if code != errno.EBUSY:
            return f"{mount.point}: {os.strerror(code)}"
        holding = users(device)
        spared = _ancestors()
        if kill:
            for user in holding:
                if user.pid not in spared:
                    _kill(user, device)
        named = ", ".join(map(str, holding[:5])) or "no process: a loop device, swap file, export or mount namespace"
        return f"{mount.point} is used by {named}"
    return ""


def _umount(point: str) -> int:
    """0 or the error number. Symbolic links are not followed."""
    umount_nofollow = 8
    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.umount2(os.fsencode(point), umount_nofollow) == 0 else ctypes.get_errno()


def _kill(user: User, device: int) -> None:
    """SIGKILL, if it is still that process and still holds the file system."""
    try:
        handle = os.pidfd_open(user.pid)
    except OSError:
        return
    try:
        if _user(user.pid, device) == user:  # read after the handle was taken: it is what the handle holds
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(handle)


def _user(pid: int, device: int) -> User | None:
    """The process, if it has anything open on the device."""
    try:
        name, start = _name_and_start(pid)
        if any(True for _ in _held(pid, device)):
            return User(pid, start, name)
    except (OSError, ValueError):
        return None  # it ended meanwhile
    return None


def _held(pid: int, device: int) -> Iterator[str]:
    """What of the process lies on the device."""
    folder = PROC / str(pid)
    for name in ("cwd", "root", "exe"):
        if _lies_on(folder / name, device):
            yield name
    for handle in (folder / "fd").iterdir():
        if _lies_on(handle, device):
            yield f"fd/{handle.name}"
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}"
    for line in (folder / "maps").read_text(errors="replace").splitlines():
        if line.split(None, 4)[3] == wanted:
            yield "maps"


def _lies_on(link: Path, device: int) -> bool:
    try:
        return link.stat().st_dev == device
    except OSError:
        return False


def _name_and_start(pid: int) -> tuple[str, int]:
    text = (PROC / str(pid) / "stat").read_text(errors="replace")
    name, _, rest = text.partition("(")[2].rpartition(")")
    return re.sub(r"[^ -~]", "?", name), int(rest.split()[19])


def _ancestors() -> set[int]:
    """This process, those that it comes from, and process 1."""
    found, pid = {1}, os.getpid()
    while pid > 1:
        found.add(pid)
        rest = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2]
        pid = int(rest.split()[1])
    return found


def main() -> int:
    """Exit status 0: unmounted; 1: not, and why is printed in one line."""
    parser = argparse.ArgumentParser(prog="hasys.guard.unmount", description=unmount.__doc__)
    parser.add_argument("device")
    parser.add_argument("point")
    parser.add_argument("--kill", action="store_true", help="kill the processes that use it")
    given = parser.parse_args()
    blocker = unmount(given.device, given.point, kill=given.kill)
    if blocker:
        sys.stdout.write(f"{blocker}\n")
    return 1 if blocker else 0


if __name__ == "__main__":
    sys.exit(main())
