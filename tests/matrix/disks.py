"""Disks of a lab's members that fill up, hang, or forget at a power loss what was not synced."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hasys.lab.cluster import Cluster
from hasys.lab.shell import run
from tests.chaos.powercuts import Disks

SMALL = 4 * 1024 * 1024
"""Bytes of a disk that fills up."""


def data_of(cluster: Cluster, member: str) -> Path:
    """Where a member keeps its log."""
    return cluster.folder / member / "data"


@contextmanager
def small_disk(cluster: Cluster, member: str) -> Iterator[Path]:
    """A member's data on a small file system of its own. Made before the member is switched on."""
    folder = data_of(cluster, member)
    folder.mkdir(mode=0o700)
    run("mount", "-t", "tmpfs", "-o", f"size={SMALL},mode=700", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        run("umount", "-l", str(folder))


class FlakyDisks(Disks):
    """A disk for each member, all served by one process. Made before the members are switched on."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.folder)
        for member, disk in zip(cluster.members, self.folders.values(), strict=True):
            data_of(cluster, member).symlink_to(disk)

    def hang(self) -> None:
        """Nothing is answered until :meth:`go_on`: neither success nor an error."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)
