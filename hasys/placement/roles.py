"""What a node is in a group, for people: Active, Standby, or why neither."""

from __future__ import annotations

from hasys.model.view import GroupInfo, NodeState, Phase, View
from hasys.placement import networks
from hasys.placement.standing import standing

ACTIVE, STANDBY, STARTING, STOPPING, FAILED = "Active", "Standby", "Starting", "Stopping", "Failed"


def role_of(node: str, group: GroupInfo, view: View, now: float) -> str:
    """Active | Standby | Starting | Stopping | Failed, or the node's state when that keeps it from being Standby."""
    a = group.assignment
    info = view.nodes.get(node)
    how = standing(info, now, view).state if info is not None else NodeState.LOST
    if node == a.node:
        if how is NodeState.LOST:
            return how.value
        if group.phase in (Phase.RUNNING, Phase.DEGRADED):
            return ACTIVE
        if group.phase in (Phase.FAILED, Phase.BLOCKED):
            return FAILED
        return STARTING
    if node == a.previous_node and group.moving:
        return STOPPING
    if how is not NodeState.READY:
        return how.value
    if networks.severe(group, node, view, now) is not None:
        return NodeState.NOT_READY.value
    return FAILED if node in group.failures else STANDBY
