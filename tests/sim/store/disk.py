"""A disk that fails as well as it forgets: a sync that returns an error, no space left in the middle of a write."""

from __future__ import annotations

import errno

from tests.sim.raft_disk import SimulatedDisk


class FailingDisk(SimulatedDisk):
    """``full_after``: bytes until there is no space left. ``sync_fails``: so many syncs fail from now on."""

    full_after: int | None = None
    sync_fails = 0

    def append(self, name: str, data: bytes) -> None:
        super().append(name, self._fitting(data))
        self._say_full()

    def create(self, name: str, data: bytes) -> None:
        super().create(name, self._fitting(data))
        self._say_full()

    def sync(self, name: str) -> None:
        """What was written before a failed sync stays readable, but is on no disk: only new files are safe again."""
        if self.sync_fails > 0:
            self.sync_fails -= 1
            raise OSError(errno.EIO, "Input/output error")
        super().sync(name)

    def repaired(self) -> None:
        """Space was made, the cable was changed."""
        self.full_after, self.sync_fails = None, 0

    def _fitting(self, data: bytes) -> bytes:
        if self.full_after is None:
            return data
        fitting = data[: self.full_after]
        self.full_after -= len(data)
        return fitting

    def _say_full(self) -> None:
        if self.full_after is not None and self.full_after < 0:
            self.full_after = 0
            raise OSError(errno.ENOSPC, "No space left on device")
