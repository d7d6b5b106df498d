"""What a failover's time is made of, as the leader knows it: how long it took to notice, what it waited for. Pure."""

from __future__ import annotations

from hasys.model.view import Assignment, GroupInfo, NodeInfo, View
from hasys.placement import networks
from hasys.placement.standing import contact_since, standing


def trouble(group: GroupInfo, view: View, now: float) -> float:
    """Seconds since the holder was last heard, since it told of its network, or since monitors spoke against it; 0 when
    nothing does: an order, or a failure that was acted on when it was told."""
    holder = group.assignment.node
    node = view.nodes.get(holder)
    if node is None:
        return 0.0
    if standing(node, now, view).lost:
        return max(0.0, now - contact_since(node, view))
    since = [finding.since for finding in group.against(holder)]
    if networks.to_leave(group, view, now) is not None:
        since.append(node.networks_since)
    return max((now - (view.leader_since if s is None else s) for s in since), default=0.0)


def why_free(a: Assignment, previous: NodeInfo | None, group: str) -> str:
    """Why the node of the assignment may have the group now."""
    if a.previous_node in ("", a.node) or previous is None:
        return "nobody else held it"
    if previous.fence_confirmed:
        return f"an operator confirmed that {a.previous_node} is off"
    if previous.released.get(group, 0) >= a.previous_epoch:
        return f"{a.previous_node} released it"
    return f"the lease of {a.previous_node} is over"
