"""What lost networks ask for. Pure.

A group is concerned by the interfaces that its addresses use. A node is left for another one only when that one serves
better; what all nodes have lost moves nothing. What comes back is not trusted at once (``Fault.UNSTEADY``), so that a
bouncing link does not drag groups along.
"""

from __future__ import annotations

from collections.abc import Iterable

from hasys.model.networks import SEVERE, Fault, LostNetworks, Trouble
from hasys.model.view import GroupInfo, View
from hasys.placement.standing import standing

SETTLE = {Fault.LINK: 0.05, Fault.SILENT: 1.0, Fault.GATEWAY: 1.0}
"""Seconds between a node's word that it lost a network and the move: what struck all nodes at once is told by the
others within this time. A link that goes down is told at once; silence is noticed by counting, by each at its own
time."""


def troubles(node: str, view: View, now: float) -> list[Trouble]:
    """What is wrong on the node by its own word, as far as that proves something."""
    info = view.nodes.get(node)
    return [t for told in (info.networks if info else ()) if (t := _proven(told, view, now)) is not None]


def _proven(told: Trouble, view: View, now: float) -> Trouble | None:
    """Silence of members that are off, or without a link themselves, says nothing about the one who asked them."""
    if told.fault is not Fault.SILENT or any(_could_answer(name, view, now) for name in told.unheard):
        return told
    if told.gateway:
        return Trouble(told.interface, Fault.GATEWAY, told.text)
    return None


def _could_answer(name: str, view: View, now: float) -> bool:
    info = view.nodes.get(name)
    if info is None or any(t.fault is Fault.LINK for t in info.networks):
        return False
    return not standing(info, now, view).lost


def lost(group: GroupInfo, node: str, view: View, now: float) -> Trouble | None:
    """What the group cannot use on the node, by its rule (``network.lost``); None: nothing is wrong."""
    wanted = group.interfaces.get(node, frozenset())
    if group.lost_networks is LostNetworks.NEVER or not wanted:
        return None
    found = {}
    for trouble in troubles(node, view, now):
        if trouble.interface in wanted and (group.needs_gateway or trouble.fault is not Fault.GATEWAY):
            found[trouble.interface] = trouble
    if not found or (group.lost_networks is LostNetworks.ALL and len(found) < len(wanted)):
        return None
    worst = min if group.lost_networks is LostNetworks.ALL else max
    return worst(found.values(), key=lambda t: (t.fault, t.interface))


def severe(group: GroupInfo, node: str, view: View, now: float) -> Trouble | None:
    """What keeps anybody from being served by the group on this node."""
    trouble = lost(group, node, view, now)
    return trouble if trouble is not None and trouble.fault >= SEVERE else None


def fault(group: GroupInfo, node: str, view: View, now: float) -> int:
    """How bad it is; 0: well."""
    trouble = lost(group, node, view, now)
    return 0 if trouble is None else int(trouble.fault)


def to_leave(group: GroupInfo, view: View, now: float) -> Trouble | None:
    """What is wrong on the group's node; None: nothing that anybody would leave for."""
    trouble = lost(group, group.assignment.node, view, now)
    return trouble if trouble is not None and trouble.fault is not Fault.UNSTEADY else None


def better(group: GroupInfo, trouble: Trouble, able: Iterable[str], view: View, now: float) -> list[str]:
    """Of the nodes that can take the group, those that would serve it better than its present one."""
    found = []
    for node in able:
        other = fault(group, node, view, now)
        tried = trouble.fault is Fault.GATEWAY and node in group.failures  # there and back, without end
        if other < trouble.fault and other != Fault.UNSTEADY and node != group.assignment.node and not tried:
            found.append(node)
    return found


def settled(group: GroupInfo, trouble: Trouble, view: View) -> float:
    """When the other nodes have had their time to tell the same."""
    info = view.nodes[group.assignment.node]
    return (view.leader_since if info.networks_since is None else info.networks_since) + SETTLE[trouble.fault]
