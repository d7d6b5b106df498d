"""The node that a failover left is rebooted, for groups that ask for it: once, fenced, and with nothing else on it."""

from __future__ import annotations

from dataclasses import replace

from hasys.model.view import Assignment, Reboot
from hasys.placement.draft import Draft
from hasys.placement.standing import in_contact


def want(draft: Draft, name: str, left: Assignment) -> None:
    """The group has failed over from the node of this assignment."""
    node = draft.nodes.get(left.node)
    if draft.groups[name].reboots and node is not None and node.boot_id:
        cause = draft.groups[name].assignment.cause
        draft.reboot(left.node, Reboot(node.boot_id, name, left.epoch, cause))


def look(draft: Draft, name: str) -> None:
    """Ask the node to reboot when its release of the group is confirmed; a node that has other groups keeps running."""
    node = draft.nodes[name]
    wanted = node.reboot
    if wanted is None or not in_contact(node, draft.now, draft.view):
        return
    if node.boot_id != wanted.boot_id:
        draft.reboot(name, None)
        return
    if wanted.due or node.released.get(wanted.group, 0) < wanted.epoch:
        return
    others = sorted(
        g.name
        for g in draft.groups.values()
        if g.assignment.node == name or (name in g.may_hold and g.name != wanted.group)
    )
    if others:
        draft.reboot(name, None)
        draft.node_event(name, "NodeNotRebooted", cause=f"it has {', '.join(others)}")
    else:
        draft.reboot(name, replace(wanted, due=True))
        draft.node_event(name, "NodeRebooting", cause=f"{wanted.group} failed over: {wanted.cause}")
