"""Which node should run a group: the highest priority among those that can, then the name. No scores, no memory."""

from __future__ import annotations

from collections.abc import Iterable

from hasys.model.view import GroupInfo, View
from hasys.placement.standing import standing


def ranked(group: GroupInfo) -> list[str]:
    """The group's nodes, preferred first."""
    return [c.node for c in sorted(group.candidates, key=lambda c: (-c.priority, c.node))]


def why_not(node: str, view: View, now: float) -> str:
    """Why this node cannot take a group now; empty: it can."""
    info = view.nodes.get(node)
    if info is None:
        return "unknown node"
    if not info.runs_groups:
        return "a witness runs no groups"
    how = standing(info, now, view)
    return "" if how.ready else f"{how.state.value}, {how.why}"


def able(group: GroupInfo, view: View, now: float, *, without: Iterable[str] = ()) -> list[str]:
    """Nodes that can take the group now, preferred first."""
    excluded = set(without)
    return [n for n in ranked(group) if n not in excluded and not why_not(n, view, now)]


def best(group: GroupInfo, view: View, now: float, *, without: Iterable[str] = ()) -> str | None:
    """The node to use: one against which no monitor speaks, then one where the group has not failed, comes first."""
    nodes = able(group, view, now, without=without)
    return min(nodes, key=lambda n: (bool(group.unfit(n)), n in group.failures), default=None)


def untried(group: GroupInfo, view: View, now: float, *, without: Iterable[str] = ()) -> str | None:
    """The preferred able node on which the group has not failed, and against which no monitor speaks, if any."""
    nodes = able(group, view, now, without=without)
    return next((n for n in nodes if n not in group.failures and not group.unfit(n)), None)


def obstacles(group: GroupInfo, view: View, now: float, *, without: Iterable[str] = ()) -> str:
    """Why no node can take the group, node by node: "n2: Lost, no keep-alive"."""
    excluded = set(without)
    parts = [f"{n}: {why_not(n, view, now)}" for n in ranked(group) if n not in excluded and why_not(n, view, now)]
    return "; ".join(parts) or "it has no other node"
