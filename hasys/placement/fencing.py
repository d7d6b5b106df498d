"""When a lost node is switched off from outside, and what follows from it. How is the agent's business.

A lease ends by itself, so nobody has to be switched off for an address. A node whose guard is dead may still run
programs and keep disks mounted: that is what this level is for. It is asked for once per loss; what fails is left to an
operator, for switching machines off and on in a loop mends nothing.
"""

from __future__ import annotations

from hasys.model.view import NodeInfo, OperationInfo
from hasys.placement.draft import Draft
from hasys.placement.standing import in_contact, lost_at

ATTEMPTS = 3
"""How often the agent is run before it has failed (hasys.resources.fence_agent)."""
ALLOWANCE = 30.0
"""Seconds beyond its attempts until the node that runs it must have said how it ended."""


def look(draft: Draft, name: str) -> None:
    """Ask for it when the node has been lost for long enough and may hold something; forget a failure when it is
    heard again."""
    node = draft.nodes[name]
    fencing = node.fencing
    if fencing is None:
        return
    if in_contact(node, draft.now, draft.view):
        if fencing.failed:
            draft.end_fence(name)
        return
    if fencing.operation or fencing.failed or not _needed(draft, node):
        return
    due = lost_at(node, draft.view) + fencing.delay
    draft.look_at(due)
    by = next((n for n in fencing.nodes or sorted(draft.nodes) if n != name and _able(draft, n)), "")
    if draft.now >= due and by:
        cause = f"{by} with {fencing.agent}: {draft.standing(name).why}"
        draft.ask_fence(name, by, cause)
        draft.node_event(name, "FenceStarted", cause=cause)


def begin(draft: Draft, op: OperationInfo) -> str:
    """The agent that is named begins when it sees this."""
    if _is_back(draft, op):
        draft.end_fence(op.node)
        return f"{op.node} is heard again"
    draft.start(op)
    return ""


def watch(draft: Draft, op: OperationInfo) -> None:
    """Has it been switched off?"""
    if op.outcome and op.succeeded:
        draft.end_fence(op.node)
        if not _is_back(draft, op):  # else it was rebooted, and what is heard is the next boot
            draft.fence_confirmed(op.node, True)
            draft.node_event(op.node, "NodeFenced", cause=f"{op.by}: {op.outcome}")
        draft.finish(op, True, f"{op.by}: {op.outcome}")
    elif op.outcome:
        draft.end_fence(op.node, op.outcome)
        draft.node_event(op.node, "FenceFailed", cause=f"{op.by}: {op.outcome}")
        draft.finish(op, False, f"{op.by}: {op.outcome}")
    else:
        deadline = draft.begun(op.since) + ATTEMPTS * 2 * op.timeout + ALLOWANCE
        draft.look_at(deadline)
        if draft.now >= deadline or not _able(draft, op.by):
            draft.end_fence(op.node)
            draft.finish(op, False, f"{op.by} has not said how it ended")


def _needed(draft: Draft, node: NodeInfo) -> bool:
    """Lost, not known to be off, and perhaps with something of a group."""
    if not draft.standing(node.name).lost or node.fence_confirmed or node.shutdown_boot_id:
        return False
    return any(
        node.name in g.may_hold or node.name in (g.assignment.node, g.assignment.previous_node)
        for g in draft.groups.values()
    )


def _able(draft: Draft, name: str) -> bool:
    node = draft.nodes.get(name)
    return node is not None and node.runs_groups and node.agent_alive and in_contact(node, draft.now, draft.view)


def _is_back(draft: Draft, op: OperationInfo) -> bool:
    node = draft.nodes.get(op.node)
    return node is None or in_contact(node, draft.now, draft.view)
