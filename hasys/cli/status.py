"""``hasys status``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import click
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from hasys.cli.context import context_option
from hasys.cli.output import console, output_option, print_all, print_json
from hasys.cli.session import Cluster, talk
from hasys.cli.statusview import status_json, status_page
from hasys.model.errors import HasysError, NotFound
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

_EVENTS_SHOWN = 8

_SILENCE = 2.5
"""Seconds without an answer, which otherwise comes each second, after which the live view says so."""


@click.command()
@click.argument("group", required=False, default="")
@click.option("-w", "--watch", is_flag=True, help="Live: follows every change until Ctrl-C.")
@click.option("--repeat", is_flag=True, help="With -w -o json: each second too, as a sign of life.")
@output_option("table", "json")
@context_option
def status(group: str, watch: bool, repeat: bool, output: str) -> None:
    """The cluster, its nodes and its groups (or one GROUP) as they are now.

    With -o json -w: one JSON object per line, at each change.
    """
    if repeat and not (watch and output == "json"):
        raise click.UsageError("--repeat is for -w -o json")
    if not watch:
        talk(lambda cluster: _once(cluster, group, output))
    elif output == "json" or not console().is_terminal:
        talk(lambda cluster: _stream(cluster, group, output, repeat=repeat))
    else:
        talk(lambda cluster: _live(cluster, group))


def _known(status: api.StatusResponse, group: str) -> api.StatusResponse:
    if group and not any(g.name == group for g in status.groups):
        raise NotFound(f"Group/{group}: no such group")
    return status


async def _once(cluster: Cluster, group: str, output: str) -> None:
    now = _known(await cluster.status(group), group)
    if not now.cluster.quorum:
        from hasys.cli.alone import add_what_is_held_here

        await add_what_is_held_here(now)
    if output == "json":
        print_json(status_json(now))
        if not now.cluster.quorum:
            click.echo("hasys: warning: no majority: this is what one server has stored", err=True)
    else:
        print_all([status_page(now)])


async def _stream(cluster: Cluster, group: str, output: str, *, repeat: bool) -> None:
    before = ""
    async for now in cluster.watch_status(group):
        known = _known(now, group)
        summary = _summary(known) if output != "json" else str(_timeless(status_json(known)))
        if summary == before and not repeat:
            continue  # servers repeat themselves each second, to show that they are there
        before = summary
        if output == "json":
            print_json(status_json(known), compact=True)
        else:
            click.echo(summary)


def _timeless(status: dict[str, Any]) -> dict[str, Any]:
    """Without the time of the answer and the live figures, which are no change."""
    nodes = [{key: value for key, value in node.items() if key != "figures"} for node in status["nodes"]]
    cluster = {key: value for key, value in status["cluster"].items() if key != "time"}
    return {**status, "cluster": cluster, "nodes": nodes}


def _summary(status: api.StatusResponse) -> str:
    """One line per change, for a pipe."""
    nodes = " ".join(f"{n.name}={n.state}" for n in status.nodes)
    groups = " ".join(f"{g.name}={g.phase}@{g.active or '-'}" for g in status.groups)
    return f"leader={status.cluster.leader or '-'} {nodes} {groups}".rstrip()


class _Page:
    """What the live view shows: the last answer, and since when there was none."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._clock = asyncio.get_running_loop().time
        self._last: RenderableType = ""
        self._heard = self._clock()

    def show(self, answer: RenderableType) -> None:
        """A new answer came."""
        self._last, self._heard = answer, self._clock()
        self._live.update(answer, refresh=True)

    def grow_old(self) -> None:
        """Time passed; say so when an answer is overdue."""
        silent = self._clock() - self._heard
        if silent > _SILENCE:
            note = Text(f"\nno server has answered for {silent:.0f} s; trying on", style="bold red")
            self._live.update(Stack(self._last, note), refresh=True)


async def _live(cluster: Cluster, group: str) -> None:
    """Redrawn at each change. When no server answers, the last page stays with a note."""
    first = _known(await cluster.status(group), group)
    with Live(console=console(), auto_refresh=False) as live:
        page = _Page(live)
        page.show(status_page(first))

        async def follow() -> None:
            async for now in cluster.watch_status(group):
                page.show(status_page(_known(now, group), await _latest_events(cluster, group)))

        following = asyncio.ensure_future(follow())
        while not (await asyncio.wait((following,), timeout=1.0))[0]:
            page.grow_old()
        await following


async def _latest_events(cluster: Cluster, group: str) -> list[pb.Event]:
    with suppress(HasysError):
        found = await cluster.list("Event", group, limit=_EVENTS_SHOWN)
        return sorted((o.event for o in found.objects), key=lambda e: e.metadata.resource_version)
    return []
