"""One look at one group: what its situation asks for (policy.py), what a move in progress asks for, its phase.

Each outcome of the table has one function here. A function may return a verdict, the phase that an open decision gives
the group; without one the phase follows from the resources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hasys.model.view import Assignment, Failure, GroupInfo, Phase
from hasys.placement import choice, failback, limits, moves, networks, reboots
from hasys.placement.draft import Draft
from hasys.placement.phase import phase_of
from hasys.placement.policy import FAULTS, TABLE, Outcome, Policy, Situation, policy_of, situation_of
from hasys.placement.standing import NOT_HEARD, first_look, lost_at

Verdict = tuple[Phase, str] | None

STABLE = 600.0
"""Seconds of Running after which earlier failures are forgotten: each node is tried once in that time."""
RETRY_FIRST, RETRY_MOST = 5.0, 300.0
"""Back-off in seconds between retries once every node has failed: doubled each time, bounded."""
CALM = 60.0
"""A group that ran this long before it failed does not flap: its first retry waits for nothing."""
FENCED_AGAIN = 5.0
"""A guard that fences a group this soon after its start will do it again: wait this long before the next start."""


def look(draft: Draft, name: str) -> None:
    """Decide about one group and record what follows."""
    group = draft.groups[name]
    if group.farm:
        _settle(draft, name, (Phase.BLOCKED, "mode Farm is not served by this version"))
        return
    if _sworn(draft, name):
        _watch_holder(draft, name)
        return
    moves.finish(draft, name)
    situation, seen = situation_of(group, draft.view, draft.now)
    before = draft.groups[name].assignment
    outcome = TABLE[situation, policy_of(group, draft.view, draft.now)]
    if situation is Situation.LOST and draft.view.by_tokens and not draft.nodes[group.assignment.node].fence_confirmed:
        verdict = _wait_for_word(draft, name, seen)
    elif outcome is Outcome.BLOCK:
        verdict = _BLOCKED[situation](draft, name, seen)
    else:
        verdict = _ACT[outcome](draft, name, seen)
    if name in draft.groups:
        _note_failover(draft, name, situation, before)
        verdict = verdict or _waits_for_an_oath(draft, name) or _waits_for_a_token(draft, name)
        _settle(draft, name, verdict or _stays_blocked(draft, name))
        _watch_holder(draft, name)


def _note_failover(draft: Draft, name: str, situation: Situation, before: Assignment) -> None:
    """Count a move that a fault brought about, and have the node rebooted that it left, if the group asks for it."""
    after = draft.groups[name].assignment
    if situation in FAULTS and after.epoch != before.epoch and before.node and after.node not in ("", before.node):
        limits.count(draft, name)
        reboots.want(draft, name, before)
    free = limits.free_at(draft.groups[name], draft.view)
    if free is not None:
        draft.look_at(free)


def _sworn(draft: Draft, name: str) -> bool:
    """Held by an operator's oath from a time without a majority (docs/decisions/0005): whoever serves goes on, once
    everybody who may be heard was heard."""
    group = draft.groups[name]
    node = group.sworn_to
    if not node:
        return False
    heard = first_look(draft.view)
    if draft.now < heard:
        draft.look_at(heard)
    else:
        oath = group.claims[node]
        cause = f"{node} held it as epoch {oath} while there was no majority"
        draft.assign(name, group.assignment.adopted(node, oath, cause))
        draft.group_event(name, "OathAdopted", node=node, cause="nobody else runs it")
    _settle(draft, name, None)
    return True


def _waits_for_an_oath(draft: Draft, name: str) -> Verdict:
    """A node that held the group on an operator's word fell silent before it heard this leader."""
    group = draft.groups[name]
    silent = sorted(n for n in group.unheard - {group.assignment.node} if n in draft.nodes and draft.standing(n).lost)
    phase, _ = phase_of(group, moved=draft.moved(name))
    if not silent or draft.nodes[silent[0]].fence_confirmed or phase in (Phase.RUNNING, Phase.DEGRADED):
        return None
    return Phase.BLOCKED, (
        f"{silent[0]} may still hold it on its operator's word: switch {silent[0]} on,"
        f" or off for sure and hasys fence-confirm {silent[0]}"
    )


def _wait_for_word(draft: Draft, name: str, seen: str) -> Verdict:
    """Two nodes: a lost node may serve behind a cut cable. Only its operator can know that it does not."""
    holder = draft.groups[name].assignment.node
    return Phase.BLOCKED, f"{seen}; without a third voter nothing is moved from it before hasys fence-confirm {holder}"


def _waits_for_a_token(draft: Draft, name: str) -> Verdict:
    """Two nodes: a lost node did not say that it has nothing of the group."""
    group = draft.groups[name]
    if not draft.view.by_tokens or not group.assignment.node:
        return None
    silent = sorted(n for n in group.may_hold - {group.assignment.node} if n in draft.nodes and draft.standing(n).lost)
    phase, _ = phase_of(group, moved=draft.moved(name))
    if not silent or phase in (Phase.RUNNING, Phase.DEGRADED):
        return None
    return Phase.BLOCKED, (
        f"{silent[0]} may still hold it: switch {silent[0]} on, or off for sure and hasys fence-confirm {silent[0]}"
    )


def _stays_blocked(draft: Draft, name: str) -> Verdict:
    """A new leader has to hear the holder, or to call it lost: until then its last reports are not said to be true."""
    group = draft.groups[name]
    holder = group.assignment.node
    unheard = holder in draft.nodes and draft.standing(holder) is NOT_HEARD
    return (group.phase, group.reason) if group.phase is Phase.BLOCKED and unheard and not draft.moved(name) else None


def back_off(count: int) -> float:
    """Seconds to wait before retry number ``count``."""
    return float(min(RETRY_MOST, RETRY_FIRST * 2 ** min(count - 1, 16)))


# ---------------------------------------------------------------- one function per outcome
def _stay(draft: Draft, name: str, seen: str) -> Verdict:
    group = draft.groups[name]
    if group.failures and group.phase is Phase.RUNNING:
        calm = draft.begun(group.phase_since) + STABLE
        draft.look_at(calm)
        if draft.now >= calm:
            for node in list(group.failures):
                draft.failure(name, node, None)
    verdict = _badly_connected(draft, name)
    if verdict is None:
        failback.look(draft, name)
    return verdict


def _badly_connected(draft: Draft, name: str) -> Verdict:
    """Its network is lost there, and nowhere better: it stays, and says why it may not be reached."""
    group = draft.groups[name]
    view, now, holder = draft.view, draft.now, group.assignment.node
    trouble = networks.to_leave(group, view, now)
    phase, _ = phase_of(group, moved=draft.moved(name))
    if trouble is None or now < networks.settled(group, trouble, view) or phase not in (Phase.RUNNING, Phase.DEGRADED):
        return None
    elsewhere = choice.complaints(group, view, now, without=[holder])
    return Phase.DEGRADED, f"{holder}: {trouble.text}; no node is better: {elsewhere}"


def _place(draft: Draft, name: str, seen: str) -> Verdict:
    """A group that nobody has. After a start of the cluster the preferred node gets time to appear."""
    group = draft.groups[name]
    if group.moving:
        return None
    node = choice.best(group, draft.view, draft.now)
    grace = first_look(draft.view)
    preferred = _preferred(draft, group)
    if draft.now < grace and node != preferred:
        draft.look_at(grace)
        return Phase.STOPPED, f"waits for {preferred or 'a node'}, which may still be starting"
    if node is None:
        wanted = any(draft.nodes[n].leaving for n in choice.ranked(group) if n in draft.nodes)
        return Phase.STOPPED if wanted else Phase.BLOCKED, (
            f"no node can run it: {choice.obstacles(group, draft.view, draft.now)}"
        )
    draft.assign(name, group.assignment.moved(node, "no node had it", revoke=False))
    draft.group_event(name, "GroupAssigned", node=node, cause="its first node that is Ready")
    return None


def _preferred(draft: Draft, group: GroupInfo) -> str | None:
    """The node that would be chosen if every member were well."""
    for name in choice.ranked(group):
        node = draft.nodes.get(name)
        if node is not None and node.runs_groups and not node.leaving and name not in group.failures:
            return name
    return None


def _fail_over(draft: Draft, name: str, seen: str) -> Verdict:
    group = draft.groups[name]
    holder = group.assignment.node
    node = choice.best(group, draft.view, draft.now, without=[holder])
    if node is None:
        others = choice.obstacles(group, draft.view, draft.now, without=[holder])
        return Phase.BLOCKED, f"{seen}; no other node can take it: {others}"
    _take_over(draft, name, node, seen)
    return None


def _take_over(draft: Draft, name: str, node: str, cause: str) -> None:
    holder = draft.groups[name].assignment.node
    draft.assign(name, draft.groups[name].assignment.moved(node, cause, revoke=True))
    if node == holder:
        draft.group_event(name, "RestartOnNode", node=node, cause=cause)
    else:
        draft.group_event(name, "FailoverStarted", node=node, previous=holder, cause=cause)


def _restart(draft: Draft, name: str, seen: str) -> Verdict:
    return _start_again(draft, name, seen, elsewhere=True)


def _restart_here(draft: Draft, name: str, seen: str) -> Verdict:
    return _start_again(draft, name, seen, elsewhere=False)


def _start_again(draft: Draft, name: str, seen: str, *, elsewhere: bool) -> Verdict:
    """The guard fenced it: the group is down, so the fastest start is the best one, unless it was just tried."""
    group = draft.groups[name]
    holder = group.assignment.node
    soon = group.epoch_since is not None and draft.now < group.epoch_since + FENCED_AGAIN
    if not choice.why_not(holder, group, draft.view, draft.now) and not soon:
        _take_over(draft, name, holder, seen)
        return None
    other = choice.best(group, draft.view, draft.now, without=[holder]) if elsewhere else None
    if other is not None and not (soon and group.assignment.previous_node == other):
        _take_over(draft, name, other, seen)
        return None
    if soon and group.epoch_since is not None:
        draft.look_at(group.epoch_since + FENCED_AGAIN)
        return Phase.FAILED, f"{seen} right after its start; tried again soon"
    obstacles = choice.obstacles(group, draft.view, draft.now, without=[] if elsewhere else others(group, holder))
    return Phase.BLOCKED, f"{seen}; it waits: {obstacles}"


def others(group: GroupInfo, node: str) -> list[str]:
    """The group's other nodes."""
    return [c.node for c in group.candidates if c.node != node]


def _move(draft: Draft, name: str, seen: str) -> Verdict:
    """Away from a node that leaves. Nowhere to go: a shutting-down node stops it in order, a drained one keeps it."""
    group = draft.groups[name]
    holder = group.assignment.node
    if group.moving or holder in group.claims:  # its guard has yet to take the assignment for its oath
        return None
    node = choice.best(group, draft.view, draft.now, without=[holder])
    if node is not None:
        draft.assign(name, group.assignment.moved(node, seen, revoke=False))
        draft.group_event(name, "MoveStarted", node=node, previous=holder, cause=seen)
        return None
    info = draft.nodes.get(holder)
    if info is None or info.shutdown_boot_id or group.candidate(holder) is None:
        return _stop(draft, name, f"{seen} and no other node can take it")
    return None


def _escape(draft: Draft, name: str, seen: str) -> Verdict:
    """Away from a node where nobody is served: as a planned move, for its guard is heard and its release is sooner than
    the end of its lease; the stop gets less time (see ``_finish_move``)."""
    group = draft.groups[name]
    holder = group.assignment.node
    node = choice.best(group, draft.view, draft.now, without=[holder])
    if group.moving or node is None:
        return None
    draft.assign(name, group.assignment.moved(node, seen, revoke=False))
    draft.group_event(name, "FailoverStarted", node=node, previous=holder, cause=seen)
    return None


def _stop(draft: Draft, name: str, seen: str) -> Verdict:
    group = draft.groups[name]
    if group.moving:
        return None
    if group.assignment.node:
        holder = group.assignment.node
        draft.assign(name, group.assignment.moved("", seen, revoke=False))
        draft.group_event(name, "GroupUnassigned", node=holder, cause=seen)
    elif group.deleting and not group.may_hold:
        draft.deleted_event(name)
        draft.purge(name)
    return None


def _retreat(draft: Draft, name: str, seen: str) -> Verdict:
    """A resource failed for good on this node. Each node is tried once; then only retries, without ping-pong."""
    group = draft.groups[name]
    holder = group.assignment.node
    calm = group.phase is Phase.RUNNING and draft.now >= draft.begun(group.phase_since) + CALM
    if group.phase is not Phase.FAILED:
        _count_failure(draft, name, seen)
        group = draft.groups[name]
    node = choice.untried(group, draft.view, draft.now, without=[holder])
    if node is not None:
        draft.assign(name, group.assignment.moved(node, seen, revoke=False))
        draft.group_event(name, "MoveStarted", node=node, previous=holder, cause=seen)
        return None
    due = draft.now if group.phase is not Phase.FAILED else draft.begun(group.phase_since)
    due += 0.0 if calm else back_off(_failed(group, holder))
    if draft.now < due:
        draft.look_at(due)
        gates = choice.gates(group)
        return Phase.FAILED, f"{seen}; no other node is left to try, it is tried again with back-off{gates}"
    if calm:
        _retry(draft, name, seen, without=[holder])
    else:
        _retry(draft, name, "the back-off time passed")
    return None


def _evade(draft: Draft, name: str, seen: str) -> Verdict:
    """A monitor speaks against the node, though the group runs there: a better node, each tried once, or none."""
    group = draft.groups[name]
    if group.moving:
        return None
    holder = group.assignment.node
    due = min(draft.begun(f.since) + f.patience for f in group.against(holder))
    if draft.now < due:
        draft.look_at(due)
        return _degraded(group, seen)
    node = choice.untried(group, draft.view, draft.now, without=[holder])
    if node is None:
        return _degraded(group, f"{seen}; no other node is better{choice.gates(group)}")
    _count_failure(draft, name, seen)
    draft.assign(name, draft.groups[name].assignment.moved(node, seen, revoke=False))
    draft.group_event(name, "MoveStarted", node=node, previous=holder, cause=seen)
    return None


def _stay_unfit(draft: Draft, name: str, seen: str) -> Verdict:
    return _degraded(draft.groups[name], f"{seen}; {_hint(draft, name)}: hasys switchover")


def _degraded(group: GroupInfo, reason: str) -> Verdict:
    """It serves, but something speaks against it; what the resources say of themselves counts more."""
    phase, why = phase_of(group, moved=False)
    return (Phase.DEGRADED, f"{reason}; {why}" if why else reason) if phase in (Phase.RUNNING, Phase.DEGRADED) else None


def _halt(draft: Draft, name: str, seen: str) -> Verdict:
    """A monitor asked for a stop: nobody starts it again before the operator says so."""
    group = draft.groups[name]
    if group.moving:
        return None
    holder = group.assignment.node
    draft.assign(name, group.assignment.moved("", seen, revoke=False))
    draft.pause(name, True)
    draft.group_event(name, "GroupUnassigned", node=holder, cause=seen)
    draft.group_event(name, "GroupPaused")
    return None


def _retry(draft: Draft, name: str, cause: str, *, without: Sequence[str] = ()) -> None:
    """Where it failed least, rather elsewhere than where it just failed: what is broken on one node is not tried there
    for ever while another may have mended. Without any other choice where it is."""
    group = draft.groups[name]
    holder = group.assignment.node
    nodes = choice.able(group, draft.view, draft.now, without=without)
    node = min(nodes, key=lambda n: (_failed(group, n), n == holder), default=holder)
    if node == holder:
        draft.assign(name, group.assignment.again(cause))
    else:
        draft.assign(name, group.assignment.moved(node, cause, revoke=False))
    draft.group_event(name, "Retrying", node=node, cause=cause)


def _failed(group: GroupInfo, node: str) -> int:
    """How often the group failed there, as far as it is remembered."""
    known = group.failures.get(node)
    return known.count if known else 0


def _count_failure(draft: Draft, name: str, seen: str) -> None:
    group = draft.groups[name]
    holder, epoch = group.assignment.node, group.assignment.epoch
    known = group.failures.get(holder)
    draft.failure(name, holder, Failure(epoch, seen, known.count + 1 if known else 1))
    draft.group_event(name, "StartFailed", node=holder, cause=seen)


# ---------------------------------------------------------------- what Manual and a pause leave to the operator
def _hint(draft: Draft, name: str) -> str:
    group = draft.groups[name]
    policy = policy_of(group, draft.view, draft.now)
    if policy is Policy.LIMITED:
        return limits.hint(group)
    return "it is paused" if policy is Policy.PAUSED else "failover is Manual"


def _wait_to_start(draft: Draft, name: str, seen: str) -> Verdict:
    cause = draft.groups[name].assignment.cause
    return Phase.STOPPED, (
        f"nobody has it and {_hint(draft, name)}: hasys resume, or hasys switchover" + (f"; {cause}" if cause else "")
    )


def _wait_to_move(draft: Draft, name: str, seen: str) -> Verdict:
    return Phase.BLOCKED, f"{seen}; {_hint(draft, name)}: hasys switchover, or mend the node"


def _wait_to_retry(draft: Draft, name: str, seen: str) -> Verdict:
    limited = policy_of(draft.groups[name], draft.view, draft.now) is Policy.LIMITED
    phase = Phase.BLOCKED if limited else Phase.FAILED
    if draft.groups[name].phase is not phase:
        _count_failure(draft, name, seen)
    return phase, f"{seen}; {_hint(draft, name)}: hasys retry, or hasys switchover"


_BLOCKED: dict[Situation, Callable[[Draft, str, str], Verdict]] = {
    Situation.NOBODY: _wait_to_start,
    Situation.LOST: _wait_to_move,
    Situation.GAVE_UP: _wait_to_move,
    Situation.CUT_OFF: _wait_to_move,
    Situation.NO_GATEWAY: _wait_to_move,
    Situation.FAILED: _wait_to_retry,
}

_ACT: dict[Outcome, Callable[[Draft, str, str], Verdict]] = {
    Outcome.STAY: _stay,
    Outcome.PLACE: _place,
    Outcome.FAIL_OVER: _fail_over,
    Outcome.RESTART: _restart,
    Outcome.RESTART_HERE: _restart_here,
    Outcome.RETREAT: _retreat,
    Outcome.EVADE: _evade,
    Outcome.HALT: _halt,
    Outcome.STAY_UNFIT: _stay_unfit,
    Outcome.MOVE: _move,
    Outcome.ESCAPE: _escape,
    Outcome.STOP: _stop,
}


# ---------------------------------------------------------------- around the outcome
_PHASE_EVENTS = {
    Phase.RUNNING: "GroupRunning",
    Phase.DEGRADED: "GroupDegraded",
    Phase.FAILED: "GroupFailed",
    Phase.BLOCKED: "GroupBlocked",
    Phase.STOPPED: "GroupStopped",
}

_ON_ITS_WAY = (Phase.STARTING, Phase.STOPPING, Phase.FAILING_OVER)


def _settle(draft: Draft, name: str, verdict: Verdict) -> None:
    """Write the phase; entering one that somebody should know of is an event.

    Who had it before and is out is forgotten, for what is deleted from the group goes only then. Mostly a phase is
    entered at that moment, and one write says both. Not when a new leader learns it after it saw the group run, when a
    group without resources starts again, nor when what lingers on a lost node outlives the move: so a group that is on
    no way is looked at whatever its phase was.
    """
    group = draft.groups[name]
    phase, reason = verdict or phase_of(group, moved=draft.moved(name))
    entered = phase is not group.phase
    left = group.assignment.let_go(group.may_hold)
    if (entered or phase not in _ON_ITS_WAY) and left != group.assignment and not group.deleting:
        draft.assign(name, left)
    draft.phase(name, phase, reason)
    if entered and phase in _PHASE_EVENTS:
        draft.group_event(name, _PHASE_EVENTS[phase], node=group.assignment.node, cause=reason)


def _watch_holder(draft: Draft, name: str) -> None:
    """Look again when the holder would count as lost, or its network as lost for good."""
    group = draft.groups[name]
    node = draft.nodes.get(group.assignment.node)
    if node is not None:
        draft.look_at(lost_at(node, draft.view))
        trouble = networks.to_leave(group, draft.view, draft.now)
        if trouble is not None:
            draft.look_at(networks.settled(group, trouble, draft.view))
