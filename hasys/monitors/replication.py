"""A replicated volume: its own disk, its connections, and how much of the data is the same everywhere.

What is not connected is not counted anew: the figure is then the last one that this node knows.
"""

from __future__ import annotations

from hasys import drbd
from hasys.drbd import Kernel
from hasys.model.drbd import UP_TO_DATE, Volume
from hasys.monitors.port import Check, Commands, Found, Machine
from hasys.v1 import monitors_pb2 as mpb

SYNCING = "Inconsistent"
"""The state of a disk that is being brought in step."""


class ReplicationCheck(Check):
    """See the module."""

    def __init__(
        self,
        spec: mpb.ReplicationMonitor,
        commands: Commands,
        machine: Machine,
        group: str,
        kernel: Kernel | None = None,
    ) -> None:
        self._spec = spec
        self._commands = commands
        self._machine = machine
        self._group = group
        self._kernel = kernel or Kernel()

    async def look(self) -> Found:
        known = self._machine.replicated(self._group).get(self._spec.volume)
        if known is None:
            return Found(f"the group has no replicated volume {self._spec.volume}")
        volume = await drbd.look(*known, self._run, self._kernel)
        detail = f"{volume.in_sync:.2f} % in sync, {volume.out_of_sync} KiB are not; {_states(volume)}"
        return Found("; ".join(self._troubles(volume)), detail, volume.in_sync, "%")

    def _troubles(self, volume: Volume) -> list[str]:
        """In words that stay the same as long as it does."""
        partly = self._spec.HasField("in_sync")
        good = (UP_TO_DATE, SYNCING) if partly else (UP_TO_DATE,)
        found = [] if volume.disk in good else [f"the local disk is {volume.disk}"]
        for peer in volume.peers:
            if not peer.connected and not self._spec.disconnected_allowed:
                found.append(f"not connected to {peer} ({peer.state})")
            elif peer.connected and peer.disk not in good:
                found.append(f"the disk of {peer} is {peer.disk}")
        if partly and volume.in_sync < self._spec.in_sync:
            found.append(f"less than {self._spec.in_sync} % in sync")
        if self._spec.HasField("out_of_sync") and volume.out_of_sync * 1024 > self._spec.out_of_sync:
            found.append(f"more than {self._spec.out_of_sync} bytes out of sync")
        return found

    async def _run(self, argv: tuple[str, ...]) -> tuple[int | None, str]:
        ended = await self._commands.run(argv)
        return ended.code, ended.output


def _states(volume: Volume) -> str:
    peers = ", ".join(f"{peer}: {peer.state}, {peer.role}, {peer.disk}" for peer in volume.peers)
    return f"here: {volume.role}, {volume.disk}" + (f"; {peers}" if peers else "")
