"""What grants depend on, read from the applied state: built anew only when it changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hasys.api.convert import seconds, timing_of
from hasys.api.kinds import Ref
from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.store.machine import Changed, Machine
from hasys.v1 import objects_pb2 as pb

WATCHDOG_MARGIN = 0.5
"""Seconds that a watchdog may take beyond its timeout to stop a machine (design section 3)."""

UNMOUNT_TIMEOUT = 5.0
"""Seconds; the schema's default of ``SharedDiskSpec.unmount_timeout``."""


class Assigned:
    """The :class:`Assignments` of a state machine. ``watchdog`` tells the seconds of a node's armed watchdog, as its
    guard says it to this store."""

    def __init__(self, machine: Machine, watchdog: Callable[[str], float] = lambda node: 0.0) -> None:
        self._machine = machine
        self._watchdog = watchdog
        self._value: Assignments | None = None
        machine.subscribe(self._changed)

    def __call__(self) -> Assignments:
        """The same object until something changed."""
        if self._value is None:
            self._value = self._build()
        return self._value

    def refresh(self) -> None:
        """A watchdog was armed, or is no longer."""
        self._value = None

    def _changed(self, index: int, changes: Sequence[Changed]) -> None:
        if not changes or any(change.ref.kind in ("Group", "Node", "Cluster", "Fencing") for change in changes):
            self._value = None

    def _build(self) -> Assignments:
        groups = {}
        for obj in self._machine.list("Group"):
            groups[obj.group.metadata.name] = self._group(obj.group)
        fenced = {
            obj.node.metadata.name: obj.node.status.fence_boot_id
            for obj in self._machine.list("Node")
            if obj.node.status.fence_confirmed
        }
        return Assignments(groups, fenced)

    def _group(self, group: pb.Group) -> GroupAssignment:
        a = group.status.assignment
        return GroupAssignment(
            node=a.node,
            epoch=a.epoch,
            version=group.status.resources_version,
            previous_node=a.previous_node,
            previous_epoch=a.previous_epoch,
            revoked=a.revoked,
            outlives=self._outlives(group.metadata.name),
            lingers=self._lingers(group.metadata.name, a.node, a.previous_node),
            candidates=_candidates(group),
        )

    def _outlives(self, group: str) -> float:
        """Addresses are muted by the kernel; a mount may live on until its guard has unmounted it."""
        members = self._machine.members_of(group)
        waits = [unmount_timeout(obj.shared_disk.spec) for ref, obj in members.items() if ref.kind == "SharedDisk"]
        return self._ttl() + max(waits) if waits else 0.0

    def _lingers(self, group: str, *nodes: str) -> dict[str, float]:
        """Anything more than addresses may live on until a watchdog stops the machine; a fence from outside is waited
        for."""
        members = self._machine.members_of(group)
        if not any(_outlives(ref, obj) for ref, obj in members.items()):
            return {}
        return {node: time for node in nodes if node and (time := self._linger(node))}

    def _linger(self, node: str) -> float:
        timeout = self._bites(node)
        return max(timeout + WATCHDOG_MARGIN if timeout else 0.0, self._fence_wait(node))

    def _bites(self, node: str) -> float:
        """Seconds of the node's watchdog: as it says now, or as recorded, which a new leader knows of a lost node."""
        obj = self._machine.get(Ref("Node", "", node))
        return max(self._watchdog(node), seconds(obj.node.status.watchdog) if obj is not None else 0.0)

    def _fence_wait(self, node: str) -> float:
        """Seconds that a fence of the node from outside is waited for."""
        obj = self._machine.get(Ref("Fencing", "", node))
        return seconds(obj.fencing.spec.wait) if obj is not None else 0.0

    def _ttl(self) -> float:
        """Longest time that a lease may last after its last proof."""
        clusters = [obj.cluster for obj in self._machine.list("Cluster")]
        return max((max(timing_of(c.spec).ttl, seconds(c.status.ttl_max)) for c in clusters), default=0.0)


def unmount_timeout(spec: pb.SharedDiskSpec) -> float:
    """Seconds that a lost node has for its unmount, after its lease."""
    return seconds(spec.unmount_timeout) if spec.HasField("unmount_timeout") else UNMOUNT_TIMEOUT


def _outlives(ref: Ref, obj: pb.Object) -> bool:
    """May it leave more than addresses on a node?"""
    return bool(obj.monitor.spec.restart.command) if ref.kind == "Monitor" else ref.kind != "VirtualIP"


def _candidates(group: pb.Group) -> frozenset[str]:
    """Whose oath for the group is taken over; a group that is being deleted is nobody's."""
    if group.metadata.HasField("deleting") or group.spec.mode != pb.GroupSpec.Mirror:
        return frozenset()
    return frozenset(node.name for node in group.spec.nodes)
