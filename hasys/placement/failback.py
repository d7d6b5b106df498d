"""Failback, for groups that ask for it: after a failover back to a better node, in order, once all has been quiet."""

from __future__ import annotations

from hasys.model.timing import show
from hasys.model.view import Phase
from hasys.placement import choice, networks
from hasys.placement.draft import Draft
from hasys.placement.policy import Policy, policy_of


def look(draft: Draft, name: str) -> None:
    """Move the group, or look again when its better node will have been Ready for long enough."""
    group = draft.groups[name]
    if group.failback is None or group.moving or group.phase is not Phase.RUNNING:
        return
    if policy_of(group, draft.view, draft.now) is not Policy.AUTO or _chosen(draft, name):
        return
    target = better(draft, name)
    if target is None:
        return
    due = max(draft.begun(group.phase_since), draft.begun(draft.nodes[target].state_since)) + group.failback
    draft.look_at(due)
    if draft.now < due:
        return
    holder = group.assignment.node
    cause = f"failback: {target} has been well for {show(group.failback)}"
    draft.assign(name, group.assignment.moved(target, cause, revoke=False))
    draft.group_event(name, "MoveStarted", node=target, previous=holder, cause=cause)


def better(draft: Draft, name: str) -> str | None:
    """The best node of higher priority against which nothing speaks."""
    group = draft.groups[name]
    own = group.candidate(group.assignment.node)
    for node in choice.able(group, draft.view, draft.now, without=[group.assignment.node]):
        other = group.candidate(node)
        if own is None or other is None or other.priority <= own.priority:
            return None  # those that follow are no better
        if (
            node not in group.failures
            and not group.unfit(node)
            and not networks.fault(group, node, draft.view, draft.now)
        ):
            return node
    return None


def _chosen(draft: Draft, name: str) -> bool:
    """An operator put it where it is."""
    a = draft.groups[name].assignment
    return bool(a.operation) and a.attempt == 0
