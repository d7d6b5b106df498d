"""How long what speaks against a group's node has lasted: the detection's part in a failover's time. Pure."""

from __future__ import annotations

from hasys.model.view import GroupInfo, View
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
