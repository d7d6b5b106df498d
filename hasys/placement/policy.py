"""The role table: what happens to a group, given how its holder stands and what the operator allows.

Everything that moves a group by itself is a row here; the tests read it cell by cell and the reference page is
generated from it. Operations (an operator's commands) act beside it and are not stopped by Manual or a pause.
"""

from __future__ import annotations

from enum import StrEnum

from hasys.model.networks import SEVERE
from hasys.model.view import GroupInfo, MonitorAction, ResourceState, View
from hasys.placement import choice, limits, networks
from hasys.placement.standing import standing


class Situation(StrEnum):
    """How the node that should run the group stands. The first that applies counts, in this order."""

    DELETING = "the group is being deleted"
    NOBODY = "no node is assigned"
    LOST = "the node is lost, or deaf"
    GAVE_UP = "the node's guard has fenced the group"
    LEAVING = "the node is drained, shuts down, or is no longer a candidate"
    CUT_OFF = "nobody is reached through the group's network there, and another node serves better"
    NO_GATEWAY = "the gateway is not reached from there, and is from another node"
    NO_DISK = "the disk of the node's own store takes no writes, and another node can take the group"
    FAILED = "a resource failed there after its restarts in place"
    HALTED = "a monitor with action Stop failed there"
    UNFIT = "a monitor with action Failover failed there"
    SERVING = "nothing is wrong"


class Policy(StrEnum):
    """What may happen without an operator."""

    AUTO = "Auto"
    MANUAL = "Manual"
    LIMITED = "limit of failovers reached"
    PAUSED = "paused"


class Outcome(StrEnum):
    """What is done."""

    STAY = "stays where it is"
    PLACE = "starts on the preferred node that is Ready"
    FAIL_OVER = "goes elsewhere at once"
    RESTART = "starts again there if the node is Ready, else elsewhere"
    RESTART_HERE = "starts again there once the node is Ready"
    RETREAT = "stops there and starts where it has not failed; without such a node it is retried with back-off"
    EVADE = "goes where it has not failed and no monitor speaks against it; without such a node it stays, Degraded"
    HALT = "stops in order and is paused until the operator resumes it"
    STAY_UNFIT = "stays, Degraded, until the operator moves it"
    MOVE = "stops there in order, then starts elsewhere"
    ESCAPE = "stops there in order but soon, then starts elsewhere"
    STOP = "stops in order"
    BLOCK = "waits for the operator"


S, P, O = Situation, Policy, Outcome  # noqa: E741

# a group that reached its limit of failovers is treated as a Manual one until it may go on
TABLE: dict[tuple[Situation, Policy], Outcome] = {
    (S.DELETING, P.AUTO): O.STOP,
    (S.DELETING, P.MANUAL): O.STOP,
    (S.DELETING, P.LIMITED): O.STOP,
    (S.DELETING, P.PAUSED): O.STOP,
    (S.NOBODY, P.AUTO): O.PLACE,
    (S.NOBODY, P.MANUAL): O.PLACE,
    (S.NOBODY, P.LIMITED): O.PLACE,
    (S.NOBODY, P.PAUSED): O.BLOCK,
    (S.LOST, P.AUTO): O.FAIL_OVER,
    (S.LOST, P.MANUAL): O.BLOCK,
    (S.LOST, P.LIMITED): O.BLOCK,
    (S.LOST, P.PAUSED): O.BLOCK,
    (S.GAVE_UP, P.AUTO): O.RESTART,
    (S.GAVE_UP, P.MANUAL): O.RESTART_HERE,
    (S.GAVE_UP, P.LIMITED): O.RESTART_HERE,
    (S.GAVE_UP, P.PAUSED): O.BLOCK,
    # draining and stopping a node are commands: neither Manual nor a pause holds them up
    (S.LEAVING, P.AUTO): O.MOVE,
    (S.LEAVING, P.MANUAL): O.MOVE,
    (S.LEAVING, P.LIMITED): O.MOVE,
    (S.LEAVING, P.PAUSED): O.MOVE,
    (S.CUT_OFF, P.AUTO): O.ESCAPE,
    (S.CUT_OFF, P.MANUAL): O.BLOCK,
    (S.CUT_OFF, P.LIMITED): O.BLOCK,
    (S.CUT_OFF, P.PAUSED): O.BLOCK,
    (S.NO_GATEWAY, P.AUTO): O.MOVE,
    (S.NO_GATEWAY, P.MANUAL): O.BLOCK,
    (S.NO_GATEWAY, P.LIMITED): O.BLOCK,
    (S.NO_GATEWAY, P.PAUSED): O.BLOCK,
    (S.NO_DISK, P.AUTO): O.MOVE,
    (S.NO_DISK, P.MANUAL): O.STAY_UNFIT,
    (S.NO_DISK, P.LIMITED): O.STAY_UNFIT,
    (S.NO_DISK, P.PAUSED): O.STAY_UNFIT,
    (S.FAILED, P.AUTO): O.RETREAT,
    (S.FAILED, P.MANUAL): O.BLOCK,
    (S.FAILED, P.LIMITED): O.BLOCK,
    (S.FAILED, P.PAUSED): O.BLOCK,
    # what a monitor says against a node that serves never makes it serve less than it does
    (S.HALTED, P.AUTO): O.HALT,
    (S.HALTED, P.MANUAL): O.HALT,
    (S.HALTED, P.LIMITED): O.HALT,
    (S.HALTED, P.PAUSED): O.STAY_UNFIT,
    (S.UNFIT, P.AUTO): O.EVADE,
    (S.UNFIT, P.MANUAL): O.STAY_UNFIT,
    (S.UNFIT, P.LIMITED): O.STAY_UNFIT,
    (S.UNFIT, P.PAUSED): O.STAY_UNFIT,
    (S.SERVING, P.AUTO): O.STAY,
    (S.SERVING, P.MANUAL): O.STAY,
    (S.SERVING, P.LIMITED): O.STAY,
    (S.SERVING, P.PAUSED): O.STAY,
}
"""Complete: every situation under every policy."""


FAULTS = frozenset({S.LOST, S.GAVE_UP, S.CUT_OFF, S.NO_GATEWAY, S.NO_DISK, S.FAILED, S.UNFIT})
"""A move to another node for one of these is a failover: it counts for the group's limit."""


def policy_of(group: GroupInfo, view: View, now: float) -> Policy:
    """A pause is stronger than the group's failover mode, and that than its limit."""
    if group.paused:
        return Policy.PAUSED
    if group.manual:
        return Policy.MANUAL
    return Policy.LIMITED if limits.reached(group, view, now) else Policy.AUTO


def situation_of(group: GroupInfo, view: View, now: float) -> tuple[Situation, str]:
    """The situation and what was seen, for the cause in the history."""
    holder = group.assignment.node
    if group.deleting:
        return Situation.DELETING, "it was deleted"
    if not holder:
        return Situation.NOBODY, ""
    node = view.nodes.get(holder)
    if node is None:
        return Situation.LEAVING, f"{holder} is not a member"
    how = standing(node, now, view)
    if how.lost:
        return Situation.LOST, f"{holder} is lost: {how.why}"
    if node.released.get(group.name, 0) >= group.assignment.epoch:
        return Situation.GAVE_UP, f"the guard of {holder} fenced it" + (f": {node.message}" if node.message else "")
    if group.candidate(holder) is None:
        return Situation.LEAVING, f"{holder} is no longer one of its nodes"
    if node.leaving:
        return Situation.LEAVING, f"{holder} is drained" if node.drained else f"{holder} shuts down"
    trouble = networks.to_leave(group, view, now)
    if trouble is not None and now >= networks.settled(group, trouble, view):
        able = choice.able(group, view, now, without=[holder])
        if networks.better(group, trouble, able, view, now):
            situation = Situation.CUT_OFF if trouble.fault >= SEVERE else Situation.NO_GATEWAY
            return situation, f"{holder}: {trouble.text}"
    if node.disk_failed and choice.able(group, view, now, without=[holder]):
        return Situation.NO_DISK, f"{holder}: {node.message or 'its disk takes no writes'}"
    failure = failed(group)
    if failure:
        return Situation.FAILED, failure
    halted = group.unfit(holder, MonitorAction.STOP)
    if halted:
        return Situation.HALTED, halted
    unfit = group.unfit(holder)
    if unfit:
        return Situation.UNFIT, unfit
    return Situation.SERVING, ""


def failed(group: GroupInfo) -> str:
    """Vital resources that failed at the present epoch and attempt, with what they said; empty: none."""
    parts = [
        f"{r.name} failed on {r.node}" + (f": {r.message}" if r.message else "")
        for r in group.resources
        if r.vital and not r.deleting and r.state is ResourceState.FAILED and group.current(r)
    ]
    return "; ".join(parts)
