"""``hasys events`` and ``hasys history``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from hasys.api.convert import show_time
from hasys.api.timeline import BEGINS, Timeline, timelines
from hasys.cli.context import context_option
from hasys.cli.output import Lines, output_option, print_json, print_table, styled, taken
from hasys.cli.session import Cluster, talk
from hasys.cli.statusview import EVENT_COLUMNS, event_row
from hasys.cli.timelines import TIMELINE_COLUMNS, picture, timeline_json, timeline_rows, title
from hasys.model.errors import NotFound
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

_ROLE_CHANGES = frozenset({
    "GroupAssigned", "FailoverStarted", "MoveStarted", "RestartOnNode", "GroupUnassigned", "GroupRunning",
    "GroupFailed", "GroupBlocked", "GroupStopped", "Fenced",
})  # fmt: skip
"""Reasons of hasys/model/events.py that belong to the history of a group: who had it, when, why."""


@click.command()
@click.option("-g", "--group", default="", metavar="GROUP", help="Only those about this group.")
@click.option("-f", "--follow", is_flag=True, help="Then every new one, until Ctrl-C.")
@click.option("--limit", type=click.IntRange(1, 5000), default=100, show_default=True, help="At most the newest N.")
@output_option("table", "json")
@context_option
def events(group: str, follow: bool, limit: int, output: str) -> None:
    """What happened and why, oldest first. With -o json -f: one object per line."""
    talk(lambda cluster: _events(cluster, group, follow, limit, output))


@click.command()
@click.argument("group", required=False, default="")
@click.option("--limit", type=click.IntRange(1, 5000), default=100, show_default=True, help="At most the newest N.")
@output_option("table", "json")
@click.option(
    "--svg",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Also draw the timelines of GROUP as a picture ('-': standard output, and nothing else).",
)
@context_option
def history(group: str, limit: int, output: str, svg: Path | None) -> None:
    """Who asked for what and how it ended, and every change of a group's node with its cause.

    With GROUP also the timeline of each change: noticed, decided, free, each step, first answer.
    """
    if svg is not None and not group:
        raise click.UsageError("--svg draws the timelines of one group: name it")
    talk(lambda cluster: _history(cluster, group, limit, output, svg))


async def _events(cluster: Cluster, group: str, follow: bool, limit: int, output: str) -> None:
    listed = await cluster.list("Event", group, limit=limit)
    await _must_be_known(cluster, group, listed.objects)
    found = sorted((o.event for o in listed.objects), key=lambda event: event.metadata.resource_version)[-limit:]
    if output == "json" and not follow:
        print_json([event_json(event) for event in found])
    elif output == "json":
        for event in found:
            print_json(event_json(event), compact=True)
    else:
        print_table(EVENT_COLUMNS, map(event_row, found))
    if not follow:
        return
    lines = Lines(EVENT_COLUMNS, *map(event_row, found))
    async for answer in cluster.watch(["Event"], group):
        for change in answer.changes:
            event = change.object.event
            is_new = event.metadata.resource_version > listed.resource_version
            if is_new and change.type != api.WatchResponse.DELETED:
                _print_new(event, output, lines)


async def _must_be_known(cluster: Cluster, group: str, found: Sequence[object]) -> None:
    """Nothing about a group that does not exist is a slip of the pen; a deleted one still has its past."""
    if group and not found:
        groups = [o.group.metadata.name for o in (await cluster.list("Group")).objects]
        if group not in groups:
            raise NotFound(f"Group/{group}: no such group, and nothing is recorded about one")


def _print_new(event: pb.Event, output: str, lines: Lines) -> None:
    if output == "json":
        print_json(event_json(event), compact=True)
    else:
        click.echo(lines.line(event_row(event)))


def event_json(event: pb.Event) -> dict[str, Any]:
    """One event for scripts."""
    regarding = event.regarding
    return {
        "time": show_time(event.time),
        "type": event.type,
        "reason": event.reason,
        "regarding": {"kind": regarding.kind, "group": regarding.group, "name": regarding.name},
        "node": event.node,
        "epoch": event.epoch,
        "actor": event.actor,
        "message": event.message,
        "cause": event.cause,
        "duration": taken(event.duration),
        "clock": event.clock,
    }


async def _history(cluster: Cluster, group: str, limit: int, output: str, svg: Path | None) -> None:
    operations = [o.operation for o in (await cluster.list("Operation", group)).objects]
    events = [o.event for o in (await cluster.list("Event", group)).objects]
    changes = [event for event in events if event.reason in _ROLE_CHANGES]
    await _must_be_known(cluster, group, [*operations, *changes])
    drawn = timelines(events)[-limit:]
    if svg is not None:
        with click.open_file(str(svg), "w", encoding="utf-8") as file:
            file.write(picture(drawn))
        if str(svg) == "-":
            return
    lines = {(line.group, line.epoch): line for line in drawn}
    rows = [_operation_json(operation) for operation in operations]
    rows += [_change_json(event, lines) for event in changes]
    rows = sorted(rows, key=lambda row: str(row["time"]))[-limit:]
    if output == "json":
        print_json(rows)
        return
    columns = ("TIME", "GROUP", "WHAT", "STATE", "NODE", "EPOCH", "TOOK", "ACTOR", "MESSAGE")
    print_table(columns, map(_history_row, rows))
    for line in drawn if group else ():
        click.echo()
        click.echo(title(line))
        print_table(TIMELINE_COLUMNS, timeline_rows(line))


def _operation_json(operation: pb.Operation) -> dict[str, Any]:
    spec, status = operation.spec, operation.status
    return {
        "time": show_time(status.started if status.HasField("started") else operation.metadata.created),
        "group": spec.group,
        "what": pb.OperationSpec.Type.Name(spec.type),
        "state": status.state or "Pending",
        "node": spec.node,
        "epoch": status.epoch,
        "duration": taken(status.duration),
        "actor": spec.actor,
        "reason": spec.reason,
        "message": status.message,
        "operation": operation.metadata.name,
    }


def _change_json(event: pb.Event, lines: Mapping[tuple[str, int], Timeline]) -> dict[str, Any]:
    group = event.regarding.group or event.regarding.name
    line = lines.get((group, event.epoch)) if event.reason in BEGINS else None
    return {
        "time": show_time(event.time),
        "group": group,
        "what": event.reason,
        "state": "",
        "node": event.node,
        "epoch": event.epoch,
        "duration": taken(event.duration),
        "actor": event.actor,
        "reason": "",
        "message": event.message,
        "operation": "",
        **({"timeline": timeline_json(line)} if line is not None else {}),
    }


def _history_row(row: dict[str, Any]) -> list[str | Text]:
    message = f"{row['reason']}: {row['message']}".strip(": ") if row["reason"] else row["message"]
    plain = [str(row[key] or "-") for key in ("node", "epoch", "duration", "actor")]
    return [
        row["time"], Text(row["group"] or "-"), Text(row["what"]), styled(row["state"] or "-"), *map(Text, plain),
        Text(message),
    ]  # fmt: skip
