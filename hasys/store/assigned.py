"""What grants depend on, read from the applied state: built anew only when it changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.store.machine import Changed, Machine
from hasys.v1 import objects_pb2 as pb

WATCHDOG_MARGIN = 0.5
"""Seconds that a watchdog may take beyond its timeout to stop a machine (design section 3)."""


class Assigned:
    """The :class:`Assignments` of a state machine. ``watchdog`` tells a node's armed watchdog timeout in seconds."""

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
        if not changes or any(change.ref.kind in ("Group", "Node") for change in changes):
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
            outlives=self._outlives(group.metadata.name, a),
            candidates=_candidates(group),
        )

    def _outlives(self, group: str, a: pb.Assignment) -> float:
        """Addresses are muted by the kernel; anything more may live on until a watchdog stops the machine."""
        if all(ref.kind == "VirtualIP" for ref in self._machine.members_of(group)):
            return 0.0
        timeout = max((self._watchdog(node) for node in (a.node, a.previous_node) if node), default=0.0)
        return timeout + WATCHDOG_MARGIN if timeout else 0.0


def _candidates(group: pb.Group) -> frozenset[str]:
    """Whose oath for the group is taken over; a group that is being deleted is nobody's."""
    if group.metadata.HasField("deleting") or group.spec.mode != pb.GroupSpec.Mirror:
        return frozenset()
    return frozenset(node.name for node in group.spec.nodes)
