"""What an operator may do with a line of ``hasys top``: the question, its danger, and the operation behind it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hasys.cli.top.picture import Picture, Subject
from hasys.v1 import objects_pb2 as pb

_Type = pb.OperationSpec.Type

_FORCE = (
    "FORCED: conditions are skipped, the node that has it is fenced and not asked to stop in order."
    " What its programs had not written yet is lost. A planned move is 's'."
)
_OATH = (
    "You swear that {node} is OFF and stays off. Its leases count as over at once: if it still runs, two nodes"
    " serve the same address and write the same data. Look at the machine first."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to say yes."""

    label: str
    spec: pb.OperationSpec


@dataclass(frozen=True, slots=True)
class Offer:
    """A question before anything is done."""

    question: str
    choices: tuple[Choice, ...]
    """Never empty."""
    warning: str = ""
    typed: str = ""
    """The word that must be typed as a yes, where a slip of the finger could destroy data; empty: a key is enough."""


@dataclass(frozen=True, slots=True)
class Command:
    """A key, and what it is for."""

    key: str
    label: str
    panel: str
    offer: Callable[[Picture, str], Offer | None]
    """Of the line with that name; None: it makes no sense there now."""


def _switchover(picture: Picture, name: str) -> Offer | None:
    others = _others(picture, name)
    view = picture.group(name)
    if view is None or not view.active or not others:
        return None
    best = Choice("the best other node", pb.OperationSpec(type=_Type.Switchover, group=name))
    named = [Choice(node, pb.OperationSpec(type=_Type.Switchover, group=name, node=node)) for node in others]
    return Offer(f"Move {name} away from {view.active}, in order. Where to?", (best, *named))


def _force(picture: Picture, name: str) -> Offer | None:
    choices = [
        Choice(node, pb.OperationSpec(type=_Type.Failover, group=name, node=node, force=True))
        for node in _others(picture, name)
    ]
    question = f"Force {name} to which node?"
    return Offer(question, tuple(choices), _FORCE, typed=name) if choices else None


def _pause(picture: Picture, name: str) -> Offer | None:
    view = picture.group(name)
    if view is None:
        return None
    if view.paused:
        spec = pb.OperationSpec(type=_Type.Resume, group=name)
        return Offer(f"Switch the automatic failover of {name} on again?", (Choice("resume", spec),))
    spec = pb.OperationSpec(type=_Type.Pause, group=name)
    return Offer(f"Switch the automatic failover of {name} off? What runs keeps running.", (Choice("pause", spec),))


def _retry(picture: Picture, name: str) -> Offer | None:
    view = picture.group(name)
    if view is None:
        return None
    failed = [r.name for r in view.resources if r.state == "Failed"]
    whole = Choice("all that failed", pb.OperationSpec(type=_Type.Retry, group=name))
    steps = [Choice(f"only {step}", pb.OperationSpec(type=_Type.Retry, group=name, step=step)) for step in failed]
    return Offer(f"Run again what failed in {name}? What runs is not touched.", (whole, *steps))


def _drain(picture: Picture, name: str) -> Offer | None:
    view = picture.node(name)
    if view is None or view.role == "Witness":
        return None
    if view.state == "Drained":
        spec = pb.OperationSpec(type=_Type.Undrain, node=name)
        return Offer(f"Let {name} be used again? Nothing moves back by itself.", (Choice("undrain", spec),))
    spec = pb.OperationSpec(type=_Type.Drain, node=name)
    held = [g.name for g in picture.status.groups if g.active == name]
    moved = f" {', '.join(held)} will move." if held else ""
    return Offer(f"Move everything away from {name}, and give it nothing?{moved}", (Choice("drain", spec),))


def _fence_confirm(picture: Picture, name: str) -> Offer | None:
    view = picture.node(name)
    if view is None or view.role == "Witness":
        return None
    spec = pb.OperationSpec(type=_Type.FenceConfirm, node=name)
    return Offer(f"Confirm that {name} is off?", (Choice("it is off", spec),), _OATH.format(node=name), typed=name)


def _restart_process(picture: Picture, name: str) -> Offer | None:
    view = picture.node(name)
    roles = [p.role for p in view.figures.own if p.role != "supervisor"] if view else []
    choices = [Choice(role, pb.OperationSpec(type=_Type.RestartProcess, node=name, role=role)) for role in roles]
    question = f"Restart which of hasys's own processes on {name}? What the groups run is not touched."
    return Offer(question, tuple(choices)) if choices else None


COMMANDS: Sequence[Command] = (
    Command("s", "Switchover", "groups", _switchover),
    Command("f", "Force", "groups", _force),
    Command("p", "Pause/resume", "groups", _pause),
    Command("r", "Retry", "groups", _retry),
    Command("d", "Drain/undrain", "nodes", _drain),
    Command("c", "Confirm it is off", "nodes", _fence_confirm),
    Command("k", "Restart a process", "nodes", _restart_process),
)


def offer(picture: Picture, key: str, subject: Subject | None) -> Offer | str:
    """What a key asks about a line, or why there is nothing to ask."""
    command = next(c for c in COMMANDS if c.key == key)
    if subject is None or subject.panel != command.panel:
        return f"{command.label}: choose a line of the {command.panel} first (Tab)"
    made = command.offer(picture, subject.key)
    return made if made is not None else f"{command.label}: not possible for {subject.key} now"


def _others(picture: Picture, name: str) -> list[str]:
    """The nodes that could have it instead, ready ones first."""
    view = picture.group(name)
    if view is None:
        return []
    states = {node.name: node.state for node in picture.status.nodes}
    names = sorted(node for node in view.nodes if node != view.active)
    return sorted(names, key=lambda node: states.get(node) != "Ready")
