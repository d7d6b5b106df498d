"""What grants depend on, read from the applied state: built anew only when it changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hasys.api import kinds
from hasys.api.convert import seconds, timing_of
from hasys.api.kinds import Ref
from hasys.api.outliving import lives_on, stopped_after, unmounted_after
from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.store.machine import Changed, Machine
from hasys.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True)
class Left:
    """What the members of a group may leave behind on a lost node; see hasys/api/outliving.py."""

    unmounted_after: float | None
    lives_on: bool


class Assigned:
    """The :class:`Assignments` of a state machine. ``watchdog`` tells the seconds of a node's armed watchdog, as its
    guard says it to this store."""

    def __init__(self, machine: Machine, watchdog: Callable[[str], float] = lambda node: 0.0) -> None:
        self._machine = machine
        self._watchdog = watchdog
        self._value: Assignments | None = None
        self._left: dict[str, Left] = {}
        """Of each group, until it changes: with 100,000 objects a leader must not read all of them at a stretch."""
        self._lingering: dict[str, float] = {}
        """Of each node, while one value is built."""
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
        if not changes:  # everything, by a snapshot
            self._left.clear()
        for change in changes:
            self._left.pop(change.ref.group, None)
        if not changes or any(change.ref.kind in ("Group", "Node", "Cluster", "Fencing") for change in changes):
            self._value = None

    def _build(self) -> Assignments:
        groups = {}
        self._lingering.clear()
        for obj in self._machine.list("Group"):
            groups[obj.group.metadata.name] = self._group(obj.group)
        for gone in self._left.keys() - groups.keys():
            del self._left[gone]
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
            lingers=self._lingers(group),
            earlier={h.node: h.epoch for h in a.earlier},
            candidates=_candidates(group),
        )

    def _outlives(self, group: str) -> float:
        """Addresses are muted by the kernel; a mount may live on until its guard has unmounted it."""
        unmounted = self._leaves(group).unmounted_after
        return 0.0 if unmounted is None else self._ttl() + unmounted

    def _lingers(self, group: pb.Group) -> dict[str, float]:
        """Anything more than addresses may live on until a watchdog stops the machine; a fence from outside is waited
        for. On every node that has or had the group by the record, or may have it by an oath."""
        if not self._leaves(group.metadata.name).lives_on:
            return {}
        a = group.status.assignment
        nodes = {a.node, a.previous_node, *(h.node for h in a.earlier), *(node.name for node in group.spec.nodes)}
        return {node: time for node in sorted(nodes - {""}) if (time := self._linger(node))}

    def _leaves(self, group: str) -> Left:
        if (known := self._left.get(group)) is None:
            members = [kinds.inner(obj) for obj in self._machine.members_of(group).values()]
            known = self._left[group] = Left(unmounted_after(members), lives_on(members))
        return known

    def _linger(self, node: str) -> float:
        if (known := self._lingering.get(node)) is None:
            known = self._lingering[node] = max(stopped_after(self._bites(node)), self._fence_wait(node))
        return known

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


def _candidates(group: pb.Group) -> frozenset[str]:
    """Whose oath for the group is taken over; a group that is being deleted is nobody's."""
    if group.metadata.HasField("deleting") or group.spec.mode != pb.GroupSpec.Mirror:
        return frozenset()
    return frozenset(node.name for node in group.spec.nodes)
