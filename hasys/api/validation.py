"""Is an input acceptable? The rules of the schema for each object, then what only the whole can tell: names, groups,
arrows, addresses. Pure functions over a read-only view; user input never makes them raise."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from hasys.api import monitors, rules
from hasys.api.convert import chosen_timing
from hasys.api.errors import Fault
from hasys.api.flow import find_cycle
from hasys.api.kinds import KINDS, MEMBER_KINDS, RESOURCE_KINDS, Ref, Resource, inner, kind_of, ref_of, resource
from hasys.model.timing import TimingRefused
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb

FAULTS = 100
"""Faults after which looking for more stops."""
LONGEST_COMMAND = 8 * 1024
"""Bytes of a command of ``hasys run``: it is kept in the history."""


class View(Protocol):
    """What validation reads of the stored state."""

    def get(self, ref: Ref) -> pb.Object | None: ...

    def list(self, kind: str = "", group: str = "", limit: int = 0) -> list[pb.Object]: ...

    def group(self, name: str) -> pb.Group | None: ...

    def node(self, name: str) -> pb.Node | None: ...

    def members_of(self, group: str) -> Mapping[Ref, pb.Object]: ...

    def holders_of_address(self, address: str) -> tuple[Ref, ...]: ...


def check_objects(objects: Sequence[pb.Object], view: View, *, removed: Collection[Ref] = ()) -> list[Fault]:
    """Everything wrong with applying these objects together, while the ``removed`` ones go. Empty: acceptable."""
    faults: list[Fault] = []
    for fault in _Input(objects, view, removed).faults():
        faults.append(fault)
        if len(faults) >= FAULTS:
            break
    return faults


def check_alone(obj: pb.Object) -> list[Fault]:
    """What is wrong with one object, whatever else there is."""
    ref, message = ref_of(obj), inner(obj)
    kind = KINDS[ref.kind]
    if not kind.applied or isinstance(message, pb.Event):
        return [Fault(ref, "kind", f"{kind.plural} are written by hasys itself: they cannot be applied")]
    faults = [Fault(ref, field, why) for field, why in rules.check(message.metadata, "metadata")]
    if kind.grouped and not ref.group:
        faults.append(Fault(ref, "metadata.group", f"is missing: name the group that this {kind.name} belongs to"))
    elif not kind.grouped and ref.group:
        faults.append(Fault(ref, "metadata.group", f"a {kind.name} belongs to no group: take it out"))
    faults.extend(Fault(ref, field, why) for field, why in rules.check(message.spec, "spec"))
    if isinstance(message, pb.Monitor) and not faults:
        faults.extend(Fault(ref, field, why) for field, why in monitors.check(message.spec))
    return faults


def check_deletion(ref: Ref, view: View) -> list[Fault]:
    """A resource that others come after stays until they let go of it."""
    if not KINDS[ref.kind].grouped:
        return []
    needing = [
        other.name
        for other, obj in sorted(view.members_of(ref.group).items())
        if (part := resource(obj)) is not None
        and ref.name in part.spec.after
        and not part.metadata.HasField("deleting")
    ]
    if not needing:
        return []
    return [Fault(ref, "", f"{', '.join(needing)} comes after it: change or delete that first")]


_SECRETS = ("passw", "secret", "token", "community")
"""Parts of the names of options that nobody may see."""
_NEEDS: Mapping[int, tuple[str, ...]] = {
    pb.OperationSpec.Switchover: ("group",),
    pb.OperationSpec.Failover: ("group", "node"),
    pb.OperationSpec.Resolve: ("group", "node", "role"),
    pb.OperationSpec.FenceConfirm: ("node",),
    pb.OperationSpec.Pause: ("group",),
    pb.OperationSpec.Resume: ("group",),
    pb.OperationSpec.Retry: ("group",),
    pb.OperationSpec.Drain: ("node",),
    pb.OperationSpec.Undrain: ("node",),
    pb.OperationSpec.Run: ("node", "command"),
    pb.OperationSpec.RestartProcess: ("node", "role"),
}
_DISKS = ("SharedDisk", "ReplicatedVolume")
"""Kinds of resources that are mounted on one node at a time."""
_PROCESSES = ("store", "guard", "agent")


def check_operation(ref: Ref, spec: pb.OperationSpec, view: View) -> list[Fault]:
    """Everything wrong with an operation before anybody carries it out."""
    faults = [Fault(ref, field, why) for field, why in rules.check(spec, "spec")]
    faults.extend(
        Fault(ref, f"spec.{field}", f"is missing: {pb.OperationSpec.Type.Name(spec.type)} needs it")
        for field in _NEEDS.get(spec.type, ())
        if not getattr(spec, field)
    )
    if spec.type == pb.OperationSpec.Fence or spec.by or spec.HasField("fencing"):
        return [Fault(ref, "spec.type", "Fence is asked for by the leader alone: kind Fencing says how and when")]
    if spec.type != pb.OperationSpec.Run and (spec.command or spec.user or spec.HasField("timeout")):
        faults.append(Fault(ref, "spec.command", "belongs to the type Run alone"))
    if spec.type == pb.OperationSpec.Run and spec.group:
        faults.append(Fault(ref, "spec.group", "a command runs on a node: leave the group out"))
    if spec.type == pb.OperationSpec.RestartProcess:
        faults.extend(_restart_faults(ref, spec))
    if sum(len(word.encode()) for word in spec.command) > LONGEST_COMMAND:
        faults.append(Fault(ref, "spec.command", f"is longer than {LONGEST_COMMAND} bytes: put it into a script"))
    if faults:
        return faults
    group = view.group(spec.group) if spec.group else None
    if spec.group and group is None:
        faults.append(Fault(ref, "spec.group", f"group {spec.group!r} does not exist"))
    if spec.node and view.node(spec.node) is None:
        faults.append(Fault(ref, "spec.node", f"node {spec.node!r} does not exist"))
    elif spec.node and group is not None and spec.node not in [one.name for one in group.spec.nodes]:
        candidates = ", ".join(one.name for one in group.spec.nodes)
        faults.append(
            Fault(ref, "spec.node", f"group {spec.group!r} cannot run on {spec.node!r}: only on {candidates}")
        )
    if spec.type == pb.OperationSpec.Resolve and spec.role not in ("active", "standby"):
        faults.append(Fault(ref, "spec.role", f"{spec.role!r} is unknown: use active or standby"))
    if spec.step and group is not None:
        names = [member.name for member in view.members_of(spec.group) if member.kind in RESOURCE_KINDS]
        if spec.step not in names:
            faults.append(Fault(ref, "spec.step", f"group {spec.group!r} has no resource {spec.step!r}"))
    return faults


def _restart_faults(ref: Ref, spec: pb.OperationSpec) -> Iterator[Fault]:
    if spec.role not in ("", *_PROCESSES):
        yield Fault(ref, "spec.role", f"{spec.role!r} is no process: use {', '.join(_PROCESSES)}")
    if spec.group:
        yield Fault(ref, "spec.group", "a process runs on a node: leave the group out")


class _Input:
    """One input beside the stored state."""

    def __init__(self, objects: Sequence[pb.Object], view: View, removed: Collection[Ref]) -> None:
        self._objects = objects
        self._view = view
        self._removed = removed
        self._given: dict[Ref, pb.Object] = {}
        self._names: dict[tuple[str, str], Ref] = {}
        self._addresses: dict[str, list[Ref]] = {}

    def faults(self) -> Iterator[Fault]:
        sound: list[tuple[Ref, pb.Object]] = []
        for number, obj in enumerate(self._objects):
            kind = kind_of(obj)
            if kind is None:
                yield Fault(Ref("Object", "", str(number)), "kind", f"is missing: use one of {', '.join(KINDS)}")
                continue
            ref = ref_of(obj)
            found = check_alone(obj)
            if ref in self._given:
                found.append(Fault(ref, "metadata.name", "is given twice in this input"))
            yield from found
            self._given[ref] = obj
            if not found:
                sound.append((ref, obj))
        self._given = dict(sound)
        for ref, obj in sound:
            yield from self._together(ref, obj)
        changed = [ref.group for ref, obj in sound if self._arrows_change(ref, obj)]
        for group in dict.fromkeys([*changed, *(ref.group for ref in self._removed)]):
            yield from self._flow(group)

    # ------------------------------------------------------------ beside the others

    def _together(self, ref: Ref, obj: pb.Object) -> Iterator[Fault]:
        message, old = inner(obj), self._view.get(ref)
        if old is not None and not isinstance(message, pb.Event):
            before = inner(old)
            assert not isinstance(before, pb.Event)
            for field, why in rules.immutable_changes(before.spec, message.spec, "spec"):
                yield Fault(ref, field, why)
        if isinstance(message, pb.Group):
            yield from self._group(ref, message)
        elif isinstance(message, pb.Fencing):
            yield from self._fencing(ref, message)
        elif isinstance(message, pb.Cluster):
            yield from self._cluster(ref, message, known=old is not None)
        elif (part := resource(obj)) is not None:
            yield from self._resource(ref, part)
        elif isinstance(message, pb.Monitor):
            yield from self._monitor(ref, message)

    def _group(self, ref: Ref, group: pb.Group) -> Iterator[Fault]:
        seen: set[str] = set()
        for number, one in enumerate(group.spec.nodes):
            field = f"spec.nodes[{number}].name"
            node = self._view.node(one.name)
            if one.name in seen:
                yield Fault(ref, field, f"node {one.name!r} is named twice")
            elif node is None:
                yield Fault(ref, field, f"node {one.name!r} does not exist: use {self._nodes()}")
            elif node.spec.role == pb.NodeSpec.Witness:
                yield Fault(ref, field, f"node {one.name!r} is a witness: it votes and runs nothing")
            seen.add(one.name)
        yield from self._gates(ref, group)

    def _gates(self, ref: Ref, group: pb.Group) -> Iterator[Fault]:
        """A gate is a monitor of the group that looks where the group is not."""
        for number, name in enumerate(group.spec.failover.gates):
            of = Ref("Monitor", ref.name, name)
            obj = self._given.get(of) or (self._view.get(of) if of not in self._removed else None)
            field = f"spec.failover.gates[{number}]"
            if obj is None:
                yield Fault(ref, field, f"the group has no monitor {name!r}: apply it together with the group")
            elif obj.monitor.spec.on == mpb.MonitorSpec.Active:
                yield Fault(ref, field, f"monitor {name!r} looks on the Active alone: give it on: Standby, or on: All")

    def _fencing(self, ref: Ref, fencing: pb.Fencing) -> Iterator[Fault]:
        node = self._view.node(ref.name)
        if node is None or node.spec.role == pb.NodeSpec.Witness:
            yield Fault(ref, "metadata.name", f"is no node that runs groups: name it like one of {self._nodes()}")
        for number, name in enumerate(fencing.spec.nodes):
            other = self._view.node(name)
            if other is None or other.spec.role == pb.NodeSpec.Witness or name == ref.name:
                why = "is the node itself" if name == ref.name else "is no node that runs groups"
                yield Fault(ref, f"spec.nodes[{number}]", f"{name!r} {why}: it cannot run the agent")
        for option in fencing.spec.options:
            if option == "action":
                yield Fault(ref, "spec.options.action", "is chosen by hasys: set spec.action instead")
            elif any(word in option.lower() for word in _SECRETS):
                mend = f"write it as a line {option}=... into spec.secretFile, on the nodes"
                yield Fault(ref, f"spec.options.{option}", f"looks like a secret, and everybody could read it: {mend}")

    def _cluster(self, ref: Ref, cluster: pb.Cluster, *, known: bool) -> Iterator[Fault]:
        if not known:
            yield Fault(ref, "metadata.name", "is not this cluster: 'hasys get clusters' shows its name")
        try:
            chosen_timing(cluster.spec)
        except TimingRefused as e:
            text = str(e)
            yield Fault(ref, "spec.profile" if text.startswith("profile") else "spec.timing", text)

    def _resource(self, ref: Ref, part: Resource) -> Iterator[Fault]:
        yield from self._member(ref)
        group = self._group_of(ref)
        if isinstance(part, pb.VirtualIP) and group is not None:
            yield from self._interfaces(ref, part, group)
            yield from self._address(ref, part, group)
        elif isinstance(part, pb.SharedDisk | pb.ReplicatedVolume) and group is not None:
            yield from self._disk(ref, part, group)

    def _monitor(self, ref: Ref, monitor: pb.Monitor) -> Iterator[Fault]:
        yield from self._member(ref)
        resources = {member.name: member.kind for member in self._members(ref.group)}
        for field, why in monitors.check_names(monitor.spec, resources):
            yield Fault(ref, field, why)
        other = monitor.spec.group.name
        if other and self._group_of(Ref("Monitor", other, "")) is None:
            yield Fault(ref, "spec.group.name", f"group {other!r} does not exist")

    def _member(self, ref: Ref) -> Iterator[Fault]:
        """What holds for everything that belongs to a group."""
        group = self._group_of(ref)
        if group is None:
            yield Fault(ref, "metadata.group", f"group {ref.group!r} does not exist: apply it before or together")
            return
        if group.metadata.HasField("deleting"):
            yield Fault(ref, "metadata.group", f"group {ref.group!r} is being deleted: wait until it is gone")
        yield from self._unique_name(ref)

    def _unique_name(self, ref: Ref) -> Iterator[Fault]:
        first = self._names.setdefault((ref.group, ref.name), ref)
        others = [first] if first != ref else []
        for kind in MEMBER_KINDS:
            other = Ref(kind, ref.group, ref.name)
            if other != ref and other != first and self._view.get(other) is not None:
                others.append(other)
        for other in others:
            yield Fault(ref, "metadata.name", f"{other} has this name in group {ref.group!r} already: choose another")

    def _interfaces(self, ref: Ref, part: pb.VirtualIP, group: pb.Group) -> Iterator[Fault]:
        if not part.spec.interface.per_node:
            return
        candidates = [one.name for one in group.spec.nodes]
        for name in sorted(part.spec.interface.per_node):
            if self._view.node(name) is None:
                yield Fault(ref, f"spec.interface.{name}", f"node {name!r} does not exist: use {self._nodes()}")
        for name in candidates:
            if name not in part.spec.interface.per_node:
                yield Fault(ref, "spec.interface", f"names no interface for node {name!r}, where the group can run")

    def _address(self, ref: Ref, part: pb.VirtualIP, group: pb.Group) -> Iterator[Fault]:
        address = ipaddress.ip_interface(part.spec.address).ip
        text, field = str(address), "spec.address"
        for obj in self._view.list("Node"):
            if any(_same(text, one) for one in obj.node.spec.addresses):
                yield Fault(ref, field, f"{text} is the address of node {obj.node.metadata.name!r}: use a free one")
        others = [*self._view.holders_of_address(text), *self._addresses.get(text, ())]
        self._addresses.setdefault(text, []).append(ref)
        for other in dict.fromkeys(others):
            if other == ref:
                continue
            theirs = self._group_of(other)
            both_farms = (
                other.group != ref.group and theirs is not None
                and theirs.spec.mode == pb.GroupSpec.Farm and group.spec.mode == pb.GroupSpec.Farm
            )  # fmt: skip
            if not both_farms:
                yield Fault(ref, field, f"{text} belongs to {other} of group {other.group!r} already: use a free one")

    def _disk(self, ref: Ref, part: pb.SharedDisk | pb.ReplicatedVolume, group: pb.Group) -> Iterator[Fault]:
        """No second mount: neither of the device, nor over or under another disk's mount point on the same node."""
        if group.spec.mode == pb.GroupSpec.Farm:
            yield Fault(ref, "kind", f"group {ref.group!r} is a Farm: every node would mount {part.spec.device}")
        stored = {ref_of(obj): obj for kind in _DISKS for obj in self._view.list(kind)}
        given = {r: obj for r, obj in self._given.items() if r.kind in _DISKS}
        for other, obj in sorted({**stored, **given}.items()):
            if other == ref or other in self._removed or not self._share_a_node(group, self._group_of(other)):
                continue
            disk = resource(obj)
            assert isinstance(disk, pb.SharedDisk | pb.ReplicatedVolume)
            theirs = disk.spec
            for field, value in _claims(part.spec).items():
                if _claims(theirs).get(field) == value:
                    why = f"{value} belongs to {other} of group {other.group!r} already"
                    yield Fault(ref, f"spec.{field}", f"{why}: it cannot be mounted twice")
            if _one_below_the_other(theirs.mount_point, part.spec.mount_point):
                yield Fault(
                    ref, "spec.mountPoint",
                    f"{part.spec.mount_point} and {theirs.mount_point} of {other} in group {other.group!r} "
                    "lie in each other's way: choose another",
                )  # fmt: skip

    @staticmethod
    def _share_a_node(one: pb.Group, other: pb.Group | None) -> bool:
        return other is None or bool({n.name for n in one.spec.nodes} & {n.name for n in other.spec.nodes})

    # ------------------------------------------------------------ arrows

    def _arrows_change(self, ref: Ref, obj: pb.Object) -> bool:
        """Could this object make a circle, or an arrow to nowhere? Without new arrows it cannot."""
        part = resource(obj)
        if part is None or not part.spec.after:
            return False
        old = self._view.get(ref)
        before = resource(old) if old is not None else None
        return before is None or before.spec.after != part.spec.after

    def _flow(self, group: str) -> Iterator[Fault]:
        parts = self._members(group)
        arrows = {ref.name: part.spec.after for ref, part in parts.items()}
        for ref, part in parts.items():
            for number, other in enumerate(part.spec.after):
                if other not in arrows:
                    known = ", ".join(sorted(set(arrows) - {ref.name})) or "none"
                    why = f"group {group!r} has no resource {other!r}: it has {known}"
                    yield Fault(ref, f"spec.after[{number}]", why)
        cycle = find_cycle(arrows)
        if cycle:
            culprit = next(ref for ref in parts if ref.name == cycle[0])
            yield Fault(culprit, "spec.after", f"goes round in a circle: {' -> '.join(cycle)}: take one arrow out")

    def _members(self, group: str) -> dict[Ref, Resource]:
        """The resources that the group will have: those given first."""
        members: dict[Ref, Resource] = {}
        for ref, obj in (*self._given.items(), *self._view.members_of(group).items()):
            part = resource(obj)
            if ref.group != group or part is None or ref in members or ref in self._removed:
                continue
            if ref in self._given or not part.metadata.HasField("deleting"):
                members[ref] = part
        return members

    def _group_of(self, ref: Ref) -> pb.Group | None:
        given = self._given.get(Ref("Group", "", ref.group))
        return given.group if given is not None else self._view.group(ref.group)

    def _nodes(self) -> str:
        names = [
            obj.node.metadata.name
            for obj in self._view.list("Node")
            if obj.node.spec.role != pb.NodeSpec.Witness
        ]  # fmt: skip
        return ", ".join(names) or "the names given to 'hasys init'"


def _claims(spec: pb.SharedDiskSpec | pb.ReplicatedVolumeSpec) -> dict[str, str]:
    """What a disk has for itself: field and value."""
    claims = {"device": spec.device}
    if isinstance(spec, pb.ReplicatedVolumeSpec):
        claims["drbdResource"] = spec.drbd_resource
    return claims


def _one_below_the_other(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _same(address: str, other: str) -> bool:
    try:
        return str(ipaddress.ip_address(other)) == address
    except ValueError:
        return False
