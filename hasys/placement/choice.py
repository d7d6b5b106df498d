"""Which node should run a group: the highest priority among those that can, then the name. No scores, no memory."""

from __future__ import annotations

from collections.abc import Iterable

from hasys.model.networks import Fault
from hasys.model.view import GroupInfo, View
from hasys.placement import networks
from hasys.placement.standing import standing


def ranked(group: GroupInfo) -> list[str]:
    """The group's nodes, preferred first."""
    return [c.node for c in sorted(group.candidates, key=lambda c: (-c.priority, c.node))]


def why_not(node: str, group: GroupInfo, view: View, now: float) -> str:
    """Why this node cannot take the group now; empty: it can."""
    info = view.nodes.get(node)
    if info is None:
        return "unknown node"
    if not info.runs_groups:
        return "a witness runs no groups"
    how = standing(info, now, view)
    if not how.ready:
        return f"{how.state.value}, {how.why}"
    trouble = networks.severe(group, node, view, now)
    return trouble.text if trouble is not None else gated(node, group)


def gated(node: str, group: GroupInfo) -> str:
    """What the group's gates wait for before it may go to this node; empty: nothing. They bind every node but the one
    that has the group, or had it last, and none before its first start."""
    return group.closed.get(node, "") if group.assignment.last not in ("", node) else ""


def gates(group: GroupInfo) -> str:
    """What the group waits for, node by node, to be put behind a reason: "; n2: gate replica: 87 is less than 95"."""
    waits = {n: gated(n, group) for n in ranked(group)}
    return "".join(f"; {node}: {why}" for node, why in waits.items() if why)


def able(group: GroupInfo, view: View, now: float, *, without: Iterable[str] = ()) -> list[str]:
    """Nodes that can take the group now, preferred first."""
    excluded = set(without)
    return [n for n in ranked(group) if n not in excluded and not why_not(n, group, view, now)]


def best(group: GroupInfo, view: View, now: float, *, without: Iterable[str] = ()) -> str | None:
    """The node to use: one that reaches its gateway before one that does not, then one against which no monitor speaks,
    then one where the group has not failed."""
    nodes = able(group, view, now, without=without)
    faults = {n: networks.fault(group, n, view, now) for n in nodes}
    rank = {n: (faults[n] >= Fault.GATEWAY, bool(group.unfit(n)), n in group.failures, faults[n]) for n in nodes}
    return min(nodes, key=lambda n: rank[n], default=None)


def untried(group: GroupInfo, view: View, now: float, *, without: Iterable[str] = ()) -> str | None:
    """The preferred able node on which the group has not failed, and against which no monitor speaks, if any."""
    nodes = able(group, view, now, without=without)
    return next((n for n in nodes if n not in group.failures and not group.unfit(n)), None)


def obstacles(group: GroupInfo, view: View, now: float, *, without: Iterable[str] = ()) -> str:
    """Why no node can take the group, node by node: "n2: Lost, no keep-alive"."""
    excluded = set(without)
    reasons = {n: why_not(n, group, view, now) for n in ranked(group) if n not in excluded}
    return "; ".join(f"{n}: {why}" for n, why in reasons.items() if why) or "it has no other node"


def complaints(group: GroupInfo, view: View, now: float, *, without: Iterable[str] = ()) -> str:
    """Like :func:`obstacles`, with what is wrong with nodes that can take it."""
    excluded = set(without)
    parts = []
    for node in ranked(group):
        trouble = networks.lost(group, node, view, now)
        why = why_not(node, group, view, now) or (trouble.text if trouble is not None else "it failed there")
        if node not in excluded:
            parts.append(f"{node}: {why}")
    return "; ".join(parts) or "it has no other node"
