"""The order of a group's resources: a directed graph of ``after``. Pure.

A resource starts when everything that it names has come up; independent branches start side by side. Stopping is the
reverse: a resource stops when nothing that needs it is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto


class Progress(Enum):
    """How far a step is, as far as its neighbours care."""

    WAITING = auto()
    """Not begun, nothing of it is there."""
    BUSY = auto()
    """Starting or stopping."""
    UP = auto()
    """Running; for a delay: elapsed."""
    FAILED = auto()
    """Did not come up, or went down for good. Something of it may be there."""


@dataclass(frozen=True, slots=True)
class Step:
    """One resource of the flow."""

    name: str
    progress: Progress = Progress.WAITING
    after: frozenset[str] = frozenset()
    """Names that are no step (deleted meanwhile) hold nobody up."""
    tolerated: bool = False
    """``onStartFailure: Continue``: those after it start though it failed."""


def startable(steps: Iterable[Step]) -> tuple[str, ...]:
    """The steps to start now, by name."""
    by_name = _by_name(steps)
    return tuple(
        name
        for name, step in by_name.items()
        if step.progress is Progress.WAITING and not any(_holds_up(p) for p in _before(step, by_name))
    )


def stoppable(steps: Iterable[Step]) -> tuple[str, ...]:
    """The steps that may stop now, by name: those that nothing present comes after."""
    by_name = _by_name(steps)
    needed = {a for step in by_name.values() if step.progress is not Progress.WAITING for a in step.after}
    return tuple(n for n, step in by_name.items() if step.progress is not Progress.WAITING and n not in needed)


def waits_for(name: str, steps: Iterable[Step]) -> str:
    """Why a waiting step does not start: "waiting for a, b" or "not started: a failed"; empty when nothing holds it."""
    by_name = _by_name(steps)
    holding = [p for p in _before(by_name[name], by_name) if _holds_up(p)]
    failed = [p.name for p in holding if p.progress is Progress.FAILED]
    if failed:
        return f"not started: {', '.join(failed)} failed"
    return f"waiting for {', '.join(p.name for p in holding)}" if holding else ""


def layers(steps: Iterable[Step]) -> tuple[tuple[str, ...], ...]:
    """Topological layers: each one needs only earlier ones. Raises ValueError naming the members of a cycle."""
    left = _by_name(steps)
    found: list[tuple[str, ...]] = []
    while left:
        layer = tuple(n for n, step in left.items() if not (step.after - {n}) & left.keys() and n not in step.after)
        if not layer:
            raise ValueError(f"cycle among {', '.join(left)}")
        found.append(layer)
        for name in layer:
            del left[name]
    return tuple(found)


def _by_name(steps: Iterable[Step]) -> dict[str, Step]:
    return {s.name: s for s in sorted(steps, key=lambda s: s.name)}


def _before(step: Step, by_name: Mapping[str, Step]) -> list[Step]:
    return [by_name[a] for a in sorted(step.after) if a in by_name]


def _holds_up(step: Step) -> bool:
    return not (step.progress is Progress.UP or (step.progress is Progress.FAILED and step.tolerated))
