"""ReplicatedVolume: a file system on a volume of DRBD, promoted and mounted while this node has the group.

Two guards stand in a row. Who may mount it at all is decided by the grant, as for a SharedDisk (shared_disk.py), and a
fence unmounts it. Whether the data here may be used is decided by DRBD: it is promoted only with an UpToDate local
disk and never by force, and DRBD itself refuses while another connected node is Primary. A fence does not demote,
which would need the tools of DRBD in the guard: an agent does it when it cleans up; until then DRBD holds others back.
"""

from __future__ import annotations

import anyio

from hasys.drbd import Down
from hasys.model.drbd import HOPELESS
from hasys.model.errors import HasysError
from hasys.model.mounts import Mount
from hasys.resources import settings
from hasys.resources.drbd import Drbd
from hasys.resources.mounts import Mounts
from hasys.resources.port import Driver, Permanent, State, Surroundings, Temporary
from hasys.resources.service import Home
from hasys.resources.shared_disk import WATCH_PERIOD, SharedDisk
from hasys.v1 import objects_pb2

AGAIN = 0.5
"""Seconds between attempts to promote."""
REPLICATION_LOOKS = 5
"""Looks at the mount table for one at the replication: seconds, as it happens."""


class ReplicatedVolume(SharedDisk):
    """See the module."""

    kind = "ReplicatedVolume"

    def __init__(
        self, around: Surroundings, spec: objects_pb2.ReplicatedVolumeSpec, home: Home, mounts: Mounts, drbd: Drbd
    ) -> None:
        super().__init__(around, spec, home, mounts)
        self._drbd = drbd
        self._resource = spec.drbd_resource
        self._limit = settings.seconds(spec, "promote_timeout")

    def continues(self, earlier: Driver) -> bool:
        return (
            isinstance(earlier, ReplicatedVolume)
            and earlier._resource == self._resource
            and super().continues(earlier)
        )  # fmt: skip

    async def stop(self, *, force: bool) -> None:
        await super().stop(force=force)
        try:
            primary = (await self._drbd.look(self._resource, self._device)).primary
            why = await self._drbd.become("secondary", self._resource, self._limit) if primary else ""
        except Down:
            return
        except HasysError as e:
            raise Temporary(str(e)) from None
        if why:
            raise Temporary(why)

    async def _claim(self) -> None:
        """Promote; wait while what is in the way may pass by itself."""
        end = anyio.current_time() + self._limit
        while why := await self._promote():
            if anyio.current_time() >= end:
                raise Permanent(f"{self._resource} is not promoted: {why} (for {self._limit:g} s)")
            self.become(State.STARTING, f"waiting: {self._resource}: {why}")
            await anyio.sleep(AGAIN)

    async def _promote(self) -> str:
        """One attempt. Returns what is in the way; "" when it is Primary. Raises :class:`Permanent`."""
        try:
            volume = await self._drbd.look(self._resource, self._device)
        except Down as e:
            raise Permanent(str(e)) from None
        except HasysError as e:
            return str(e)
        if volume.disk in HOPELESS:
            raise Permanent(f"{self._resource} is not promoted: {volume.refusal()}")
        if (why := volume.refusal()) or volume.primary:
            return why
        await self.around.permitted()
        try:
            why = await self._drbd.become("primary", self._resource, self._limit)
            promoted = why or (await self._drbd.look(self._resource, self._device)).primary
        except HasysError as e:
            return str(e)
        if not promoted:
            raise Permanent(f"{self._resource} was promoted, and {self._device} is not: correct spec.device")
        return why

    async def _watch(self, mount: Mount) -> None:
        while self._mount() == mount:
            self.become(State.RUNNING, await self._replication())
            for _ in range(REPLICATION_LOOKS):
                if self._mount() == mount:
                    await anyio.sleep(WATCH_PERIOD)

    async def _replication(self) -> str:
        """What keeps the copies from being the same, for people."""
        try:
            return (await self._drbd.look(self._resource, self._device)).trouble()
        except HasysError as e:
            return str(e)
