"""The file systems of this machine, as a driver needs them: read from the kernel, never remembered."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Protocol

import anyio

from hasys.model import mounts
from hasys.model.mounts import Mount


class Mounts(Protocol):
    """What a driver may ask; tests bring their own."""

    def table(self) -> tuple[Mount, ...]: ...

    def number(self, device: str) -> str:
        """``major:minor`` of the block device; empty when there is none."""
        ...

    def in_use(self, device: str) -> bool:
        """Has anything on this machine claimed the device: a mount in any namespace, a volume manager, swap?"""
        ...

    async def unmount(self, device: str, point: str, *, kill: bool) -> str:
        """Unmount the device from the point; ``kill``: and kill who uses it. Returns what is in the way."""
        ...


class KernelMounts:
    """The mount table of the agent's namespace."""

    def table(self) -> tuple[Mount, ...]:
        return mounts.parse(Path(mounts.TABLE).read_text(errors="surrogateescape"))

    def number(self, device: str) -> str:
        try:
            found = os.stat(device)
        except OSError:
            return ""
        return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if stat.S_ISBLK(found.st_mode) else ""

    def in_use(self, device: str) -> bool:
        # O_EXCL without O_CREAT on a block device fails while it is claimed: open(2).
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as e:
            return e.errno == errno.EBUSY
        return False

    async def unmount(self, device: str, point: str, *, kill: bool) -> str:
        if not self._mounted(device, point):
            return ""
        await anyio.run_process(("umount", "--", point), check=False)
        if not self._mounted(device, point):
            return ""
        # Looking for its users may block on a hung disk, and killing must not outlive a fenced agent: both happen in a
        # process of the agent's cgroup. The guard does the same in its own way, with the same code.
        helper = (sys.executable, "-I", "-m", "hasys.guard.unmount", *(["--kill"] if kill else []), device, point)
        done = await anyio.run_process(helper, check=False)
        if done.returncode == 0:
            return ""
        said = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()
        return said[-1][:500] if said else f"{point} does not unmount"

    def _mounted(self, device: str, point: str) -> bool:
        number = self.number(device)
        return any(m.point == point and mounts.is_of(m, device, number) for m in self.table())
