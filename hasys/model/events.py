"""Every reason an event may carry: one table, so that the history reads the same everywhere and the docs list it.

An event answers "why did it move?" without a look into a log: cause, node, epoch, duration. Controllers and agents only
name a reason and fill its template; an unknown reason is a programming error and raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How loudly an event asks for attention."""

    NORMAL = "Normal"
    """Expected in operation."""
    WARNING = "Warning"
    """Something failed and was dealt with, or redundancy is reduced."""
    CRITICAL = "Critical"
    """A service is down or unprotected and an operator is needed."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of the catalogue."""

    name: str
    grade: Grade
    template: str
    """Text with ``{named}`` parts, filled by :func:`text`."""
    meaning: str
    """When it is recorded."""
    action: str
    """What the operator does about it."""
    took: str = ""
    """What its duration measures; empty: it need not have one."""


N, W, C = Grade.NORMAL, Grade.WARNING, Grade.CRITICAL

NOTHING = "Nothing."
TROUBLE = "how long what caused it had lasted when it was decided; 0 for an order"
EPOCH = "since the group was given to this node"
STATE = "how long the state before lasted"
SILENT = "how long it had been silent"
COMMAND = "how long the command took"
START, STOP = "how long the start took", "how long the stop took"
TRIED = "since its start began"

_ROWS = (
    # ------------------------------------------------------------ groups: recorded by the controllers
    Reason(
        "GroupAssigned", N, "{group} goes to {node}: {cause}",
        "A group without a node was given one.",
        NOTHING, TROUBLE,
    ),
    Reason(
        "FailoverStarted", W, "{group} fails over from {previous} to {node}: {cause}",
        "The holder was lost, gave up, or is cut off from clients: the group goes elsewhere as soon as can be.",
        "Find out why the old node was lost or gave up; `hasys history GROUP` shows how the failover went.", TROUBLE,
    ),
    Reason(
        "MoveStarted", N, "{group} moves from {previous} to {node}: {cause}",
        "A planned move: the old node stops first, in order.",
        "Nothing, if you asked for it; else mend what the text names.", TROUBLE,
    ),
    Reason(
        "RestartOnNode", W, "{group} starts again on {node}: {cause}",
        "The same node runs the group anew.",
        "Look why its guard gave it up: the text, and the log of the guard on that node.", TROUBLE,
    ),
    Reason(
        "GroupUnassigned", N, "{group} leaves {node}: {cause}",
        "The group is stopped in order, nobody runs it.",
        NOTHING, TROUBLE,
    ),
    Reason(
        "StopOverdue", W, "{group} did not stop on {node}: {cause}",
        "The stop time of a planned move passed: the group is fenced on its old node. The text names the blocker.",
        "Mend the stop of the resource that the text names, or give it more time: `failover.stopTimeout`.", EPOCH,
    ),
    Reason(
        "GroupGranted", N, "{node} may run {group}: {cause}",
        "The leader's first grant to a new holder: the text says what it waited for.",
        NOTHING,
    ),
    Reason(
        "GroupPermitted", N, "the guard of {node} lets {group} act",
        "The grant has arrived: addresses speak and programs start from here on.",
        NOTHING, "since the node read its assignment",
    ),
    Reason(
        "FirstAnswer", N, "monitor {resource} got the first answer on {node}",
        "After a start of its group a monitor that asks the service itself (TCP, HTTP, script) found it well.",
        NOTHING, "since the monitor began to look",
    ),
    Reason(
        "GroupRunning", N, "{group} runs on {node}",
        "Every resource of the group runs.",
        NOTHING, EPOCH,
    ),
    Reason(
        "GroupDegraded", W, "{group} is degraded on {node}: {cause}",
        "It serves, but not all of it.",
        "`hasys status GROUP` shows which resource or monitor is not well.", EPOCH,
    ),
    Reason(
        "RedundancyLost", W, "{group} runs on {node} alone: {cause}",
        "The loss of that node would not be survived.",
        "Mend what the text names; `hasys status` shows when it is mended.", EPOCH,
    ),
    Reason(
        "RedundancyBack", N, "{group} on {node} is redundant again",
        "The loss of its node would be survived.",
        NOTHING, EPOCH,
    ),
    Reason(
        "GroupFailed", C, "{group} failed: {cause}",
        "The group does not run and no move would help now; it is tried again with back-off.",
        "`hasys describe` the failed resource: exit status and output. Mend it, then `hasys retry GROUP`.", EPOCH,
    ),
    Reason(
        "GroupBlocked", C, "{group} is blocked: {cause}",
        "Automatic action is switched off or impossible; the text says what to do.",
        "Do what the text says.", EPOCH,
    ),
    Reason(
        "GroupStopped", N, "{group} is stopped: {cause}",
        "Nobody runs it, as asked or for lack of a node.",
        "Nothing, if you asked for it; else bring one of its nodes back.", EPOCH,
    ),
    Reason(
        "StartFailed", W, "{group} gives up on {node}: {cause}",
        "A resource failed there after its restarts in place; counted against that node.",
        "`hasys describe` the resource that the text names.", EPOCH,
    ),
    Reason(
        "Retrying", N, "{group} is tried again on {node}: {cause}",
        "Only what failed is started again.",
        NOTHING, EPOCH,
    ),
    Reason(
        "GroupPaused", N, "{group}: automatic failover is off",
        "Nothing moves by itself until it is resumed.",
        "`hasys resume GROUP` when the maintenance is over.",
    ),
    Reason(
        "GroupResumed", N, "{group}: automatic failover is on",
        "As the group's failover mode says.",
        NOTHING,
    ),
    Reason(
        "GroupDeleted", N, "{group} is deleted",
        "No node can hold it any more.",
        NOTHING,
    ),
    # ------------------------------------------------------------ nodes: recorded by the controllers
    Reason(
        "NodeReady", N, "{node} is ready",
        "Its guard is heard, hears us, and its agent works.",
        NOTHING, STATE,
    ),
    Reason(
        "NodeNotReady", W, "{node} is not ready: {cause}",
        "Heard, but not fit to take a group over.",
        "Mend what the text names: until then the node takes no group.", STATE,
    ),
    Reason(
        "NodeLost", W, "{node} is lost: {cause}",
        "Silent for longer than the suspicion time.",
        "Look at the machine and its networks. If it is off for good: `hasys fence-confirm NODE`.", SILENT,
    ),
    Reason(
        "InterfaceLost", W, "{node}: {cause}",
        "An interface that groups use there. What it serves moves if another node is better off.",
        "Look at cable, switch port and interface.",
    ),
    Reason(
        "InterfaceBack", N, "{node}: {interface} works again",
        "And has done so for a while: a bouncing link counts as lost.",
        NOTHING,
    ),
    Reason(
        "NodeStopped", N, "{node} is off: it was shut down in order",
        "It had handed everything over before.",
        NOTHING,
    ),
    Reason(
        "NetworkLost", W, "{node} is not reached at {address} any more: what it has to say goes over its other network",
        "One of two networks between the members is gone; nothing moves, but the next loss may cost the node.",
        "Mend that network soon: the next loss may cost the node.",
    ),
    Reason(
        "NetworkBack", N, "{node} is reached at {address} again",
        "Both networks carry again.",
        NOTHING,
    ),
    Reason(
        "NodeDrained", N, "{node} takes no groups: {cause}",
        "Drained by an operator, or shutting down in order.",
        "`hasys undrain NODE` when the maintenance is over.",
    ),
    Reason(
        "NodeUndrained", N, "{node} may take groups again: {cause}",
        "The end of a drain or of a shutdown.",
        NOTHING,
    ),
    Reason(
        "NodeRebooting", W, "{node} is asked to reboot: {cause}",
        "A group with rebootFailedNode has left it, its release is confirmed, and it has no other group.",
        "Look why the group failed there.",
    ),
    Reason(
        "NodeNotRebooted", W, "{node} is not rebooted after a failover: {cause}",
        "rebootFailedNode asked for it. It has other groups, or its reboot command failed or is not configured.",
        "Do what the text asks for, or reboot the node by hand when that suits.",
    ),
    Reason(
        "FenceConfirmed", W, "{node} counts as off: {cause}",
        "An operator swore that the node is off; its grants count as over. Wrong, this breaks S1.",
        "Make sure that the machine is and stays off until it is mended.",
    ),
    Reason(
        "FenceStarted", W, "{node} is being fenced by {cause}",
        "It was lost for as long as its Fencing says while it may still have held a group.",
        "Wait for NodeFenced or FenceFailed.",
    ),
    Reason(
        "NodeFenced", W, "{node} was switched off: {cause}",
        "A fence agent said so: its grants count as over.",
        "Find out why the node was lost.",
    ),
    Reason(
        "FenceFailed", C, "{node} could not be fenced: {cause}",
        "Nothing more is tried until it is heard again.",
        "Switch it off by hand, then `hasys fence-confirm NODE`; test its fence agent.",
    ),
    Reason(
        "OathSworn", C, "{group} is held by {node} without a majority: {cause}",
        "resolve or failover --force without a majority, or a policy of two nodes: the group runs there until a "
        "majority answers. Recorded when the store is back; the time is that of the beginning.",
        "Bring a majority back.",
    ),
    Reason(
        "OathEnded", W, "{group} is no longer held by {node} without a majority: {cause}",
        "A majority took the group over or gave it to another node, the operator gave it up, or the node slept.",
        NOTHING,
    ),
    Reason(
        "OathAdopted", W, "{group} stays on {node}, which held it without a majority: {cause}",
        "The majority is back and found nobody else running the group: it goes on under a new epoch, without a stop.",
        NOTHING, EPOCH,
    ),
    Reason(
        "FenceCleared", N, "{node} is back with another boot",
        "The earlier fence-confirm no longer counts.",
        NOTHING,
    ),
    # ------------------------------------------------------------ operations, cluster
    Reason(
        "OperationSucceeded", N, "{operation}: {cause}",
        "The end of an operator's command.",
        NOTHING, COMMAND,
    ),
    Reason(
        "OperationFailed", W, "{operation}: {cause}",
        "The end of an operator's command; the text says why.",
        "Read the reason in the text, mend it, give the command again.", COMMAND,
    ),
    Reason(
        "ClusterCreated", N, "cluster {name} begins with profile {profile}",
        "The first leader ever.",
        NOTHING,
    ),
    Reason(
        "LevelRaised", N, "cluster {name}: every member understands level {level}; what is new in it can be used",
        "An upgrade is complete: each member's store told that it runs the new version.",
        "Nothing. From now on no member may go back to the version before.",
    ),
    Reason(
        "MembersChanged", N, "{node}: addresses or role changed",
        "node.yaml of the leader differs from the store.",
        NOTHING,
    ),
    # ------------------------------------------------------------ resources: reported by agents
    Reason(
        "ResourceStarted", N, "{resource} runs on {node}",
        "A resource reached Running.",
        NOTHING, START,
    ),
    Reason(
        "ResourceStopped", N, "{resource} stopped on {node}",
        "A resource was stopped as asked.",
        NOTHING, STOP,
    ),
    Reason(
        "StopFailed", W, "{resource} did not stop by itself on {node}: {cause}",
        "What was left of it was killed.",
        "Give it a longer stop timeout, or a stop command that ends it.",
    ),
    Reason(
        "ResourceFailed", W, "{resource} failed on {node}: {cause}",
        "After its restarts in place.",
        "`hasys describe` it: exit status and output.", TRIED,
    ),
    Reason(
        "ResourceRestarted", W, "{resource} was restarted on {node}: {cause}",
        "It died and was started in place.",
        "If it happens again and again, find out why it dies: `hasys describe` shows how it ended.",
    ),
    Reason(
        "ResourceAdopted", N, "{resource} was found running on {node}",
        "A new agent took over what runs.",
        NOTHING,
    ),
    Reason(
        "DriftRepaired", W, "{resource} was repaired on {node}: {cause}",
        "Somebody changed it behind hasys.",
        "Find out who changed it: hasys will always change it back.",
    ),
    Reason(
        "ForeignAddressRemoved", W, "{resource} was removed from {node}: {cause}",
        "An address of a group was on a node that must not have it.",
        "Find out who added it.",
    ),
    Reason(
        "ForeignMount", C, "{resource} must not be mounted on {node}: {cause}",
        "A shared disk was mounted by hand on a node that does not have the group. It is unmounted unless in use.",
        "Unmount it there at once: two nodes that write to one file system destroy it.",
    ),
    Reason(
        "ForeignPrimary", W, "{resource} must not be Primary on {node}: {cause}",
        "A replicated volume was Primary on a node that does not have its group: after a fence, which unmounts it and "
        "does not demote it, or by hand. It is demoted unless something has it open.",
        "Nothing, if it was demoted; else end what has it open there: no other connected node can be promoted before.",
    ),
    Reason(
        "MountUsersKilled", W, "{resource} was unmounted by force on {node}: {cause}",
        "Processes kept the file system busy beyond killAfter, or at a stop with force: they were killed.",
        "Let what used the file system be stopped with the group: make it one of its resources.",
    ),
    Reason(
        "CommonStartFailed", C, "common start failed on {node}: {cause}",
        "The node's commonStart ended badly: it is tried again and the node gets no group, unless onFailure: "
        "Continue.",
        "Mend the command: its output is in the log of the agent.",
    ),
    Reason(
        "UndoFailed", W, "{resource}: its undo failed on {node}: {cause}",
        "The stop is tried again, or goes on if the command says onStartFailure: Continue.",
        "Mend the undo command.",
    ),
    # ------------------------------------------------------------ monitors: reported by agents
    Reason(
        "MonitorFailed", W, "monitor {resource} failed on {node}: {cause}",
        "As often in a row as its settings say, and after its restarts, if it has any. What follows is its action.",
        "Mend what it watches, or its limits.",
    ),
    Reason(
        "MonitorRecovered", N, "monitor {resource} is well again on {node}",
        "The first good look after a failure.",
        NOTHING,
    ),
    Reason(
        "MonitorRestart", W, "monitor {resource} restarts on {node}: {cause}",
        "One attempt to mend it in place: of the resource, or by the command, that the monitor names.",
        "If it happens again and again, mend what it watches.",
    ),
    Reason(
        "AddressTaken", C, "another machine answers for {resource} of {node}: {cause}",
        "A foreign machine uses the address. It was announced again.",
        "Find the machine by its MAC address and take the address from it.",
    ),
    Reason(
        "Fenced", W, "{group} was fenced on {node}: {cause}",
        "The guard took everything of it down.",
        "`hasys history GROUP` shows why the node lost the group.",
    ),
    # ------------------------------------------------------------ guards: told by the agent when it can
    Reason(
        "GuardFenced", W, "the guard of {node} took down {group}: {cause}",
        "It fenced these groups; in brackets when each step was done, counted from the beginning.",
        "`hasys history GROUP` shows why the node lost the group.",
    ),
    Reason(
        "NodeFencedItself", W, "{node} fenced itself: {cause}",
        "Told after the boot, from the note that the guard left: a fence that did not end, or a watchdog that barked.",
        "Find out what could not be stopped: the text names it.",
    ),
    Reason(
        "NodeWentDown", W, "{node} is back: {cause}",
        "Told after the boot, from the note that the guard left: nothing was handed over before.",
        "Find out why the machine went down.",
    ),
)  # fmt: skip

CATALOGUE: dict[str, Reason] = {row.name: row for row in _ROWS}
"""Reasons by name."""

MAX_MESSAGE = 1024
"""Longest event text, in characters: events are replicated."""


def reason(name: str) -> Reason:
    """The row of that name; KeyError names the catalogue."""
    try:
        return CATALOGUE[name]
    except KeyError:
        raise KeyError(f"event reason {name!r} is not in hasys/model/events.py") from None


def text(name: str, /, **parts: object) -> str:
    """The message of an event; missing parts raise KeyError, so a template and its use cannot drift apart."""
    return reason(name).template.format(**parts)[:MAX_MESSAGE]
