"""What ``hasys top`` knows of the cluster, and the rows that it shows of it. Pure: no terminal, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hasys.api.convert import show_time
from hasys.api.kinds import Ref, ref_of
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

EVENTS_KEPT = 200
"""Of the latest events; the store keeps more."""
SILENCE = 2.5
"""Seconds without an answer, which otherwise comes each second, after which the screen says so."""

_CALM = ("Ok", "Waiting")


class Row(NamedTuple):
    """One line of a table."""

    key: str
    """Stays the same while the line is about the same thing."""
    cells: tuple[str, ...]

    def matches(self, words: str) -> bool:
        """Is every word of the filter in this line, whatever the case?"""
        line = " ".join(self.cells).lower()
        return all(word in line for word in words.lower().split())


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that was heard so far."""

    status: api.StatusResponse = field(default_factory=api.StatusResponse)
    objects: dict[Ref, pb.Object] = field(default_factory=dict)
    """Groups with their resources and monitors, as the watch told them."""
    events: tuple[pb.Event, ...] = ()
    """Oldest first."""

    def with_status(self, status: api.StatusResponse) -> Picture:
        """The cluster looks like this now."""
        return replace(self, status=status)

    def forgetting_objects(self) -> Picture:
        """A watch begins anew, with all that there is."""
        return replace(self, objects={}, events=())

    def with_changes(self, changes: Sequence[api.Change]) -> Picture:
        """What a watch said."""
        objects, events = dict(self.objects), {e.metadata.name: e for e in self.events}
        for change in changes:
            if not change.object.WhichOneof("kind"):
                continue
            gone = change.type == api.WatchResponse.DELETED
            if change.object.HasField("event"):
                event = change.object.event
                if gone:
                    events.pop(event.metadata.name, None)
                else:
                    events[event.metadata.name] = event
            elif gone:
                objects.pop(ref_of(change.object), None)
            else:
                objects[ref_of(change.object)] = change.object
        latest = sorted(events.values(), key=lambda e: e.metadata.resource_version)[-EVENTS_KEPT:]
        return replace(self, objects=objects, events=tuple(latest))

    def group(self, name: str) -> api.GroupView | None:
        """The group as the status has it."""
        return next((g for g in self.status.groups if g.name == name), None)

    def node(self, name: str) -> api.NodeView | None:
        """The node as the status has it."""
        return next((n for n in self.status.nodes if n.name == name), None)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a line is about: ``group web``, ``monitor web/page``."""

    panel: str
    """``groups``, ``nodes``, ``monitors`` or ``events``."""
    key: str

    @property
    def group(self) -> str:
        """The group that it names; empty for a node or an event."""
        return self.key.partition("/")[0] if self.panel in ("groups", "monitors") else ""


COLUMNS = {
    "groups": ("GROUP", "PHASE", "ACTIVE", "STANDBY", "FAILOVER", "REASON"),
    "nodes": ("NODE", "ROLE", "STATE", "LEASE", "CPU", "MEMORY", "MESSAGE"),
    "monitors": ("MONITOR", "STATE", "WATCHES", "NODE", "MESSAGE"),
    "events": ("TIME", "EVENT", "NODE", "MESSAGE"),
}
"""The tables from top to bottom."""


def rows(picture: Picture, panel: str, words: str = "") -> list[Row]:
    """The lines of a table that the filter lets through."""
    made = {"groups": _groups, "nodes": _nodes, "monitors": _monitors, "events": _events}[panel](picture)
    return [row for row in made if row.matches(words)]


def _groups(picture: Picture) -> list[Row]:
    return [Row(group.name, _group_cells(group)) for group in picture.status.groups]


def _group_cells(group: api.GroupView) -> tuple[str, ...]:
    standby = ",".join(sorted(name for name, role in group.nodes.items() if role == "Standby"))
    failed = [f"{m.name} {m.state}" for m in group.monitors if m.state not in _CALM]
    stuck = [f"{r.name} {r.state}" for r in group.resources if r.state == "Failed"]
    notes = [group.reason, *stuck, *failed, "" if group.redundant else "not redundant"]
    mode = "paused" if group.paused else group.failover_mode
    return (group.name, group.phase, group.active or "-", standby or "-", mode, "; ".join(n for n in notes if n))


def _nodes(picture: Picture) -> list[Row]:
    known = bool(picture.status.cluster.leader)
    return [Row(node.name, _node_cells(node, known=known)) for node in picture.status.nodes]


def _node_cells(node: api.NodeView, *, known: bool) -> tuple[str, ...]:
    """``known``: a leader answers, who hears the guards."""
    silent = not known or node.role == "Witness" or node.state == "Lost"
    lease = "-" if silent else f"epoch {node.lease.epoch}" if node.lease.valid else "none"
    cpu, memory = (f"{node.figures.cpu:.0f}%", f"{node.figures.memory:.0f}%") if node.HasField("figures") else "--"
    guard = "guard must run" if not silent and not node.guard.armed else ""
    notes = [guard, node.message or node.guard.message, *(f"{i}: {why}" for i, why in sorted(node.networks.items()))]
    return (node.name, node.role, node.state, lease, cpu, memory, "; ".join(n for n in notes if n))


def _monitors(picture: Picture) -> list[Row]:
    return [
        Row(f"{group.name}/{m.name}", (f"{group.name}/{m.name}", m.state, m.watches, m.node or "-", m.message))
        for group in picture.status.groups
        for m in group.monitors
    ]


def _events(picture: Picture) -> list[Row]:
    """The latest first: the screen has room for few."""
    return [
        Row(e.metadata.name, (show_time(e.time)[11:19], e.reason, e.node or "-", e.message))
        for e in reversed(picture.events)
    ]


def headline(picture: Picture, silent: float) -> str:
    """The cluster in one line. ``silent``: seconds since a server answered."""
    cluster = picture.status.cluster
    if silent > SILENCE:
        return f"{cluster.name}: no server has answered for {silent:.0f} s; trying on (this is what was known then)"
    if not cluster.quorum:
        held = "nodes keep what they hold" if cluster.policy else "leases are not renewed"
        return f"{cluster.name}: no quorum: nothing can be changed, {held}"
    leads = f"leader {cluster.leader} (term {cluster.term})"
    policy = f"  policy {cluster.policy}" if cluster.policy else ""
    return f"{cluster.name}  {leads}  quorum  {cluster.voters} voters  profile {cluster.profile}{policy}"
