"""The groups and resources as last heard from the store. A hint, never authority."""

from __future__ import annotations

from collections.abc import Mapping

from hasys.api import kinds
from hasys.api.kinds import Ref, Resource
from hasys.model.level import FIRST, common
from hasys.reconciler.ports import Batch
from hasys.v1 import objects_pb2 as pb


class Cache:
    """Objects are shared: read, never changed."""

    def __init__(self) -> None:
        self.synced = False
        """False: the picture is not complete; nothing may be concluded from what is missing."""
        self.stale = False
        """Read from disk because no store answers: only what an operator swore to may be touched."""
        self.shape = 0
        """Grows when a spec came, went or changed; not with statuses."""
        self.groups: dict[str, pb.Group] = {}
        self.nodes: dict[str, pb.Node] = {}
        self.fencings: dict[str, pb.Fencing] = {}
        """By the node that is switched off."""
        self.level = FIRST
        """What every member understands (:mod:`hasys.model.level`)."""
        self._resources: dict[str, dict[str, Resource]] = {}
        self._monitors: dict[str, dict[str, pb.Monitor]] = {}

    def resources(self, group: str) -> Mapping[str, Resource]:
        """The resources of a group, by name."""
        return self._resources.get(group, {})

    def monitors(self, group: str) -> Mapping[str, pb.Monitor]:
        """The monitors of a group, by name."""
        return self._monitors.get(group, {})

    def begin_again(self) -> None:
        """Forget all: the store answers, and tells everything from the beginning."""
        self.synced = self.stale = False
        self.shape += 1
        self.groups.clear()
        self.nodes.clear()
        self.fencings.clear()
        self._resources.clear()
        self._monitors.clear()

    def take(self, batch: Batch) -> set[str]:
        """Apply a batch; returns the names of the groups it touches (all of them when the picture became complete)."""
        touched: set[str] = set()
        for obj, deleted in batch.changes:
            touched |= self._drop(kinds.ref_of(obj)) if deleted else self._put(obj)
        if batch.synced and not self.synced:
            self.synced = True
            touched |= self.groups.keys() | self._resources.keys() | self._monitors.keys()
        return touched

    def _put(self, obj: pb.Object) -> set[str]:
        ref = kinds.ref_of(obj)
        resource = kinds.resource(obj)
        if resource is not None:
            of_group = self._resources.setdefault(ref.group, {})
            self._compare(of_group.get(ref.name), resource)
            of_group[ref.name] = resource
            return {ref.group}
        if obj.WhichOneof("kind") == "monitor":
            self._monitors.setdefault(ref.group, {})[ref.name] = obj.monitor
            return {ref.group}
        if obj.WhichOneof("kind") == "group":
            self._compare(self.groups.get(ref.name), obj.group)
            self.groups[ref.name] = obj.group
            return {ref.name}
        if obj.WhichOneof("kind") == "node":
            self._compare(self.nodes.get(ref.name), obj.node)
            self.nodes[ref.name] = obj.node
        if obj.WhichOneof("kind") == "fencing":
            self.fencings[ref.name] = obj.fencing
        if obj.WhichOneof("kind") == "cluster":
            self.level = common([obj.cluster.status.level])
        return set()

    def _compare(self, old: pb.Group | pb.Node | Resource | None, new: pb.Group | pb.Node | Resource) -> None:
        if old is None or type(old) is not type(new) or old.metadata.generation != new.metadata.generation:
            self.shape += 1

    def _drop(self, ref: Ref) -> set[str]:
        self.shape += ref.kind not in ("Monitor", "Fencing")
        if ref.kind == "Fencing":
            self.fencings.pop(ref.name, None)
            return set()
        if ref.kind == "Node":
            self.nodes.pop(ref.name, None)
            return set()
        if ref.kind == "Group":
            self.groups.pop(ref.name, None)
            return {ref.name}
        of_kind = self._monitors if ref.kind == "Monitor" else self._resources
        of_group = of_kind.get(ref.group)
        if of_group is None:
            return set()
        of_group.pop(ref.name, None)
        if not of_group:
            del of_kind[ref.group]
        return {ref.group}
