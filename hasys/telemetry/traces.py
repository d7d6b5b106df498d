"""One trace per assignment of a group, across all nodes that had a part in it.

Trace and span ids are derived from cluster, group and epoch: whoever exports the trace, and however often, it is the
same trace. Times are those of the timeline (hasys/api/timeline.py), of the leader's clock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import groupby

from hasys.api.timeline import Mark, Timeline

Attributes = dict[str, str | int | float | bool]


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


def _work(line: Timeline) -> list[tuple[str, list[Mark]]]:
    """What each node's agent did, by node."""
    steps = [m for m in line.marks if m.reason in ("GroupPermitted", "ResourceStarted", "ResourceStopped")]
    steps.sort(key=lambda mark: (mark.node, mark.begin))
    return [(node, list(marks)) for node, marks in groupby(steps, key=lambda mark: mark.node)]


def _time(line: Timeline, offset: float) -> int:
    return line.begun + round(offset * 1e9)
