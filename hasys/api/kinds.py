"""The kinds of objects, once: names, spelling variants, messages, and how to reach into the envelope.

Objects are protobuf messages and are treated as immutable wherever they are shared: copy before a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

from google.protobuf.message import Message

from hasys.v1 import objects_pb2 as pb

Resource: TypeAlias = (
    pb.VirtualIP
    | pb.Application
    | pb.Delay
    | pb.SharedDisk
    | pb.ReplicatedVolume
    | pb.Database
    | pb.CommandStep
    | pb.SystemdUnit
)
"""What a group runs."""

Inner: TypeAlias = pb.Group | pb.Node | Resource | pb.Monitor | pb.Fencing | pb.Operation | pb.Event | pb.Cluster
"""What an envelope can hold."""

API_VERSION = "hasys/v1"


class Ref(NamedTuple):
    """Identity of an object. ``group`` is empty for everything that is no resource of a group."""

    kind: str
    group: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    def key(self) -> pb.Key:
        return pb.Key(kind=self.kind, group=self.group, name=self.name)

    @staticmethod
    def of_key(key: pb.Key) -> Ref:
        return Ref(key.kind, key.group, key.name)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    name: str
    field: str
    """Its field in the envelope ``Object``."""
    plural: str
    short: tuple[str, ...]
    message: type[Message]
    grouped: bool = False
    """It belongs to a group, which its key names."""
    observes: bool = False
    """It belongs to a group and is none of its resources: nothing of it is started, stopped or waited for."""
    applied: bool = False
    """Users write it with ``apply``; the others are written by hasys itself."""


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("Group", "group", "groups", ("grp",), pb.Group, applied=True),
        Kind("Node", "node", "nodes", ("no",), pb.Node),
        Kind("VirtualIP", "virtual_ip", "virtualips", ("vip", "vips"), pb.VirtualIP, grouped=True, applied=True),
        Kind("Application", "application", "applications", ("app", "apps"), pb.Application, grouped=True, applied=True),
        Kind("Delay", "delay", "delays", (), pb.Delay, grouped=True, applied=True),
        Kind("SharedDisk", "shared_disk", "shareddisks", ("disk", "disks"), pb.SharedDisk, grouped=True, applied=True),
        Kind("Database", "database", "databases", ("db", "dbs"), pb.Database, grouped=True, applied=True),
        Kind("Command", "command", "commands", ("cmd", "cmds"), pb.CommandStep, grouped=True, applied=True),
        Kind(
            "SystemdUnit", "systemd_unit", "systemdunits", ("unit", "units"), pb.SystemdUnit, grouped=True, applied=True
        ),
        Kind(
            "ReplicatedVolume",
            "replicated_volume",
            "replicatedvolumes",
            ("volume", "volumes", "drbd"),
            pb.ReplicatedVolume,
            grouped=True,
            applied=True,
        ),
        Kind("Monitor", "monitor", "monitors", ("mon",), pb.Monitor, grouped=True, observes=True, applied=True),
        Kind("Fencing", "fencing", "fencings", ("fence", "fences"), pb.Fencing, applied=True),
        Kind("Operation", "operation", "operations", ("op", "ops"), pb.Operation),
        Kind("Event", "event", "events", ("ev",), pb.Event),
        Kind("Cluster", "cluster", "clusters", (), pb.Cluster, applied=True),
    )
}

MEMBER_KINDS: tuple[str, ...] = tuple(kind.name for kind in KINDS.values() if kind.grouped)
"""What belongs to a group."""

RESOURCE_KINDS: tuple[str, ...] = tuple(kind.name for kind in KINDS.values() if kind.grouped and not kind.observes)
"""What a group runs."""

_RESOURCES = frozenset(RESOURCE_KINDS)
_BY_FIELD = {kind.field: kind for kind in KINDS.values()}
_BY_MESSAGE: dict[type[Message], str] = {kind.message: kind.name for kind in KINDS.values()}
_BY_SPELLING = {
    spelling: kind
    for kind in KINDS.values()
    for spelling in (kind.name.lower(), kind.plural, *kind.short)
}  # fmt: skip


def find_kind(spelling: str) -> Kind | None:
    """The kind that a user means by ``VirtualIP``, ``virtualips``, ``vip`` ... in any case; None when there is none."""
    return _BY_SPELLING.get(spelling.lower())


def kind_of(obj: pb.Object) -> Kind | None:
    """The kind of an envelope; None when it is empty."""
    field = obj.WhichOneof("kind")
    return _BY_FIELD[field] if field else None


def inner(obj: pb.Object) -> Inner:
    """The message inside the envelope. Raises ValueError when it is empty."""
    field = obj.WhichOneof("kind")
    if field is None:
        raise ValueError("empty envelope")
    return cast(Inner, getattr(obj, field))


def metadata(obj: pb.Object) -> pb.Metadata:
    """The metadata of an object. Raises ValueError when the envelope is empty."""
    return inner(obj).metadata


def ref_of(obj: pb.Object) -> Ref:
    """The identity of an object. Raises ValueError when the envelope is empty."""
    field = obj.WhichOneof("kind")
    if field is None:
        raise ValueError("empty envelope")
    meta = getattr(obj, field).metadata
    return Ref(_BY_FIELD[field].name, meta.group, meta.name)


def kind_name(message: Inner) -> str:
    """The kind of the message inside an envelope."""
    return _BY_MESSAGE[type(message)]


def wrap(message: Inner) -> pb.Object:
    """An envelope around a copy of the message."""
    obj = pb.Object()
    getattr(obj, KINDS[kind_name(message)].field).CopyFrom(message)
    return obj


def runner_of(spec: pb.OperationSpec) -> str:
    """The node whose agent carries the operation out; empty: the controllers do."""
    by_node = (pb.OperationSpec.Run, pb.OperationSpec.RestartProcess)
    return spec.node if spec.type in by_node else spec.by if spec.type == pb.OperationSpec.Fence else ""


def copy(obj: pb.Object) -> pb.Object:
    """A copy that may be changed."""
    new = pb.Object()
    new.CopyFrom(obj)
    return new


def resource(obj: pb.Object) -> Resource | None:
    """The resource in the envelope; None when it holds something else."""
    field = obj.WhichOneof("kind")
    if field is None or _BY_FIELD[field].name not in _RESOURCES:
        return None
    return cast(Resource, getattr(obj, field))


def group_of(obj: pb.Object) -> str:
    """The group that an object is about: its own name, the group it belongs to or speaks of; empty for none."""
    match obj.WhichOneof("kind"):
        case "group":
            return obj.group.metadata.name
        case "operation":
            return obj.operation.spec.group
        case "event":
            regarding = obj.event.regarding
            return regarding.name if regarding.kind == "Group" else regarding.group
        case None:
            return ""
        case _:
            return inner(obj).metadata.group
