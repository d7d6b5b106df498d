"""Would the loss of a group's node be survived? If not: why, and the alert that says so once.

What status shows is of the moment. The alert waits until nothing that bears on the group (its nodes, the voters, its
phase and monitors) has changed for a while: a node that comes straight back is no news, and nothing is worked out
for it while groups move. Of two nodes alone the one that is left needs no majority where their policy lets it take
over; with the policy safe nothing is ever redundant. For both the event of the lost node is the alert.
"""

from __future__ import annotations

from hasys.model.view import GroupInfo, NodeInfo, Phase, Role, View
from hasys.placement import choice
from hasys.placement.draft import Draft

STEADY = 5.0
"""Seconds without a change before the alert, and before its end is told."""


def why_alone(group: GroupInfo, view: View, now: float, *, quorum_without: bool) -> str:
    """Why the loss of the group's node would not be survived; empty: it would. ``quorum_without``: a majority remains
    without that node, or :attr:`View.taking_over`."""
    if group.sworn_to:
        return f"{group.sworn_to} may serve it"  # which node does is decided in a moment
    holder = group.assignment.node
    if not holder:
        return "no node has it"
    quorum_without = quorum_without or view.taking_over
    spare = [c.node for c in group.candidates if c.node != holder]  # asked in each decision: the first good one will do
    if quorum_without and any(
        not group.unfit(n) and not choice.why_not(n, group, view, now) and not _hindered(n, view) for n in spare
    ):
        return ""
    others = choice.able(group, view, now, without=[holder])
    if not others:
        return choice.obstacles(group, view, now, without=[holder])
    if not quorum_without:
        away = [name for name, info in sorted(_voters(view).items()) if not info.connected and name != holder]
        return f"without {holder} there would be no majority" + (f": {', '.join(away)} not reached" if away else "")
    return "; ".join(f"{node}: {group.unfit(node) or _hindered(node, view)}" for node in others)


def _hindered(node: str, view: View) -> str:
    """What keeps one of two nodes from taking over by itself, in its guard's words: the arbiter's disk, say."""
    return view.nodes[node].message if view.taking_over and node in view.nodes else ""


def majority_without(node: str, view: View) -> bool:
    """Would the voters that the leader reaches, without this node, still be a majority?"""
    voters = _voters(view)
    there = [name for name, info in voters.items() if info.connected and name != node]
    return len(there) * 2 > len(voters)


def _voters(view: View) -> dict[str, NodeInfo]:
    return {name: info for name, info in view.nodes.items() if info.role is not Role.OBSERVER}


def look(draft: Draft) -> None:
    """Tell of each group that serves when it has lost its redundancy, and when it has it back."""
    if draft.view.by_tokens:
        return
    majority = {name: majority_without(name, draft.view) for name in draft.nodes}
    changed = {name: max(draft.begun(n.state_since), draft.begun(n.connected_since)) for name, n in draft.nodes.items()}
    voters = max((changed[name] for name in _voters(draft.view)), default=draft.now)
    for name, group in list(draft.groups.items()):
        if len(group.candidates) < 2 or group.phase not in (Phase.RUNNING, Phase.DEGRADED) or group.moving:
            continue
        nodes = (changed[c.node] for c in group.candidates if c.node in changed)
        seen = (group.epoch_since, group.phase_since, *(f.since for f in group.findings))
        steady = max(voters, *nodes, *(draft.begun(since) for since in seen)) + STEADY
        if draft.now < steady:
            draft.look_at(steady)
        else:
            _tell(draft, name, quorum_without=majority.get(group.assignment.node, False))


def _tell(draft: Draft, name: str, *, quorum_without: bool) -> None:
    group = draft.groups[name]
    why = why_alone(group, draft.view, draft.now, quorum_without=quorum_without)
    if bool(why) is bool(group.alone):
        return
    holder = group.assignment.node
    draft.alone(name, why)
    if why:
        draft.group_event(name, "RedundancyLost", node=holder, cause=why)
    else:
        draft.group_event(name, "RedundancyBack", node=holder)
