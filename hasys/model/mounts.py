"""The kernel's table of mounts, as text and as values. Pure. Source: Linux Documentation/filesystems/proc.rst, 3.5."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TABLE = "/proc/self/mountinfo"
"""The table of the mount namespace that a process lives in."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table."""

    device: str
    """``major:minor`` of the file system."""
    point: str
    source: str
    """What was mounted, as it was named: ``/dev/sdb1``, ``tmpfs``."""
    writable: bool
    """Neither the mount nor the file system below it is read-only."""


def parse(text: str) -> tuple[Mount, ...]:
    """The mounts in the order in which they were made; lines of another form are left out."""
    found = []
    for line in text.splitlines():
        own, dash, super_block = line.partition(" - ")
        fields, below = own.split(" "), super_block.split(" ")
        if dash and len(fields) >= 6 and len(below) >= 3:
            writable = "ro" not in fields[5].split(",") and "ro" not in below[2].split(",")
            found.append(Mount(fields[2], _plain(fields[4]), _plain(below[1]), writable))
    return tuple(found)


def at(mounts: Iterable[Mount], point: str) -> Mount | None:
    """What is seen at a mount point: the last one mounted there."""
    return next((m for m in reversed(tuple(mounts)) if m.point == point), None)


def below(mounts: Iterable[Mount], point: str) -> tuple[Mount, ...]:
    """The mounts at and below a point, in the order in which they can be unmounted."""
    return tuple(m for m in reversed(tuple(mounts)) if f"{m.point}/".startswith(f"{point}/"))


def is_of(mount: Mount, device: str, number: str) -> bool:
    """Does the mount show the file system of this device? ``number``: its ``major:minor``, empty when it is gone."""
    return mount.device == number if number else mount.source == device


def _plain(text: str) -> str:
    """Spaces and the like are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
