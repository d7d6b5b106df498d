"""The page about one thing: a group with its flow, a node, a monitor, an event. Pure text, one line per fact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hasys.api.convert import nanoseconds, show_duration, show_time
from hasys.api.kinds import Resource, kind_name, resource
from hasys.cli.output import taken
from hasys.cli.statusview import OWN_COLUMNS, own_row
from hasys.cli.top.picture import Picture, Subject
from hasys.placement import flow
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

_EVENTS = 8
"""Shown below a group or a node."""
_OUTPUT = 10
"""Last lines of a step's output."""


def details(picture: Picture, subject: Subject) -> str:
    """Everything that is known about it."""
    made = {"groups": _group, "nodes": _node, "monitors": _monitor, "events": _event}[subject.panel]
    return "\n".join(made(picture, subject.key))


def _group(picture: Picture, name: str) -> Iterator[str]:
    view = picture.group(name)
    if view is None:
        yield f"group {name} is gone"
        return
    stored = next((o.group for r, o in picture.objects.items() if (r.kind, r.name) == ("Group", name)), pb.Group())
    bound = f", within {show_duration(view.failover_bound)}" if view.HasField("failover_bound") else ""
    mode = "paused" if view.paused else view.failover_mode
    yield f"group {name}: {view.phase} on {view.active or 'no node'} (epoch {view.epoch})"
    yield f"mode {view.mode}, failover {mode}{bound}; {'redundant' if view.redundant else 'NOT redundant'}"
    yield f"why: {view.reason or 'nothing holds it up'}"
    if stored.status.assignment.cause:
        yield f"last move: {stored.status.assignment.cause} ({show_time(stored.status.assignment.since)})"
    yield "nodes: " + ", ".join(f"{node} {role}" for node, role in sorted(view.nodes.items()))
    for node, failure in sorted(stored.status.failures.items()):
        yield f"  {node} could not run it ({failure.count}x, {show_time(failure.time)}): {failure.message}"
    yield ""
    yield from _flow(picture, view)
    if view.monitors:
        yield ""
        yield "monitors"
        yield from _columns((f"  {m.name}", m.state, m.watches, m.node or "-", m.message) for m in view.monitors)
    yield from _events(e for e in picture.events if name in (e.regarding.group, e.regarding.name))


def _flow(picture: Picture, view: api.GroupView) -> Iterator[str]:
    """The steps in the order of their start, with how each one ended and what it said last."""
    steps = {r.name: s for r in picture.objects if r.group == view.name and (s := resource(picture.objects[r]))}
    order = _in_order(steps)
    shown = {r.name: r for r in view.resources}
    order = [*_in_order(steps), *(name for name in shown if name not in steps)]
    yield "flow (in order of start)"
    heading = ("  STEP", "STATE", "NODE", "AFTER", "EXIT", "MESSAGE")
    first, *lines = _columns([heading, *(_step(name, steps, shown) for name in order)])
    yield first
    for name, line in zip(order, lines, strict=True):
        yield line
        if name in steps:
            yield from _output(steps[name].status.output)


def _in_order(steps: dict[str, Resource]) -> list[str]:
    arrows = [flow.Step(name, after=frozenset(step.spec.after)) for name, step in steps.items()]
    try:
        return [name for layer in flow.layers(arrows) for name in layer]
    except ValueError:  # a half-told change may look like a circle
        return sorted(steps)


def _step(name: str, steps: dict[str, Resource], shown: dict[str, api.ResourceView]) -> tuple[str, ...]:
    view = shown.get(name, api.ResourceView(name=name))
    step = steps.get(name)
    if step is None:
        return (f"  {view.kind}/{name}", view.state, view.node or "-", "-", "-", view.message)
    status = step.status
    exit_code = str(status.exit_code) if status.exited else "-"
    state, node = view.state or status.state or "Stopped", view.node or status.node or "-"
    restarts = f" (restarted {status.restarts}x)" if status.restarts else ""
    message = (view.message or status.message) + restarts
    return (f"  {kind_name(step)}/{name}", state, node, ",".join(step.spec.after) or "-", exit_code, message.strip())


def _output(text: str) -> Iterator[str]:
    for line in text.rstrip().splitlines()[-_OUTPUT:]:
        yield "    | " + "".join(c if c.isprintable() else " " for c in line)


def _node(picture: Picture, name: str) -> Iterator[str]:
    view = picture.node(name)
    if view is None:
        yield f"node {name} is gone"
        return
    lease = f"valid, epoch {view.lease.epoch}" if view.lease.valid else "none"
    guard = f"armed, watchdog {view.guard.watchdog or 'none'}" if view.guard.armed else "not heard"
    yield f"node {name}: {view.role}, {view.state}{': ' if view.message else ''}{view.message}"
    yield f"lease {lease}; guard {guard}; version {view.version or '-'}"
    for interface, why in sorted(view.networks.items()):
        yield f"network {interface}: {why}"
    if view.cut:
        yield f"not reached at: {', '.join(view.cut)}"
    if view.HasField("figures"):
        yield from _figures(view)
    if view.figures.own:
        yield "hasys's own processes (k: restart one)"
        yield from _columns([f"  {cell}" if n == 0 else cell for n, cell in enumerate(row)]
                            for row in (OWN_COLUMNS, *map(own_row, view.figures.own)))  # fmt: skip
    holds = [f"{g.name} ({g.nodes[name]})" for g in picture.status.groups if name in g.nodes]
    yield f"groups: {', '.join(holds) or 'none'}"
    yield from _events(e for e in picture.events if e.node == name or e.regarding.name == name)


def _figures(view: api.NodeView) -> Iterator[str]:
    figures, host = view.figures, view.figures.host
    yield f"cpu {figures.cpu:.0f}%, memory {figures.memory:.0f}%, {figures.processes} processes"
    if host.os:
        yield f"{host.model or 'computer'}, {host.os}, kernel {host.kernel}, up {show_duration(host.uptime)}"
    for name, traffic in sorted(figures.traffic.items()):
        yield f"traffic {name}: {traffic.received / 1e3:.1f} kB/s in, {traffic.sent / 1e3:.1f} kB/s out"


def _monitor(picture: Picture, key: str) -> Iterator[str]:
    group, _, name = key.partition("/")
    view = picture.group(group)
    found = next((m for m in view.monitors if m.name == name), None) if view else None
    if found is None:
        yield f"monitor {key} is gone"
        return
    yield f"monitor {key}: {found.state} on {found.node or 'no node'}"
    yield f"watches: {found.watches}; when it fails: {found.action or 'nothing'}"
    yield f"says: {found.message or '-'}"
    yield from _events(e for e in picture.events if (e.regarding.group, e.regarding.name) == (group, name))


def _event(picture: Picture, key: str) -> Iterator[str]:
    event = next((e for e in picture.events if e.metadata.name == key), None)
    if event is None:
        yield "this event is no longer kept"
        return
    about = f"{event.regarding.kind}/{event.regarding.name}" if event.regarding.kind else "-"
    yield f"{event.reason} ({event.type}) at {show_time(event.time)}"
    yield event.message
    took = f", took {taken(event.duration)}" if nanoseconds(event.duration) else ""
    yield f"about {about}, node {event.node or '-'}, epoch {event.epoch}, by {event.actor or '-'}{took}"


def _events(found: Iterable[pb.Event]) -> Iterator[str]:
    latest = list(found)[-_EVENTS:]
    if latest:
        yield ""
        yield "events (UTC, latest first)"
        yield from _columns((f"  {show_time(e.time)[11:19]}", e.reason, e.node or "-", e.message)
                            for e in reversed(latest))  # fmt: skip


def _columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    made = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*made, strict=True)]
    for row in made:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
