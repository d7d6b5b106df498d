"""Anti ping-pong: how often a group may fail over by itself. Pure.

Remembered are the epochs of the failovers that count; when each of them was, only the leader that saw it knows. A new
leader counts them from the beginning of its authority: it may wait longer than need be, never less.
"""

from __future__ import annotations

from hasys.model.timing import show
from hasys.model.view import GroupInfo, View
from hasys.placement.draft import Draft


def free_at(group: GroupInfo, view: View) -> float | None:
    """When a group that reached its limit may fail over by itself again; None: it did not reach it."""
    if group.limit is None or len(group.failovers) < group.limit.failovers:
        return None
    return _last(group, view) + group.limit.quiet


def reached(group: GroupInfo, view: View, now: float) -> bool:
    """No more failovers for now."""
    until = free_at(group, view)
    return until is not None and now < until


def count(draft: Draft, name: str) -> None:
    """The group has just failed over."""
    group = draft.groups[name]
    if group.limit is None:
        if group.failovers:
            draft.failovers(name, {})
        return
    known = group.failovers
    until = free_at(group, draft.view)
    if until is not None and draft.now >= until:
        known = {}  # the quiet time ended that chain
    recent = {e: t for e, t in known.items() if draft.begun(t) > draft.now - group.limit.within}
    draft.failovers(name, {**recent, group.assignment.epoch: draft.now})


def forget(draft: Draft, name: str) -> None:
    """An operator took the group in hand."""
    if draft.groups[name].failovers:
        draft.failovers(name, {})


def hint(group: GroupInfo) -> str:
    """Why it does not move, and what ends that."""
    assert group.limit is not None, "only a limit can be reached"
    times = len(group.failovers)
    return (
        f"{times} failover{'s' if times > 1 else ''} within {show(group.limit.within)}, its limit:"
        f" it waits for an operator, or {show(group.limit.quiet)} from the last one"
    )


def _last(group: GroupInfo, view: View) -> float:
    newest = max(group.failovers)
    seen = group.failovers[newest]
    return view.leader_since if seen is None else seen
