"""What of a group may live on at a node after its lease, and how long. A leader waits for it before the group starts
elsewhere, and so does a node that takes a group over without one (docs/two-nodes.md)."""

from __future__ import annotations

from collections.abc import Iterable

from hasys.api.convert import seconds
from hasys.api.kinds import Inner
from hasys.v1 import objects_pb2 as pb

WATCHDOG_MARGIN = 0.5
"""Seconds that a watchdog may take beyond its timeout to stop a machine (design section 3)."""

UNMOUNT_TIMEOUT = 5.0
"""Seconds; the schema's default of ``unmount_timeout``."""


def lives_on(members: Iterable[Inner]) -> bool:
    """May these resources and monitors of a group leave more than addresses, which the kernel mutes in time?"""
    return any(
        bool(member.spec.restart.command) if isinstance(member, pb.Monitor) else not isinstance(member, pb.VirtualIP)
        for member in members
    )


def stopped_after(watchdog: float) -> float:
    """Seconds within which a machine is stopped by a watchdog of this timeout; 0: it has none."""
    return watchdog + WATCHDOG_MARGIN if watchdog else 0.0


def unmounted_after(members: Iterable[Inner]) -> float | None:
    """Seconds that a lost node has, after its lease, for the longest unmount of a group; None: it mounts nothing."""
    disks = [member.spec for member in members if isinstance(member, pb.SharedDisk | pb.ReplicatedVolume)]
    return max(
        (seconds(d.unmount_timeout) if d.HasField("unmount_timeout") else UNMOUNT_TIMEOUT for d in disks), default=None
    )
