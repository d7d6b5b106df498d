"""One look at one node: its state for the record, and marks that its return takes away."""

from __future__ import annotations

from hasys.model.networks import Fault
from hasys.model.view import GroupInfo, NodeState
from hasys.placement import moves, networks, reboots
from hasys.placement.draft import Draft
from hasys.placement.standing import NO_AGENT, NOT_HEARD, in_contact, lost_at

_EVENTS = {
    NodeState.READY: "NodeReady",
    NodeState.NOT_READY: "NodeNotReady",
    NodeState.LOST: "NodeLost",
}


def look(draft: Draft, name: str) -> None:
    """Record a change of the node's state; end a fence-confirm or an orderly shutdown when the node is back."""
    node = draft.nodes[name]
    here = in_contact(node, draft.now, draft.view)
    if node.fence_confirmed and here:
        draft.fence_confirmed(name, False)
        draft.node_event(name, "FenceCleared")
    if node.shutdown_boot_id and here and node.boot_id != node.shutdown_boot_id:
        draft.shutdown(name, "")
        draft.node_event(name, "NodeUndrained", cause="it was started again")
    if node.cut is not None and node.cut != node.last_cut:
        _note_networks(draft, name, node.cut, node.last_cut)
    if here and node.watchdog != node.last_watchdog:
        draft.watchdog(name, node.watchdog)
    if here and node.agent_alive:
        _interfaces(draft, name)
    reboots.look(draft, name)
    how = draft.standing(name)
    if node.runs_groups:
        draft.look_at(lost_at(draft.nodes[name], draft.view))
    if how.state is node.last_state or how is NOT_HEARD:
        return
    draft.node_state(name, how.state, how.why)
    if how is NO_AGENT and node.last_state is not NodeState.READY:
        return  # on its way up: its guard starts before its agent
    if how.lost and node.shutdown_boot_id and all(_handed_over(name, group) for group in draft.groups.values()):
        draft.node_event(name, "NodeStopped")
    elif how.state in _EVENTS:
        draft.node_event(name, _EVENTS[how.state], cause=how.why)


def _handed_over(name: str, group: GroupInfo) -> bool:
    """The node is out of the group, or reported everything stopped: a new leader was not told of its release."""
    a = group.assignment
    out = name != a.previous_node or name not in group.may_hold
    return name != a.node and (out or not moves.unstopped(group))


def _note_networks(draft: Draft, name: str, cut: tuple[str, ...], before: tuple[str, ...]) -> None:
    """One network to the node went or came back, while another carries what both have to say."""
    draft.cut(name, cut)
    for address in (a for a in cut if a not in before):
        draft.node_event(name, "NetworkLost", address=address)
    for address in (a for a in before if a not in cut):
        draft.node_event(name, "NetworkBack", address=address)


def _interfaces(draft: Draft, name: str) -> None:
    """Record what the node lost and what it has back for good: a bouncing link is lost until it is steady."""
    told = draft.nodes[name].networks_told
    found = {t.interface: t for t in networks.troubles(name, draft.view, draft.now)}
    now = {i: told.get(i, "") if t.fault is Fault.UNSTEADY else t.text for i, t in sorted(found.items())}
    now = {interface: text for interface, text in now.items() if text}
    if now == told:
        return
    draft.networks(name, now)
    for interface, text in now.items():
        if told.get(interface) != text:
            draft.node_event(name, "InterfaceLost", cause=text)
    for interface in told.keys() - now.keys():
        draft.node_event(name, "InterfaceBack", interface=interface)
