"""An operator's commands: checked, begun, and ended. Each has an end: success, a reason, or its deadline.

``begin`` handles a pending operation (it may finish at once), ``watch`` one that runs. Operations act through the same
assignment as automatic decisions and skip conditions only where their name says so; none skips S1, which is the
grants' business.
"""

from __future__ import annotations

from collections.abc import Callable

from hasys.model.view import GroupInfo, NodeState, OperationInfo, OperationType, Phase
from hasys.placement import choice, fencing, limits, networks
from hasys.placement.draft import Draft
from hasys.placement.policy import Policy, policy_of
from hasys.placement.standing import NOT_HEARD, first_look

START_ALLOWANCE = 300.0
"""Seconds that a start may take before the operation that asked for it ends as failed (the start itself goes on)."""
RUN_ALLOWANCE = 30.0
"""Seconds beyond a command's timeout until its node must have said how it ended."""

_IN_HAND = (
    OperationType.SWITCHOVER, OperationType.FAILOVER, OperationType.RESOLVE, OperationType.RETRY, OperationType.RESUME,
)  # fmt: skip
"""After one of these the failovers of a group are counted anew."""
_BY_AGENTS = (OperationType.RUN, OperationType.RESTART_PROCESS)
_OF_NODES = (OperationType.DRAIN, OperationType.UNDRAIN, OperationType.FENCE_CONFIRM, *_BY_AGENTS)


def begin(draft: Draft, op: OperationInfo) -> None:
    """A pending operation. What it cannot do, it refuses with the reason.

    What a new leader would refuse before it has heard every guard waits for that, and so does emptying a node, which
    stops what has nowhere to go.
    """
    missing = _missing(draft, op)
    if missing:
        draft.finish(op, False, missing)
        return
    early = _hears_more_soon(draft)
    refusal = "too early" if early and op.type is OperationType.DRAIN else _BEGIN[op.type](draft, op)
    if refusal and early:
        draft.look_at(first_look(draft.view))
    elif refusal:
        draft.finish(op, False, refusal)
    elif op.type in _IN_HAND:
        limits.forget(draft, op.group)


def _hears_more_soon(draft: Draft) -> bool:
    """A new leader listens, and some guard has not been heard yet."""
    unheard = (n for n in draft.nodes.values() if n.runs_groups and draft.standing(n.name) is NOT_HEARD)
    return draft.now < first_look(draft.view) and any(unheard)


def watch(draft: Draft, op: OperationInfo) -> None:
    """A running operation: has it reached its end?"""
    if op.type is OperationType.FENCE:
        fencing.watch(draft, op)
    elif op.type in _BY_AGENTS:
        _watch_run(draft, op)
    elif op.group:
        _watch_group(draft, op)
    else:
        _watch_drain(draft, op)


def _missing(draft: Draft, op: OperationInfo) -> str:
    """Why the operation names nothing that exists; empty: it does."""
    needs_group = op.type not in (*_OF_NODES, OperationType.FENCE)
    if needs_group:
        group = draft.groups.get(op.group)
        if group is None:
            return f"group {op.group} does not exist"
        if group.deleting:
            return f"group {op.group} is being deleted"
        if group.farm:
            return f"group {op.group} is a Farm: every node serves it"
    if (op.node or not needs_group) and op.node not in draft.nodes:
        return f"node {op.node or '(none named)'} does not exist"
    return ""


# ---------------------------------------------------------------- moving a group
def _move(draft: Draft, op: OperationInfo, node: str, *, revoke: bool) -> str:
    group = draft.groups[op.group]
    holder = group.assignment.node
    draft.assign(op.group, group.assignment.moved(node, op.cause, operation=op.name, revoke=revoke))
    reason = "GroupAssigned" if not holder else "FailoverStarted" if revoke else "MoveStarted"
    draft.group_event(op.group, reason, actor=op.actor, node=node, previous=holder, cause=op.cause)
    draft.start(op, draft.groups[op.group].assignment.epoch)
    return ""


def _switchover(draft: Draft, op: OperationInfo) -> str:
    group = draft.groups[op.group]
    a = group.assignment
    if group.moving:
        return f"{op.group} is already moving from {a.previous_node} to {a.node or 'nobody'}: {a.cause}"
    if op.node and op.node == a.node:
        return f"{op.group} is already on {op.node}"
    if op.node:
        if group.candidate(op.node) is None:
            return f"{op.node} is not one of the nodes of {op.group}: {', '.join(choice.ranked(group))}"
        why = choice.why_not(op.node, group, draft.view, draft.now)
        if why:
            return f"{op.node} cannot take {op.group}: {why}"
    target = op.node or choice.best(group, draft.view, draft.now, without=[a.node])
    if not target:
        return f"no other node can take {op.group}: {choice.obstacles(group, draft.view, draft.now, without=[a.node])}"
    gone = a.node in draft.nodes and draft.standing(a.node).lost
    return _move(draft, op, target, revoke=gone)


def _force(draft: Draft, op: OperationInfo) -> str:
    """To the named node at once. Refused is only what undoes itself: a lost or drained node gives it away again."""
    group = draft.groups[op.group]
    if not op.node:
        return "name the node: --to NODE"
    if group.candidate(op.node) is None:
        return f"{op.node} is not one of the nodes of {op.group}: {', '.join(choice.ranked(group))}"
    if op.node == group.assignment.node and group.phase in (Phase.RUNNING, Phase.DEGRADED):
        return f"{op.group} is already on {op.node}"
    node = draft.nodes[op.node]
    if draft.standing(op.node).lost or node.leaving or not node.runs_groups:
        return f"{op.node} cannot take {op.group}: {choice.why_not(op.node, group, draft.view, draft.now)}"
    trouble = networks.severe(group, op.node, draft.view, draft.now)
    others = choice.able(group, draft.view, draft.now, without=[op.node])
    if trouble is not None and others and policy_of(group, draft.view, draft.now) is Policy.AUTO:
        return f"{op.node} would give {op.group} away again, {trouble.text}: hasys pause {op.group} first"
    return _move(draft, op, op.node, revoke=True)


def _resolve(draft: Draft, op: OperationInfo) -> str:
    group = draft.groups[op.group]
    if op.role == "active":
        if op.node == group.assignment.node and group.phase in (Phase.RUNNING, Phase.DEGRADED):
            draft.finish(op, True, f"{op.node} is Active for {op.group}", group.assignment.epoch)
            return ""
        return _force(draft, op)
    if op.role != "standby":
        return f"role {op.role or '(none)'}: use active or standby"
    if op.node != group.assignment.node:
        draft.finish(op, True, f"{op.node} is not Active for {op.group}", group.assignment.epoch)
        return ""
    target = choice.best(group, draft.view, draft.now, without=[op.node])
    if not target:
        return f"no other node can take {op.group}: " + choice.obstacles(
            group, draft.view, draft.now, without=[op.node]
        )
    return _move(draft, op, target, revoke=True)


def _retry(draft: Draft, op: OperationInfo) -> str:
    """Run again what failed. Where the group was fenced or nobody has it, that is a new start."""
    group = draft.groups[op.group]
    a = group.assignment
    if op.step and op.step not in {r.name for r in group.resources}:
        return f"{op.group} has no resource {op.step}"
    if group.phase is Phase.RUNNING:
        draft.finish(op, True, f"nothing of {op.group} has failed", a.epoch)
        return ""
    if a.node and draft.standing(a.node).lost:
        return f"{a.node} is lost: hasys switchover {op.group}"
    for node in list(group.failures):
        draft.failure(op.group, node, None)
    if not a.node:
        target = choice.best(draft.groups[op.group], draft.view, draft.now)
        if not target:
            return f"no node can run {op.group}: {choice.obstacles(group, draft.view, draft.now)}"
        return _move(draft, op, target, revoke=False)
    if draft.nodes[a.node].released.get(op.group, 0) >= a.epoch:
        return _move(draft, op, a.node, revoke=True)
    draft.assign(op.group, a.again(op.cause, step=op.step, operation=op.name))
    draft.group_event(op.group, "Retrying", actor=op.actor, node=a.node, cause=op.cause)
    draft.start(op, a.epoch)
    return ""


def _watch_group(draft: Draft, op: OperationInfo) -> None:
    group = draft.groups.get(op.group)
    if group is None:
        draft.finish(op, False, f"group {op.group} was deleted")
        return
    a = group.assignment
    if a.epoch != op.epoch:
        failure = next((f for f in group.failures.values() if f.epoch == op.epoch), None)
        why = failure.message if failure else a.cause
        draft.finish(op, False, f"{op.group} went to {a.node or 'nobody'} instead: {why}", op.epoch)
    elif group.phase in (Phase.RUNNING, Phase.DEGRADED):
        draft.finish(op, True, f"{op.group} is {group.phase.value} on {a.node}", op.epoch)
    elif group.phase in (Phase.FAILED, Phase.BLOCKED):
        draft.finish(op, False, group.reason, op.epoch)
    else:
        deadline = draft.begun(op.since) + group.stop_timeout + START_ALLOWANCE
        draft.look_at(deadline)
        if draft.now >= deadline:
            message = f"{op.group} is still {group.phase.value}: {group.reason}; it goes on without this command"
            draft.finish(op, False, message, op.epoch)


# ---------------------------------------------------------------- switches
def _pause(draft: Draft, op: OperationInfo) -> str:
    paused = op.type is OperationType.PAUSE
    if draft.groups[op.group].paused is not paused:
        draft.pause(op.group, paused)
        draft.group_event(op.group, "GroupPaused" if paused else "GroupResumed", actor=op.actor)
    message = f"{op.group} is paused: nothing moves by itself" if paused else f"{op.group} is resumed"
    draft.finish(op, True, message, draft.groups[op.group].assignment.epoch)
    return ""


def _fence_confirm(draft: Draft, op: OperationInfo) -> str:
    node = draft.nodes[op.node]
    if not node.runs_groups:
        return f"{op.node} is a witness: it holds nothing"
    if draft.standing(op.node).state is not NodeState.LOST:
        return f"{op.node} is alive: its guard is heard; power it off first"
    draft.fence_confirmed(op.node, True)
    draft.node_event(op.node, "FenceConfirmed", actor=op.actor, cause=op.cause)
    draft.finish(op, True, f"{op.node} counts as off")
    return ""


# ---------------------------------------------------------------- emptying a node
def _drain(draft: Draft, op: OperationInfo) -> str:
    """``reason: shutdown`` lasts for this boot of the node only, and stops what has nowhere to go."""
    node = draft.nodes[op.node]
    if not node.runs_groups:
        return f"{op.node} is a witness: it runs no groups"
    if op.reason == "shutdown":
        if not node.boot_id:
            return f"the guard of {op.node} is not heard: there is nothing to hand over"
        draft.shutdown(op.node, node.boot_id)
    elif not node.drained:
        draft.drain(op.node, True)
    draft.node_event(op.node, "NodeDrained", actor=op.actor, cause=op.cause)
    draft.start(op)
    return ""


def _undrain(draft: Draft, op: OperationInfo) -> str:
    node = draft.nodes[op.node]
    if not node.runs_groups:
        return f"{op.node} is a witness: it runs no groups"
    if node.drained:
        draft.drain(op.node, False)
    if node.shutdown_boot_id:
        draft.shutdown(op.node, "")
    draft.node_event(op.node, "NodeUndrained", actor=op.actor, cause=op.cause)
    draft.finish(op, True, f"{op.node} may take groups")
    return ""


def on_node(draft: Draft, node: str) -> list[GroupInfo]:
    """Groups that the node has, or may still hold."""
    return [g for g in draft.groups.values() if g.assignment.node == node or node in g.may_hold]


def _in_question(draft: Draft, group: GroupInfo) -> bool:
    """An oath is being taken over, or who has it was decided just now: a later look tells if it can go elsewhere."""
    return bool(group.claims) or draft.moved(group.name)


def _watch_drain(draft: Draft, op: OperationInfo) -> None:
    node = draft.nodes[op.node]
    if not node.leaving:
        draft.finish(op, False, f"{op.node} was undrained meanwhile")
        return
    left = on_node(draft, op.node)
    if not left:
        draft.finish(op, True, f"{op.node} has no groups")
        return
    stuck = [g for g in left if g.assignment.node == op.node and not (g.moving or _in_question(draft, g))]
    if stuck:
        why = choice.obstacles(stuck[0], draft.view, draft.now, without=[op.node])
        names = ", ".join(sorted(g.name for g in stuck))
        stay, them, move = ("stays", "it", "it moves") if len(stuck) == 1 else ("stay", "them", "they move")
        text = f"{names} {stay} on {op.node}, no other node can take {them}: {why}; {move} when one can"
        draft.finish(op, False, text)
        return
    deadline = draft.begun(op.since) + max(g.stop_timeout for g in left) + START_ALLOWANCE
    draft.look_at(deadline)
    if draft.now >= deadline:
        draft.finish(op, False, f"{op.node} still holds {', '.join(g.name for g in left)}")


# ---------------------------------------------------------------- running a command
def _run(draft: Draft, op: OperationInfo) -> str:
    """Its node's agent runs it when it sees it begun."""
    node = draft.nodes[op.node]
    if not node.runs_groups:
        return f"{op.node} is a witness: no agent runs there"
    if draft.standing(op.node).lost or not node.agent_alive:
        return f"{op.node} is not there to run it: {draft.standing(op.node).why or 'no agent'}"
    draft.start(op)
    return ""


def _watch_run(draft: Draft, op: OperationInfo) -> None:
    if op.outcome:
        draft.finish(op, op.succeeded, f"{op.command} on {op.node}: {op.outcome}")
        return
    deadline = draft.begun(op.since) + op.timeout + RUN_ALLOWANCE
    draft.look_at(deadline)
    if draft.now >= deadline:
        draft.finish(op, False, f"{op.command}: {op.node} has not said how it ended; it may have run")


_BEGIN: dict[OperationType, Callable[[Draft, OperationInfo], str]] = {
    OperationType.SWITCHOVER: _switchover,
    OperationType.FAILOVER: _force,
    OperationType.RESOLVE: _resolve,
    OperationType.RETRY: _retry,
    OperationType.PAUSE: _pause,
    OperationType.RESUME: _pause,
    OperationType.FENCE_CONFIRM: _fence_confirm,
    OperationType.DRAIN: _drain,
    OperationType.UNDRAIN: _undrain,
    OperationType.RUN: _run,
    OperationType.RESTART_PROCESS: _run,
    OperationType.FENCE: fencing.begin,
}
