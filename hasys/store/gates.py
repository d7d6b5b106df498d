"""Gates of a group: monitors that must be Ok on a node before the group may go there. Pure.

A gate says nothing about the node that has the group, or had it last: what it has is the latest there is.
"""

from __future__ import annotations

from collections.abc import Mapping

from hasys.api.kinds import Ref
from hasys.v1 import objects_pb2 as pb


def closed(group: pb.Group, members: Mapping[Ref, pb.Object]) -> dict[str, str]:
    """Node -> what the group waits for there; a node without a closed gate is left out."""
    found = {}
    for node in group.spec.nodes:
        reasons = [
            f"gate {gate}: {why}"
            for gate in group.spec.failover.gates
            if (why := _why_closed(group, gate, node.name, members))
        ]
        if reasons:
            found[node.name] = "; ".join(reasons)
    return found


def _why_closed(group: pb.Group, gate: str, node: str, members: Mapping[Ref, pb.Object]) -> str:
    """Empty: it is open."""
    obj = members.get(Ref("Monitor", group.metadata.name, gate))
    if obj is None or obj.monitor.metadata.HasField("deleting"):
        return "there is no such monitor"
    result = obj.monitor.status.nodes.get(node)
    fresh = result is not None and result.observed_generation == obj.monitor.metadata.generation
    if result is None or not fresh or result.state in ("Idle", "Waiting", ""):
        return "it has not looked yet"
    return "" if result.state == "Ok" else result.message or result.state
