"""What ``decide`` makes of each state and input, worked out by ``decide`` itself: docs/reference/decisions.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hasys.model.networks import Fault, Trouble
from hasys.model.timing import PROFILES
from hasys.model.view import (
    Assignment,
    Candidate,
    Failure,
    Finding,
    GroupInfo,
    Limit,
    MonitorAction,
    NodeInfo,
    OperationInfo,
    OperationType,
    Phase,
    ResourceInfo,
    ResourceState,
    View,
)
from hasys.placement.decide import decide
from hasys.placement.effects import (
    Decision,
    FinishOperation,
    Purge,
    SetAssignment,
    SetDrained,
    SetFenceConfirmed,
    SetPaused,
    SetPhase,
)
from hasys.placement.policy import Situation, situation_of

NOW, LONG_AGO = 10_000.0, 1_000.0
APP = ResourceInfo("Application", "app", "n1", 3, ResourceState.RUNNING, version=5)
WEB = GroupInfo(
    "web",
    (Candidate("n1", 100), Candidate("n2", 50)),
    assignment=Assignment("n1", 3),
    phase=Phase.RUNNING,
    resources=(APP,),
    may_hold=frozenset({"n1"}),
    interfaces={"n1": frozenset({"eth0"}), "n2": frozenset({"eth0"})},
    epoch_since=LONG_AGO,
    phase_since=LONG_AGO,
)
LIMIT = Limit(1, 600.0, 3600.0)

Change = Callable[[GroupInfo, dict[str, NodeInfo]], GroupInfo]


def _node(name: str) -> NodeInfo:
    return NodeInfo(name, heard=NOW, confirmed=NOW, armed=True, agent_alive=True, boot_id="b", state_since=LONG_AGO)


def _of_node(**changes: object) -> Change:
    def change(group: GroupInfo, nodes: dict[str, NodeInfo]) -> GroupInfo:
        nodes["n1"] = replace(nodes["n1"], **changes)  # type: ignore[arg-type]
        return group

    return change


def _of_group(**changes: object) -> Change:
    return lambda group, nodes: replace(group, **changes)  # type: ignore[arg-type]


def _network(fault: Fault, text: str) -> Change:
    return _of_node(networks=(Trouble("eth0", fault, text),), networks_since=LONG_AGO)


def _finding(action: MonitorAction) -> tuple[Finding, ...]:
    return (Finding("m", "n1", action, "it is not well", epoch=3, since=LONG_AGO),)


NEVER_RAN = {
    "assignment": Assignment(),
    "phase": Phase.STOPPED,
    "may_hold": frozenset(),
    "resources": (ResourceInfo("Application", "app"),),
}
STATES: dict[Situation, Change] = {
    Situation.DELETING: _of_group(deleting=True),
    Situation.NOBODY: _of_group(**NEVER_RAN),
    Situation.LOST: _of_node(heard=LONG_AGO, confirmed=LONG_AGO),
    Situation.GAVE_UP: _of_node(released={"web": 3}, message="its lease ended"),
    Situation.LEAVING: _of_node(drained=True),
    Situation.CUT_OFF: _network(Fault.LINK, "eth0 has no carrier"),
    Situation.NO_GATEWAY: _network(Fault.GATEWAY, "the gateway does not answer on eth0"),
    Situation.NO_DISK: _of_node(disk_failed=True, message="disk: No space left on device"),
    Situation.FAILED: _of_group(resources=(replace(APP, state=ResourceState.FAILED, message="exit code 1"),)),
    Situation.HALTED: _of_group(findings=_finding(MonitorAction.STOP)),
    Situation.UNFIT: _of_group(findings=_finding(MonitorAction.FAILOVER)),
    Situation.SERVING: _of_group(),
}
"""How each situation of the role table comes about on n1."""

INPUTS: dict[str, Change] = {
    "Auto": _of_group(),
    "Auto, n2 is lost too": lambda group, nodes: _lose_n2(group, nodes),
    "Auto, n2 behind a closed gate": _of_group(closed={"n2": "gate g: it is not well"}),
    "Auto, it failed on n2 before": _of_group(failures={"n2": Failure(2, "exit code 1")}),
    "Auto, limit of failovers reached": _of_group(limit=LIMIT, failovers={3: NOW - 60.0}),
    "Manual": _of_group(manual=True),
    "paused": _of_group(paused=True),
}
"""What else counts."""


def _lose_n2(group: GroupInfo, nodes: dict[str, NodeInfo]) -> GroupInfo:
    nodes["n2"] = replace(nodes["n2"], heard=LONG_AGO, confirmed=LONG_AGO)
    return group


def view_of(*changes: Change, operation: OperationInfo | None = None) -> View:
    """Group web runs on n1, n2 is its Standby; then these changes."""
    group, nodes = WEB, {name: _node(name) for name in ("n1", "n2")}
    for change in changes:
        group = change(group, nodes)
    return View(
        PROFILES["default"],
        leader_since=0.0,
        silent_since=0.0,
        nodes=nodes,
        groups={"web": group},
        operations=(operation,) if operation is not None else (),
    )


def told(decision: Decision) -> str:
    """What the decision writes about the group, in one cell."""
    parts = []
    for effect in decision.effects:
        match effect:
            case SetAssignment(_, a):
                parts.append(_assignment(a))
            case SetPhase(_, phase, reason):
                parts.append(f"*{phase}*" + (f": {reason}" if reason else ""))
            case SetPaused(_, paused):
                parts.append("paused" if paused else "no longer paused")
            case SetDrained(node, drained):
                parts.append(f"{node} is drained" if drained else f"{node} may take groups")
            case SetFenceConfirmed(node, True):
                parts.append(f"{node} counts as off")
            case FinishOperation(_, _, _, succeeded, message):
                parts.append(("done: " if succeeded else "**refused**: ") + message)
            case Purge():
                parts.append("it is removed")
            case _:
                pass
    return "<br>".join(dict.fromkeys(parts)).replace("|", "\\|") or "nothing"


def _assignment(a: Assignment) -> str:
    node = f"**{a.node or 'nobody'}**, epoch {a.epoch}"
    if a.attempt:
        return f"{node}, attempt {a.attempt}"
    if not a.previous_node:
        return node
    return f"{node}; {a.previous_node} " + ("gets no more grants" if a.revoked else "stops it in order first")


OPERATIONS = {
    "switchover": OperationInfo("op", OperationType.SWITCHOVER, "web"),
    "failover --force --to n2": OperationInfo("op", OperationType.FAILOVER, "web", "n2"),
    "resolve --node n2 --role active": OperationInfo("op", OperationType.RESOLVE, "web", "n2", role="active"),
    "resolve --node n1 --role standby": OperationInfo("op", OperationType.RESOLVE, "web", "n1", role="standby"),
    "retry": OperationInfo("op", OperationType.RETRY, "web"),
    "pause": OperationInfo("op", OperationType.PAUSE, "web"),
    "resume": OperationInfo("op", OperationType.RESUME, "web"),
    "drain n1": OperationInfo("op", OperationType.DRAIN, node="n1"),
    "undrain n1": OperationInfo("op", OperationType.UNDRAIN, node="n1"),
    "fence-confirm n1": OperationInfo("op", OperationType.FENCE_CONFIRM, node="n1"),
}
BEFORE: dict[str, Change] = {
    "it serves on n1": STATES[Situation.SERVING],
    "n1 is lost, failover is Manual": lambda group, nodes: STATES[Situation.LOST](replace(group, manual=True), nodes),
    "it failed on n1, failover is Manual": lambda group, nodes: STATES[Situation.FAILED](
        replace(group, manual=True, phase=Phase.FAILED), nodes
    ),
    "n2 is lost": _lose_n2,
    "n2 behind a closed gate": INPUTS["Auto, n2 behind a closed gate"],
}


def page(made: str) -> str:
    """The whole page; ``made`` says who wrote it."""
    lines = [
        "# What is decided, state by state",
        "",
        made,
        "Group `web` (n1 preferred, n2 its other node, an application) has run on n1 for hours in epoch 3. Then one thing happens on n1;",
        "the columns say what else counts. Each cell is what one look of `decide` writes: the node that gets the group and what becomes of",
        "the old one, then phase and reason. *Nothing*: it stays as it is, `Running`. The words of the role table: [placement](placement.md).",
        "",
        "| what happens on n1 | " + " | ".join(INPUTS) + " |",
        "|---|" + "---|" * len(INPUTS),
    ]
    for situation, happens in STATES.items():
        cells = [told(decide(view_of(happens, also), NOW)) for also in INPUTS.values()]
        lines.append(f"| {situation} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Operators' commands",
        "",
        "| command | " + " | ".join(BEFORE) + " |",
        "|---|" + "---|" * len(BEFORE),
    ]
    for name, operation in OPERATIONS.items():
        asked = replace(operation, since=NOW)
        cells = [told(decide(view_of(before, operation=asked), NOW)) for before in BEFORE.values()]
        lines.append(f"| `hasys {name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def shown() -> dict[Situation, Situation]:
    """Situation that a row names -> the one that the role table sees in it."""
    return {s: situation_of(v.groups["web"], v, NOW)[0] for s, change in STATES.items() for v in [view_of(change)]}
