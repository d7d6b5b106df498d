"""What happened when a group went from one node to another, put together from the recorded events. Pure.

Every node measures with its own monotonic clock and reports how long ago something was; the leader makes times of its
own clock of that at the receipt (hasys/api/server/reports.py). So all marks of a timeline are of one clock, as far as
one leader recorded them, each later than it was by the way of a report at most. ``clocks`` names more than one when
the leadership changed in between: then the wall clocks of these leaders stand between their marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hasys.api.convert import nanoseconds
from hasys.v1 import objects_pb2 as pb

BEGINS = {
    "FailoverStarted": "failover",
    "MoveStarted": "move",
    "RestartOnNode": "restart",
    "GroupAssigned": "start",
    "OathAdopted": "adoption",
}
"""Reasons that begin an epoch, and what to call what follows."""
ENDS = ("GroupRunning", "GroupDegraded", "GroupFailed", "GroupBlocked")
"""Reasons that end a timeline: the first one of the epoch."""
WELL = ("GroupRunning", "GroupDegraded")
BEFORE, AFTER = 10.0, 60.0
"""Seconds before the decision, and after the end, in which something still belongs to it."""

_WORDS = {
    "ResourceFailed": "{name} fails",
    "MonitorFailed": "monitor {name} fails",
    "ResourceStopped": "{name} stops",
    "StopFailed": "{name} does not stop by itself",
    "StopOverdue": "the stop time has passed",
    "Fenced": "fenced",
    "GroupGranted": "granted",
    "GroupPermitted": "permitted",
    "ResourceStarted": "{name} starts",
    "ResourceAdopted": "{name} is found running",
    "FirstAnswer": "first answer, seen by monitor {name}",
    "GroupRunning": "running",
    "GroupDegraded": "degraded",
    "GroupFailed": "failed",
    "GroupBlocked": "blocked",
}
_TROUBLE = ("ResourceFailed", "MonitorFailed")
_OF_THE_OLD = (*_TROUBLE, "ResourceStopped", "StopFailed", "Fenced")
_OF_THE_NEW = (
    "StopOverdue", "GroupGranted", "GroupPermitted", "ResourceStarted", "ResourceAdopted", "ResourceFailed",
    "FirstAnswer", *ENDS,
)  # fmt: skip
_WHY = ("GroupGranted", "ResourceFailed", "MonitorFailed", "StopFailed", "StopOverdue", *ENDS)
"""Reasons whose cause says more than their name."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that happened. Seconds after the timeline's beginning."""

    begin: float
    end: float
    """Later than ``begin`` for what took time."""
    node: str
    what: str
    reason: str
    """Of the event that it comes from; ``Detected`` for the time until the decision."""

    @property
    def lasted(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Timeline:
    """One assignment of one group, from the first sign of trouble to the first word that it runs."""

    group: str
    epoch: int
    what: str
    """failover | move | restart | start | adoption."""
    previous: str
    node: str
    cause: str
    actor: str
    begun: int
    """Nanoseconds since 1970, by the leader's clock: where the marks count from."""
    decided: float
    """Seconds after the beginning."""
    marks: tuple[Mark, ...]
    clocks: tuple[str, ...]
    """Members whose clocks the marks are of; empty name: of the node itself."""

    @property
    def ended(self) -> float | None:
        """When it was known to run, or not to; None: it is under way."""
        return next((mark.end for mark in self.marks if mark.reason in ENDS), None)

    @property
    def well(self) -> bool:
        """It ended with a group that serves."""
        return any(mark.reason in WELL for mark in self.marks if mark.reason in ENDS)

    def first(self, reason: str) -> float | None:
        """When the first mark of this reason ended."""
        return next((mark.end for mark in self.marks if mark.reason == reason), None)


def timelines(events: Iterable[pb.Event]) -> list[Timeline]:
    """Every assignment whose beginning is among the events, oldest first."""
    groups: dict[str, list[pb.Event]] = {}
    for event in events:
        groups.setdefault(_group(event), []).append(event)
    found = [
        _timeline(begin, own)
        for own in groups.values()
        for begin in own
        if begin.reason in BEGINS and begin.regarding.kind == "Group"
    ]
    return sorted(found, key=lambda timeline: timeline.begun)


def _group(event: pb.Event) -> str:
    return event.regarding.group or (event.regarding.name if event.regarding.kind == "Group" else "")


def _timeline(begin: pb.Event, events: Sequence[pb.Event]) -> Timeline:
    decided = _at(begin)
    old, old_epoch = _before(begin, events)
    belonging = [event for event in events if _belongs(event, begin, old, old_epoch)]
    ended = min((_at(event) for event in belonging if event.reason in ENDS), default=None)
    if ended is not None:
        latest = ended + round(AFTER * 1e9)
        belonging = [e for e in belonging if _at(e) <= (ended if e.reason in ENDS else latest)]
    noticed = decided - nanoseconds(begin.duration)
    begun = min(noticed, *(_at(event) - _length(event) for event in belonging), decided)
    offset, leader = (decided - begun) / 1e9, begin.clock or begin.actor
    marks = [_mark(event, begun) for event in belonging]
    if noticed < decided:
        marks.insert(0, Mark((noticed - begun) / 1e9, offset, leader, f"detected: {begin.cause}", "Detected"))
    route = f"from {old} to {begin.node}" if old and old != begin.node else f"on {begin.node}"
    decision = f"decided: {BEGINS[begin.reason]} {route}" + ("" if noticed < decided else f": {begin.cause}")
    marks.insert(int(noticed < decided), Mark(offset, offset, leader, decision, begin.reason))
    marks.sort(key=lambda mark: (mark.begin, mark.end))
    clocks = dict.fromkeys(event.clock for event in (begin, *belonging))
    return Timeline(
        _group(begin), begin.epoch, BEGINS[begin.reason], old, begin.node, begin.cause, begin.actor, begun, offset,
        tuple(marks), tuple(clocks),
    )  # fmt: skip


def _before(begin: pb.Event, events: Sequence[pb.Event]) -> tuple[str, int]:
    """The node that had the group before, and its epoch: the newest earlier one that somebody speaks of."""
    earlier = [e for e in events if 0 < e.epoch < begin.epoch and e.node and e.reason in (*BEGINS, *_OF_THE_NEW)]
    if begin.reason == "GroupAssigned" or not earlier:
        return "", 0
    last = max(earlier, key=lambda e: (e.epoch, _at(e)))
    return last.node, last.epoch


def _belongs(event: pb.Event, begin: pb.Event, old: str, old_epoch: int) -> bool:
    if event.epoch == begin.epoch:
        return event.reason in _OF_THE_NEW
    if event.epoch != old_epoch or event.node != old or event.reason not in _OF_THE_OLD:
        return False
    if event.reason in _TROUBLE:
        return _at(begin) - round(BEFORE * 1e9) <= _at(event) <= _at(begin)
    return _at(event) >= _at(begin)


def _length(event: pb.Event) -> int:
    """Nanoseconds of what is a step on the way, and is drawn as long as it took; 0 for an instant."""
    return nanoseconds(event.duration) if event.reason in ("ResourceStarted", "ResourceStopped") else 0


def _mark(event: pb.Event, begun: int) -> Mark:
    end = _at(event) - begun
    what = _WORDS[event.reason].format(name=event.regarding.name)
    if event.reason in _WHY and event.cause:
        what = f"{what}: {event.cause}"
    node = event.clock if event.actor == "controller" and event.clock else event.node
    return Mark((end - _length(event)) / 1e9, end / 1e9, node, what, event.reason)


def _at(event: pb.Event) -> int:
    return int(event.time.ToNanoseconds())
