"""One trace per assignment of a group, across all nodes that had a part in it, and one for what a node does later.

Trace and span ids are derived from cluster, group and epoch, later from the first step too: whoever exports the trace,
and however often, it is the same trace. Times are those of the timeline (hasys/api/timeline.py), of the leader's clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from hasys.api.convert import nanoseconds
from hasys.api.timeline import Mark, Timeline
from hasys.v1 import objects_pb2 as pb

Attributes = dict[str, str | int | float | bool]

STEPS = {
    "Retrying": "{name} is tried again",
    "ResourceStarted": "{name} starts",
    "ResourceStopped": "{name} stops",
    "ResourceRestarted": "{name} is restarted",
    "ResourceFailed": "{name} fails",
    "StopFailed": "{name} does not stop by itself",
    "DriftRepaired": "{name} is repaired",
    "ForeignAddressRemoved": "{name} is removed",
}
"""Reasons of what is done for a group on a node, also while it stays where it is."""
_TROUBLE = ("ResourceFailed", "StopFailed")


def trace_id(cluster: str, group: str, epoch: int) -> int:
    """128 bits, the same on every member."""
    return _digest(f"{cluster}/{group}@{epoch}", 16)


def span_id(trace: int, path: str) -> int:
    """64 bits: the same for the same span of the same trace."""
    return _digest(f"{trace:032x}/{path}", 8)


def _digest(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "big") or 1


@dataclass(frozen=True, slots=True)
class Span:
    """One span, ready to be exported. Times in nanoseconds since 1970."""

    trace: int
    id: int
    parent: int
    """0: the root."""
    name: str
    begin: int
    end: int
    failed: bool = False
    attributes: Attributes = field(default_factory=dict)
    events: tuple[tuple[str, int], ...] = ()


def spans_of(line: Timeline, cluster: str) -> list[Span]:
    """Root, detection, wait for the lease, and per node its reconcile with a span for each step."""
    trace = trace_id(cluster, line.group, line.epoch)
    common: Attributes = {"hasys.cluster": cluster, "hasys.group": line.group, "hasys.epoch": line.epoch}
    root = span_id(trace, "")
    end = max(mark.end for mark in line.marks)
    about: Attributes = {
        **common, "hasys.from": line.previous, "hasys.to": line.node, "hasys.cause": line.cause,
        "hasys.actor": line.actor, "hasys.clocks": ",".join(line.clocks),
    }  # fmt: skip
    failed = line.ended is not None and not line.well
    instants = tuple((m.what, _time(line, m.end)) for m in line.marks if not m.lasted)
    found = [Span(trace, root, 0, f"{line.what} {line.group}", line.begun, _time(line, end), failed, about, instants)]

    def add(name: str, begin: float, end: float, parent: int = root, **more: str) -> int:
        span = span_id(trace, f"{parent:x}/{name}/{begin:.6f}")
        attributes = {**common, **{f"hasys.{key}": value for key, value in more.items()}}
        found.append(Span(trace, span, parent, name, _time(line, begin), _time(line, end), attributes=attributes))
        return span

    if line.decided > 0:
        add("detect", 0.0, line.decided, cause=line.cause)
    granted = line.first("GroupGranted")
    if granted is not None and granted > line.decided:
        add("wait for the lease", line.decided, granted)
    for node, marks in _work(line):
        inner = add(f"reconcile on {node}", min(m.begin for m in marks), max(m.end for m in marks), node=node)
        for mark in marks:
            if mark.lasted:
                add(mark.what, mark.begin, mark.end, inner, node=node)
    return found


def spans_of_reconcile(steps: Sequence[pb.Event], cluster: str) -> list[Span]:
    """What one node did for a group that stayed where it was: a root, and a span for each step that took time."""
    first = steps[0]
    group = first.regarding.group or first.regarding.name
    trace = _digest(f"{cluster}/{group}@{first.epoch}/{first.node}/{first.time.ToNanoseconds()}", 16)
    root = span_id(trace, "")
    common: Attributes = {
        "hasys.cluster": cluster, "hasys.group": group, "hasys.epoch": first.epoch, "hasys.node": first.node,
    }  # fmt: skip
    found, instants = [], []
    for number, step in enumerate(steps):
        name, end = STEPS[step.reason].format(name=step.regarding.name), step.time.ToNanoseconds()
        took = nanoseconds(step.duration) if step.reason in ("ResourceStarted", "ResourceStopped") else 0
        if took:
            span = span_id(trace, f"{number}/{name}")
            found.append(Span(trace, span, root, name, end - took, end, attributes=common))
        else:
            instants.append((f"{name}: {step.cause}" if step.cause else name, end))
    begin = min([span.begin for span in found] + [at for _, at in instants])
    end = max([span.end for span in found] + [at for _, at in instants])
    failed = any(step.reason in _TROUBLE for step in steps)
    about: Attributes = {**common, "hasys.cause": "; ".join(dict.fromkeys(s.cause for s in steps if s.cause))}
    name = f"reconcile {group} on {first.node}"
    return [Span(trace, root, 0, name, begin, end, failed, about, tuple(instants)), *found]


def _work(line: Timeline) -> list[tuple[str, list[Mark]]]:
    """What each node's agent did, by node."""
    steps = [m for m in line.marks if m.reason in ("GroupPermitted", "ResourceStarted", "ResourceStopped")]
    steps.sort(key=lambda mark: (mark.node, mark.begin))
    return [(node, list(marks)) for node, marks in groupby(steps, key=lambda mark: mark.node)]


def _time(line: Timeline, offset: float) -> int:
    return line.begun + round(offset * 1e9)
