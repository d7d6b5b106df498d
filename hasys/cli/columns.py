"""What ``hasys get`` shows of each kind: one table of columns per kind. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from hasys.api.convert import show_duration, show_time
from hasys.api.monitors import watched
from hasys.cli.output import taken
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb

Cell: TypeAlias = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, how to read it from the kind's message, and whether only ``-o wide`` shows it."""

    heading: str
    cell: Cell
    wide: bool = False


def rows_of(kind: str, objects: list[Any], *, wide: bool) -> tuple[list[str], list[list[str]]]:
    """Headings and rows for objects of one kind."""
    moment = datetime.now(UTC)
    columns = [c for c in (*COLUMNS[kind], *_AGE) if wide or not c.wide]
    rows = [[c.cell((o, moment)) if c in _AGE else c.cell(o) for c in columns] for o in objects]
    return [c.heading for c in columns], [[text or "-" for text in row] for row in rows]


def age(created: Timestamp, now: datetime) -> str:
    """How long ago, in the two largest units: ``45s``, ``3m10s``, ``5h2m``, ``12d``."""
    total = max(0, int(now.timestamp()) - created.seconds)
    if not created.seconds:
        return ""
    days, hours, minutes = total // 86400, total // 3600 % 24, total // 60 % 60
    if days:
        return f"{days}d{hours}h" if days < 10 else f"{days}d"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{total % 60}s" if minutes else f"{total}s"


def _interface(spec: pb.VirtualIPSpec) -> str:
    per_node = spec.interface.per_node
    return ",".join(f"{node}:{per_node[node]}" for node in sorted(per_node)) or spec.interface.name


def _command(spec: pb.ApplicationSpec) -> str:
    command = spec.run.command if spec.HasField("run") else spec.start.command
    return _words(command)


def _words(command: Sequence[str]) -> str:
    text = " ".join(command)
    return text if len(text) <= 48 else text[:47] + "…"


def _state(message: Any) -> str:
    return "Deleting" if message.metadata.HasField("deleting") else str(message.status.state or "Stopped")


def _failover(group: pb.Group) -> str:
    return "paused" if group.status.paused else pb.Failover.Mode.Name(group.spec.failover.mode)


def _timing(spec: pb.ClusterSpec) -> str:
    return ",".join(f"{field.name}={show_duration(value)}" for field, value in spec.timing.ListFields())


def _looking(monitor: pb.Monitor) -> list[tuple[str, mpb.MonitorResult]]:
    """The nodes that look, with what they saw last."""
    return [(node, result) for node, result in sorted(monitor.status.nodes.items()) if result.state != "Idle"]


def _results(monitor: pb.Monitor) -> str:
    return ",".join(f"{node}:{result.state}" for node, result in _looking(monitor)) or "Waiting"


_NAME = Column("NAME", lambda o: o.metadata.name)
_GROUP = Column("GROUP", lambda o: o.metadata.group)
_WHERE = (
    Column("NODE", lambda o: o.status.node),
    Column("STATE", _state),
    Column("AFTER", lambda o: ",".join(o.spec.after), wide=True),
    Column("MESSAGE", lambda o: o.status.message, wide=True),
)
_AGE = (Column("AGE", lambda pair: age(pair[0].metadata.created, pair[1])),)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "Group": (
        _NAME,
        Column("MODE", lambda o: pb.GroupSpec.Mode.Name(o.spec.mode)),
        Column("ASSIGNED", lambda o: o.status.assignment.node),
        Column("PHASE", lambda o: o.status.phase or "Stopped"),
        Column("EPOCH", lambda o: str(o.status.assignment.epoch)),
        Column("NODES", lambda o: ",".join(f"{n.name}:{n.priority}" for n in o.spec.nodes)),
        Column("FAILOVER", _failover, wide=True),
        Column("REASON", lambda o: o.status.reason, wide=True),
    ),
    "VirtualIP": (
        _GROUP, _NAME,
        Column("ADDRESS", lambda o: o.spec.address),
        Column("INTERFACE", lambda o: _interface(o.spec)),
        *_WHERE,
    ),
    "Application": (
        _GROUP, _NAME,
        Column("COMMAND", lambda o: _command(o.spec)),
        *_WHERE,
        Column("RESTARTS", lambda o: str(o.status.restarts)),
    ),
    "Delay": (_GROUP, _NAME, Column("DURATION", lambda o: show_duration(o.spec.duration)), *_WHERE),
    "SharedDisk": (
        _GROUP, _NAME,
        Column("DEVICE", lambda o: o.spec.device),
        Column("MOUNTPOINT", lambda o: o.spec.mount_point),
        *_WHERE,
    ),
    "ReplicatedVolume": (
        _GROUP, _NAME,
        Column("RESOURCE", lambda o: o.spec.drbd_resource),
        Column("DEVICE", lambda o: o.spec.device),
        Column("MOUNTPOINT", lambda o: o.spec.mount_point),
        *_WHERE,
    ),
    "Database": (
        _GROUP, _NAME,
        Column("START", lambda o: _words(o.spec.start)),
        Column("USER", lambda o: o.spec.user),
        *_WHERE,
        Column("RESTARTS", lambda o: str(o.status.restarts)),
    ),
    "Command": (_GROUP, _NAME, Column("COMMAND", lambda o: _words(o.spec.run.command)), *_WHERE),
    "SystemdUnit": (
        _GROUP, _NAME,
        Column("UNIT", lambda o: o.spec.unit),
        *_WHERE,
        Column("RESTARTS", lambda o: str(o.status.restarts)),
    ),
    "Monitor": (
        _GROUP, _NAME,
        Column("WATCHES", lambda o: watched(o.spec)),
        Column("ON", lambda o: mpb.MonitorSpec.Where.Name(o.spec.on)),
        Column("INTERVAL", lambda o: show_duration(o.spec.interval) or "5s"),
        Column("ACTION", lambda o: mpb.MonitorSpec.Action.Name(o.spec.action)),
        Column("STATE", _results),
        Column("MESSAGE", lambda o: "; ".join(f"{n}: {r.message}" for n, r in _looking(o) if r.message)),
    ),
    "Node": (
        _NAME,
        Column("ROLE", lambda o: pb.NodeSpec.Role.Name(o.spec.role)),
        Column("STATE", lambda o: o.status.state),
        Column("DRAINED", lambda o: "yes" if o.spec.drained else "no"),
        Column("ADDRESSES", lambda o: ",".join(o.spec.addresses)),
        Column("MESSAGE", lambda o: o.status.message, wide=True),
    ),
    "Fencing": (
        _NAME,
        Column("AGENT", lambda o: o.spec.agent),
        Column("ACTION", lambda o: pb.FencingSpec.Action.Name(o.spec.action)),
        Column("NODES", lambda o: ",".join(o.spec.nodes)),
        Column("STATE", lambda o: "Failed" if o.status.failed else "Running" if o.status.operation else "Ready"),
        Column("MESSAGE", lambda o: o.status.failed),
    ),
    "Operation": (
        _NAME,
        Column("TYPE", lambda o: pb.OperationSpec.Type.Name(o.spec.type)),
        Column("GROUP", lambda o: o.spec.group),
        Column("NODE", lambda o: o.spec.node),
        Column("STATE", lambda o: o.status.state or "Pending"),
        Column("TOOK", lambda o: taken(o.status.duration)),
        Column("ACTOR", lambda o: o.spec.actor),
        Column("REASON", lambda o: o.spec.reason, wide=True),
        Column("MESSAGE", lambda o: o.status.message, wide=True),
    ),
    "Event": (
        Column("TIME", lambda o: show_time(o.time)),
        Column("TYPE", lambda o: o.type),
        Column("REASON", lambda o: o.reason),
        Column("OBJECT", lambda o: f"{o.regarding.kind}/{o.regarding.name}" if o.regarding.kind else ""),
        Column("NODE", lambda o: o.node),
        Column("MESSAGE", lambda o: o.message),
        Column("ACTOR", lambda o: o.actor, wide=True),
    ),
    "Cluster": (
        _NAME,
        Column("PROFILE", lambda o: o.spec.profile),
        Column("TIMING", lambda o: _timing(o.spec)),
        Column("ID", lambda o: o.status.cluster_id, wide=True),
    ),
}  # fmt: skip
