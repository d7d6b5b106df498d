"""A disk that every machine of a lab reaches: an image on the host as a loop device. And who has it mounted when.

All machines share one kernel here, so a second mount would not even hurt the file system: only the watcher tells of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hasys.lab.machine import Machine
from hasys.lab.shell import run
from hasys.model import mounts

PERIOD = 0.003
"""Seconds between two looks of the watcher."""


class SharedDisk:
    """A loop device with a fresh ext4. It goes by itself when its last user does, this process included."""

    def __init__(self, image: Path, megabytes: int = 64) -> None:
        with image.open("wb") as f:
            f.truncate(megabytes << 20)
        run("mkfs.ext4", "-q", str(image))
        self.device = run("losetup", "--find", "--show", str(image)).strip()
        self._hold = os.open(self.device, os.O_RDONLY | os.O_CLOEXEC)
        run("losetup", "--detach", self.device)  # in use: the kernel does it at the last close

    def close(self) -> None:
        os.close(self._hold)


@dataclass
class MountWatch:
    """Looks into the mount tables of machines all the time. ``held``: what changed, with its time (monotonic)."""

    machines: Sequence[Machine]
    device: str
    held: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    looks: int = 0

    def __post_init__(self) -> None:
        found = os.stat(self.device).st_rdev
        self._number = f"{os.major(found)}:{os.minor(found)}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mount-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    @property
    def now(self) -> frozenset[str]:
        """Who has it mounted."""
        return frozenset(m.name for m in self.machines if self._has(m))

    def twice(self) -> list[tuple[float, frozenset[str]]]:
        """Every moment at which more than one machine had it mounted."""
        return [(at, who) for at, who in self.held if len(who) > 1]

    def _follow(self) -> None:
        last: Mapping[str, bool] = {}
        while not self._over.wait(PERIOD):
            seen = {m.name: self._has(m) for m in self.machines}
            self.looks += 1
            if seen != last:
                last = seen
                self.held.append((time.monotonic(), frozenset(name for name, has in seen.items() if has)))

    def _has(self, machine: Machine) -> bool:
        if not machine.on or not machine.init:
            return False
        try:
            table = mounts.parse(Path(f"/proc/{machine.init}/mountinfo").read_text())
        except OSError:
            return False  # its power went
        return any(m.device == self._number for m in table)
