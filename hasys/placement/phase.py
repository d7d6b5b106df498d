"""The phase of a group, from its assignment and what its resources were last seen doing."""

from __future__ import annotations

from hasys.model.view import GroupInfo, Phase, ResourceInfo, ResourceState


def phase_of(group: GroupInfo, *, moved: bool) -> tuple[Phase, str]:
    """Phase and reason of a group on which no decision is open; ``moved``: the recorded phase is of an older epoch.

    What a decision leaves open (waiting for a node, an operator, a retry) overrides it: see ``groups.py``.
    """
    a = group.assignment
    waiting_for = a.previous_node if a.previous_node != a.node and a.previous_node in group.may_hold else ""
    if not a.node:
        return (Phase.STOPPING, f"{waiting_for} stops it") if waiting_for else (Phase.STOPPED, a.cause)
    if waiting_for and not _serves(group):
        if a.revoked:
            return Phase.FAILING_OVER, a.cause
        return Phase.STOPPING, f"{waiting_for} stops it, then {a.node} starts it"
    return _by_resources(group, moved=moved)


def _serves(group: GroupInfo) -> bool:
    """Some resource runs at the present epoch: the previous holder's end, though unconfirmed, has passed."""
    return any(group.current(r) and r.state is ResourceState.RUNNING for r in group.resources)


def _by_resources(group: GroupInfo, *, moved: bool) -> tuple[Phase, str]:
    a = group.assignment
    before = Phase.STARTING if moved else group.phase
    resources = [r for r in group.resources if not r.deleting]
    waiting = [r for r in resources if not (group.current(r) and r.state is ResourceState.RUNNING)]
    if not waiting:
        return Phase.RUNNING, ""
    failed = [r for r in waiting if group.current(r) and r.state is ResourceState.FAILED]
    if any(r.vital for r in failed):
        return Phase.FAILED, _name(failed)
    if len(failed) == len(waiting):
        return Phase.DEGRADED, _name(failed)
    reported = [r for r in waiting if group.current(r)]
    if before in (Phase.RUNNING, Phase.DEGRADED) and reported:
        return Phase.DEGRADED, _name(reported)
    if before is Phase.RUNNING:
        return Phase.RUNNING, ""  # a resource was added and is not reported yet: the others serve
    took_over = a.revoked and a.previous_node not in ("", a.node)
    return (Phase.FAILING_OVER, a.cause) if took_over else (Phase.STARTING, f"{a.node} starts it")


def _name(resources: list[ResourceInfo]) -> str:
    return "; ".join(f"{r.name} is {r.state.value}" + (f": {r.message}" if r.message else "") for r in resources)
