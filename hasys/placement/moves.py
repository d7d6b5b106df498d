"""A planned move in progress: what it waits for, and for how long."""

from __future__ import annotations

from hasys.model.view import GroupInfo, ResourceInfo, ResourceState
from hasys.placement import networks
from hasys.placement.draft import Draft
from hasys.placement.standing import lost_at

CUT_OFF_STOP = 2.0
"""Seconds that an orderly stop may take where nobody is served meanwhile: then it is fenced there."""


def finish(draft: Draft, name: str) -> None:
    """A planned move waits for its old node only so long: then that group is fenced there, and the blocker named."""
    group = draft.groups[name]
    a = group.assignment
    if not group.moving:
        previous = draft.nodes.get(a.previous_node)
        confirmed = previous is not None and previous.released.get(name, 0) >= a.previous_epoch
        if previous_is_out(group) and not a.revoked and not confirmed and not group.deleting:
            # its grant ended without a release: the new node need not wait for one
            draft.assign(name, a.let_go(group.may_hold))
        return
    previous = draft.nodes.get(a.previous_node)
    cut_off = networks.severe(group, a.previous_node, draft.view, draft.now) is not None
    overdue = draft.begun(group.epoch_since) + (
        min(group.stop_timeout, CUT_OFF_STOP) if cut_off else group.stop_timeout
    )
    if previous is None or draft.standing(a.previous_node).lost:
        cause = f"{a.previous_node} was lost meanwhile"
    elif draft.now >= overdue:
        cause = f"the stop time passed; {blocker(group)}"
    else:
        draft.look_at(overdue)
        draft.look_at(lost_at(previous, draft.view))
        return
    draft.assign(name, a.revoke_previous())
    draft.group_event(name, "StopOverdue", node=a.previous_node, cause=cause)


def previous_is_out(group: GroupInfo) -> bool:
    """The recorded previous holder is proven not to hold the group any more."""
    a = group.assignment
    return bool(a.previous_node) and (a.previous_node == a.node or a.previous_node not in group.may_hold)


def blocker(group: GroupInfo) -> str:
    """What the previous holder had not stopped, in words."""
    left = [f"{r.name} is {r.state.value}" + (f": {r.message}" if r.message else "") for r in unstopped(group)]
    return "blocked by " + "; ".join(left) if left else f"{group.assignment.previous_node} reports nothing"


def unstopped(group: GroupInfo) -> list[ResourceInfo]:
    """What the previous holder had not stopped, as last reported."""
    a = group.assignment
    holder = (a.previous_node, a.previous_epoch)
    return [r for r in group.resources if (r.node, r.epoch) == holder and r.state is not ResourceState.STOPPED]
