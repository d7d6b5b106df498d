"""Looks at a replicated volume of this machine. Changes nothing; hasys/model/drbd.py understands what is said."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hasys.model import drbd
from hasys.model.drbd import Unreadable, Volume
from hasys.model.errors import HasysError

Run = Callable[[tuple[str, ...]], Awaitable[tuple[int | None, str]]]
"""Runs a program to its end: its exit status, and what it printed. May raise ``HasysError``."""


class Down(HasysError):
    """DRBD does not serve the volume on this node: nothing of it can be Primary here. The text says how to mend it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Where DRBD is found on a machine; tests bring their own."""

    proc: Path = Path("/proc/drbd")
    blocks: Path = Path("/sys/dev/block")
    folder: str = ""
    """Of its programs, with a slash at the end; empty: where programs are."""
    major: int = 147
    """Of its devices: Linux Documentation/admin-guide/devices.txt."""

    def program(self, name: str) -> str:
        return f"{self.folder}{name}"

    def minor(self, device: str) -> int | None:
        """The minor number of a device of DRBD; None: there is no such device. Raises :class:`Down`."""
        try:
            found = os.stat(device)
        except OSError:
            return None
        if not stat.S_ISBLK(found.st_mode) or os.major(found.st_rdev) != self.major:
            raise Down(f"{device} is no device of DRBD: correct spec.device, 'drbdadm sh-dev all' lists them")
        return os.minor(found.st_rdev)


async def look(resource: str, device: str, run: Run, kernel: Kernel) -> Volume:
    """The volume as it is now. Raises :class:`Down`, :class:`Unreadable`, and what ``run`` raises."""
    down = Down(f"{resource} is not up on this node: drbdadm up {resource}")
    try:
        text = kernel.proc.read_text("utf-8", "replace")
    except FileNotFoundError:
        raise Down(f"DRBD is not in this node's kernel: modprobe drbd, then drbdadm up {resource}") from None
    except OSError as e:
        raise Unreadable(f"{kernel.proc}: {e.strerror}") from None
    minor = kernel.minor(device)
    if minor is None:
        raise down
    if drbd.major_version(text) < 9:
        volume = drbd.from_proc(text, minor, _size(kernel.blocks / f"{kernel.major}:{minor}" / "size"))
    else:
        volume = drbd.from_json(await _status(resource, run, kernel), resource, minor)
    if volume is None:
        raise down
    return volume


async def _status(resource: str, run: Run, kernel: Kernel) -> str:
    code, said = await run((kernel.program("drbdsetup"), "status", resource, "--json"))
    if code == 0:
        return said
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")[:200]
    if "No such resource" in said:
        raise Down(f"{resource} is not up on this node: drbdadm up {resource}")
    raise Unreadable(f"drbdsetup status {resource}: exit status {code}{': ' + last if last else ''}")


def _size(file: Path) -> int:
    """KiB; the kernel counts sectors of 512 bytes. 0: it does not tell."""
    try:
        return int(file.read_text()) // 2
    except (OSError, ValueError):
        return 0
