"""How a node stands: in contact or lost, fit to take a group or not, and when that will have to be asked again.

A node counts as in contact while it *confirms*: its keep-alives name a recent grant. One that is heard but deaf must
lose its groups like a silent one (design section 3), so silence is counted from the last confirmation.
"""

from __future__ import annotations

from dataclasses import dataclass

from hasys.model.view import NodeInfo, NodeState, View


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a node and, unless it is Ready, why. ``why`` holds no running figures: it is stored."""

    state: NodeState
    why: str = ""

    @property
    def ready(self) -> bool:
        return self.state is NodeState.READY

    @property
    def lost(self) -> bool:
        return self.state is NodeState.LOST


NOT_HEARD = Standing(NodeState.NOT_READY, "not heard yet")
"""Nothing is known under this leader, for or against the node."""
NO_AGENT = Standing(NodeState.NOT_READY, "its agent does not run")


def listening(view: View) -> float:
    """How long a new leader listens before it may call a node lost.

    A guard asks the lost leader within one keep-alive period, all stores after one retry, confirms at once; two of
    these may be lost.
    """
    return view.timing.keepalive + 3 * view.timing.retry + 2 * view.timing.rtt


def boot_grace(view: View) -> float:
    """How long after a cold start absence proves nothing: machines do not boot at the same instant."""
    return 2 * view.timing.ttl


def first_look(view: View) -> float:
    """When a new leader has heard everybody who can be heard."""
    return view.leader_since + (boot_grace(view) if view.cold else listening(view))


def contact_since(node: NodeInfo, view: View) -> float:
    """The moment from which the silence of a node counts."""
    base = max(view.silent_since, first_look(view) - view.timing.suspicion)
    last = contact(node, view)
    return base if last is None else max(last, base)


def contact(node: NodeInfo, view: View) -> float | None:
    """When the node was last heard while it heard us too; None: never."""
    if node.heard is None or node.confirmed is None:
        return None
    return node.heard if node.heard - node.confirmed <= view.timing.leader_fallback else node.confirmed


def lost_at(node: NodeInfo, view: View) -> float:
    """When the node will count as lost unless it is heard again; already past: it is lost."""
    return contact_since(node, view) + view.timing.suspicion


def in_contact(node: NodeInfo, now: float, view: View) -> bool:
    """Has this leader a fresh confirmation of the node? Not yet after another election, whatever this store heard when
    it led before: nothing that the guard says of itself is known."""
    last = contact(node, view)
    return bool(node.boot_id) and last is not None and now < last + view.timing.suspicion


def standing(node: NodeInfo, now: float, view: View) -> Standing:
    """The contract's node state with its reason."""
    if not node.runs_groups:
        return Standing(NodeState.READY) if node.connected else Standing(NodeState.LOST, "its store does not answer")
    if node.fence_confirmed and not in_contact(node, now, view):
        return Standing(NodeState.LOST, "an operator confirmed that it is off")
    if now >= lost_at(node, view):
        deaf = node.heard is not None and now < node.heard + view.timing.suspicion
        if node.shutdown_boot_id and not deaf:
            return Standing(NodeState.LOST, "it was shut down in order")
        return Standing(NodeState.LOST, "it is heard but hears nothing" if deaf else "no keep-alive")
    if contact(node, view) is None or not node.boot_id:
        return NOT_HEARD
    if node.leaving:
        return Standing(NodeState.DRAINED, "by an operator" if node.drained else "it shuts down")
    if not node.armed:
        return Standing(NodeState.NOT_READY, node.message or "its guard is not armed")
    if not node.agent_alive:
        return NO_AGENT
    if node.disk_failed:
        return Standing(NodeState.NOT_READY, node.message or "its disk takes no writes")
    return Standing(NodeState.READY)
