"""``hasys status``: the contract's JSON, and the same for people. Pure functions of one answer of the server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group as Stack
from rich.text import Text

from hasys.api.convert import nanoseconds, show_duration, show_time
from hasys.cli.output import styled, table, taken
from hasys.v1 import api_pb2 as api
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb


def status_json(status: api.StatusResponse) -> dict[str, Any]:
    """The shape that the contract fixes; additions are free, renames are not."""
    return {
        "cluster": _cluster_json(status.cluster),
        "nodes": [_node_json(node) for node in status.nodes],
        "groups": [_group_json(group) for group in status.groups],
    }


def _cluster_json(cluster: api.ClusterView) -> dict[str, Any]:
    return {
        "name": cluster.name,
        "leader": cluster.leader,
        "term": cluster.term,
        "quorum": cluster.quorum,
        "voters": cluster.voters,
        "profile": cluster.profile,
        "policy": cluster.policy,
        "failoverBound": _bound(cluster),
        "time": show_time(cluster.time),
    }


def _bound(view: api.ClusterView | api.GroupView) -> str:
    """Within how long a failover is done; empty when nobody can say: the member that answers does not lead."""
    return show_duration(view.failover_bound) if view.HasField("failover_bound") else ""


def _node_json(node: api.NodeView) -> dict[str, Any]:
    return {
        "name": node.name,
        "role": node.role,
        "state": node.state,
        "lease": {"valid": node.lease.valid, "epoch": node.lease.epoch},
        "version": node.version,
        "guard": {"armed": node.guard.armed, "watchdog": node.guard.watchdog or "none"},
        "message": node.message or node.guard.message,
        "cut": list(node.cut),
        **({"figures": _figures_json(node.figures)} if node.HasField("figures") else {}),
        "networks": dict(node.networks),
    }


def _figures_json(figures: mpb.NodeFigures) -> dict[str, Any]:
    """Live figures: percent, bytes per second."""
    host = figures.host
    return {
        "cpu": round(figures.cpu, 1),
        "memory": round(figures.memory, 1),
        "processes": figures.processes,
        "traffic": {
            name: {"received": round(one.received), "sent": round(one.sent)}
            for name, one in sorted(figures.traffic.items())
        },
        "monitors": [
            {"group": m.group, "name": m.name, "value": round(m.value, 3), "unit": m.unit} for m in figures.monitors
        ],
        "host": {
            "model": host.model, "os": host.os, "kernel": host.kernel, "processor": host.processor,
            "processors": host.processors, "memory": host.memory, "uptime": show_duration(host.uptime),
        },
        "own": [_own_json(process) for process in figures.own],
        "time": show_time(figures.time),
    }  # fmt: skip


def _own_json(process: mpb.OwnProcess) -> dict[str, Any]:
    """Memory in bytes; pid 0: it does not run."""
    return {
        "role": process.role,
        "pid": process.pid,
        "uptime": show_duration(process.uptime),
        "restarts": process.restarts,
        "memory": process.memory,
    }


def _group_json(group: api.GroupView) -> dict[str, Any]:
    return {
        "name": group.name,
        "mode": group.mode,
        "failoverMode": group.failover_mode,
        "paused": group.paused,
        "active": group.active,
        "epoch": group.epoch,
        "phase": group.phase,
        "failoverBound": _bound(group),
        "redundant": group.redundant,
        "reason": group.reason,
        "nodes": dict(sorted(group.nodes.items())),
        "resources": [
            {"kind": r.kind, "name": r.name, "node": r.node, "state": r.state, "message": r.message}
            for r in group.resources
        ],
        "monitors": [
            {
                "name": m.name,
                "watches": m.watches,
                "node": m.node,
                "state": m.state,
                "message": m.message,
                "action": m.action,
            }
            for m in group.monitors
        ],
    }


OWN_COLUMNS = ("PROCESS", "PID", "UPTIME", "RESTARTS", "MEMORY")


def own_row(process: mpb.OwnProcess) -> list[str]:
    """One of hasys's own processes on a node."""
    if not process.pid:
        return [process.role, "does not run", "-", "-", "-"]
    memory = f"{process.memory / 2**20:.0f} MiB"
    return [process.role, str(process.pid), show_duration(process.uptime), str(process.restarts), memory]


def status_page(status: api.StatusResponse, events: Sequence[pb.Event] = ()) -> Stack:
    """Cluster line, nodes, groups with their resources, and the latest events."""
    nodes = [_node_row(node, known=bool(status.cluster.leader)) for node in status.nodes]
    parts: list[object] = [_cluster_line(status.cluster), Text()]
    parts += [table(("NODE", "ROLE", "STATE", "LEASE", "GUARD", "VERSION", "MESSAGE"), nodes)]
    parts += [Text()]
    if status.groups:
        rows = [row for group in status.groups for row in _group_rows(group)]
        parts += [table(("GROUP", "PHASE", "ACTIVE", "STANDBY", "FAILOVER", "BOUND", "REASON"), rows)]
    else:
        parts += [Text("no groups yet: hasys apply -f FILE", style="dim")]
    if events:
        parts += [Text(), table(("TIME (UTC)", "EVENT", "NODE", "MESSAGE"), map(_latest_row, events))]
    return Stack(*parts)  # type: ignore[arg-type]


EVENT_COLUMNS = ("TIME", "TYPE", "REASON", "OBJECT", "NODE", "MESSAGE")


def event_row(event: pb.Event) -> list[str | Text]:
    """One line of ``hasys events``."""
    regarding = event.regarding
    subject = f"{regarding.kind}/{regarding.name}" if regarding.kind else "-"
    took = f" ({taken(event.duration)})" if nanoseconds(event.duration) else ""
    return [
        show_time(event.time), styled(event.type), Text(event.reason), Text(subject), Text(event.node or "-"),
        Text(event.message + took),
    ]  # fmt: skip


def _latest_row(event: pb.Event) -> list[str | Text]:
    """An event among the latest few: the date and the object are in its text or go without saying."""
    time, _, _, _, node, message = event_row(event)
    return [str(time)[11:19], Text(event.reason, style=styled(event.type).style), node, message]


def _cluster_line(cluster: api.ClusterView) -> Text:
    line = Text.assemble(("cluster ", "dim"), (cluster.name, "bold"))
    if cluster.quorum:
        line.append(f"   leader {cluster.leader} (term {cluster.term})")
        line.append("   quorum", style="green")
    else:
        held = "nodes keep what they hold" if cluster.policy else "leases are not renewed"
        line.append(f"   no quorum: nothing can be changed, {held}", style="bold red")
    line.append(f"   {cluster.voters} voters   profile {cluster.profile}")
    if cluster.policy:
        line.append(f"   policy {cluster.policy}")
    if bound := _bound(cluster):
        line.append(f"   failover within {bound}")
    return line


def _node_row(node: api.NodeView, *, known: bool) -> list[str | Text]:
    """``known``: a leader answers, who hears the guards."""
    if not known or node.role == "Witness" or node.state == "Lost":
        lease, guard = Text("-", style="dim"), Text("-", style="dim")
    else:
        lease = Text(f"epoch {node.lease.epoch}", style="green") if node.lease.valid else Text("none", style="yellow")
        guard = _guard_cell(node.guard)
    message = node.message or node.guard.message
    return [Text(node.name, style="bold"), Text(node.role), styled(node.state), lease, guard,
            Text(node.version or "-"), Text(message)]  # fmt: skip


def _guard_cell(guard: api.GuardView) -> Text:
    if not guard.armed:
        return styled("guard must run")
    watchdog = guard.watchdog or "none"
    return Text("armed", style="green") + Text("" if watchdog == "none" else f", {watchdog}")


def _group_rows(group: api.GroupView) -> Iterable[list[str | Text]]:
    standby = ", ".join(sorted(name for name, role in group.nodes.items() if role == "Standby"))
    mode = Text("paused", style="yellow") if group.paused else Text(group.failover_mode)
    notes = [group.reason] if group.reason else []
    if not group.redundant:
        notes.append("not redundant")
    yield [
        Text(group.name, style="bold"), styled(group.phase), Text(group.active or "-"), Text(standby or "-"), mode,
        Text(_bound(group) or "-"), Text("; ".join(notes), style="" if group.redundant else "yellow"),
    ]  # fmt: skip
    last = len(group.resources) + len(group.monitors) - 1
    for i, resource in enumerate(group.resources):
        branch = "└" if i == last else "├"
        yield [
            Text(f" {branch} {resource.kind}/{resource.name}"), styled(resource.state), Text(resource.node or "-"),
            Text(""), Text(""), Text(""), Text(resource.message),
        ]  # fmt: skip
    for i, monitor in enumerate(group.monitors, start=len(group.resources)):
        branch = "└" if i == last else "├"
        yield [
            Text(f" {branch} Monitor/{monitor.name}"), styled(monitor.state), Text(monitor.node or "-"),
            Text(""), Text(""), Text(""), Text(monitor.message),
        ]  # fmt: skip
