"""``hasys get`` and ``hasys describe``."""

from __future__ import annotations

from typing import Any

import click

from hasys.api.kinds import KINDS, MEMBER_KINDS, RESOURCE_KINDS, Ref, find_kind, inner, kind_of, metadata, ref_of
from hasys.api.manifest import to_json, to_yaml
from hasys.cli.columns import rows_of
from hasys.cli.context import context_option
from hasys.cli.output import Lines, output_option, print_json, print_table
from hasys.cli.session import Cluster, talk
from hasys.cli.statusview import EVENT_COLUMNS, OWN_COLUMNS, event_row, own_row
from hasys.model.errors import NotFound, Refused
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

_EVENTS_DESCRIBED = 20


def complete_kind(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completion of KIND."""
    known = [*(kind.plural for kind in KINDS.values()), "resources", "all"]
    return [word for word in known if word.startswith(incomplete.lower())]


@click.command()
@click.argument("kind", shell_complete=complete_kind)
@click.argument("name", required=False, default="")
@click.option("-g", "--group", default="", metavar="GROUP", help="Only what belongs to this group.")
@click.option("-w", "--watch", is_flag=True, help="Then every change, until Ctrl-C.")
@click.option("--stale", is_flag=True, help="What the asked server has, maybe old: works without a majority.")
@output_option("table", "wide", "yaml", "json")
@context_option
def get(kind: str, name: str, group: str, watch: bool, stale: bool, output: str) -> None:
    """List objects of KIND, or print the one called NAME.

    KIND: groups, nodes, virtualips (vip), applications (app), delays, monitors (mon), operations (op), events,
    clusters; 'resources' for every resource of the groups, 'all' for those, the groups and their monitors.
    KIND/NAME works too.
    """
    kinds, name = parse_kind(kind, name)
    talk(lambda cluster: _get(cluster, Selection(kinds, name, group, stale=stale), watch, output))


@click.command()
@click.argument("kind", shell_complete=complete_kind)
@click.argument("name", required=False, default="")
@click.option("-g", "--group", default="", metavar="GROUP", help="The group it belongs to, when several have the name.")
@context_option
def describe(kind: str, name: str, group: str) -> None:
    """One object with its defaults, its state and the latest events about it."""
    kinds, name = parse_kind(kind, name)
    if not name:
        raise click.UsageError("describe needs a NAME; 'hasys get' lists")
    talk(lambda cluster: _describe(cluster, Selection(kinds, name, group)))


class Selection:
    """Which objects a command means."""

    def __init__(self, kinds: tuple[str, ...], name: str, group: str, *, stale: bool = False) -> None:
        self.kinds, self.name, self.group, self.stale = kinds, name, group, stale

    def matches(self, obj: pb.Object) -> bool:
        kind = kind_of(obj)
        if kind is None or kind.name not in self.kinds:
            return False
        return not self.name or metadata(obj).name == self.name

    async def fetch(self, cluster: Cluster) -> list[pb.Object]:
        """The objects, in order of kind, group and name."""
        answers = [await cluster.list(kind, self.group, stale=self.stale) for kind in self.kinds]
        return [obj for answer in answers for obj in answer.objects if self.matches(obj)]

    async def fetch_named(self, cluster: Cluster) -> pb.Object:
        """The one object of that name. Raises ``NotFound``, or ``Refused`` when several groups have one."""
        found = await self.fetch(cluster)
        if not found:
            where = f" in group {self.group}" if self.group else ""
            raise NotFound(f"{'/'.join(self.kinds)}/{self.name}: no such object{where}")
        if len(found) > 1:
            groups = ", ".join(sorted(metadata(obj).group for obj in found))
            raise Refused(f"{self.name} is in the groups {groups}: say which with -g GROUP")
        return found[0]


async def _get(cluster: Cluster, wanted: Selection, watch: bool, output: str) -> None:
    if wanted.name:
        found = [await wanted.fetch_named(cluster)]
    else:
        found = await wanted.fetch(cluster)
    _print(found, wanted, output, compact=watch)
    if not watch:
        return
    shown = {ref_of(obj): metadata(obj).resource_version for obj in found}
    lines = _lines_below(found, output)
    async for answer in cluster.watch(wanted.kinds, wanted.group):
        for change in answer.changes:
            if wanted.matches(change.object) and _is_news(change, shown):
                _print_change(change, output, lines)


def _is_news(change: api.Change, shown: dict[Ref, int]) -> bool:
    """A watch begins with what there is: that was printed already."""
    ref, version = ref_of(change.object), metadata(change.object).resource_version
    if change.type == api.WatchResponse.DELETED:
        return shown.pop(ref, None) is not None
    if shown.get(ref) == version:
        return False
    shown[ref] = version
    return True


def _print(found: list[pb.Object], wanted: Selection, output: str, *, compact: bool) -> None:
    if output == "json":
        if compact:
            for obj in found:
                print_json(to_json(obj), compact=True)
        elif wanted.name:
            print_json(to_json(found[0]))
        else:
            print_json({"apiVersion": "hasys/v1", "kind": "List", "items": [to_json(obj) for obj in found]})
    elif output == "yaml":
        click.echo("---\n".join(to_yaml(obj) for obj in found), nl=False)
    else:
        _print_tables(found, wanted, wide=output == "wide")


def _print_tables(found: list[pb.Object], wanted: Selection, *, wide: bool) -> None:
    several = len(wanted.kinds) > 1
    shown = False
    for kind in wanted.kinds:
        objects: list[Any] = [inner(obj) for obj in found if ref_of(obj).kind == kind]
        if not objects:
            continue
        if several:
            click.echo(f"\n{KINDS[kind].plural}" if shown else KINDS[kind].plural)
        headings, rows = rows_of(kind, objects, wide=wide)
        print_table(headings, rows)
        shown = True
    if not shown:
        where = f" in group {wanted.group}" if wanted.group else ""
        what = "objects" if several else KINDS[wanted.kinds[0]].plural
        click.echo(f"no {what}{where}", err=True)


def _lines_below(found: list[pb.Object], output: str) -> dict[str, Lines]:
    """For each kind that has a table already, the lines that a watch adds to it."""
    kinds = {ref_of(obj).kind for obj in found}
    tables = {
        kind: rows_of(kind, [inner(obj) for obj in found if ref_of(obj).kind == kind], wide=output == "wide")
        for kind in kinds
    }
    return {kind: Lines(headings, *rows) for kind, (headings, rows) in tables.items()}


def _print_change(change: api.Change, output: str, lines: dict[str, Lines]) -> None:
    kind = ref_of(change.object).kind
    gone = change.type == api.WatchResponse.DELETED
    if output == "json":
        print_json({**to_json(change.object), **({"deleted": True} if gone else {})}, compact=True)
    elif output == "yaml":
        click.echo("---\n" + ("# deleted\n" if gone else "") + to_yaml(change.object), nl=False)
    else:
        headings, rows = rows_of(kind, [inner(change.object)], wide=output == "wide")
        if gone:
            rows[0][-1] = "deleted"
        if kind not in lines:
            lines[kind] = Lines(headings, rows[0])
            click.echo(lines[kind].line(headings))
        click.echo(lines[kind].line(rows[0]))


async def _describe(cluster: Cluster, wanted: Selection) -> None:
    obj = await wanted.fetch_named(cluster)
    click.echo(to_yaml(obj), nl=False)
    about = ref_of(obj)
    listed = await cluster.list("Event", about.name if about.kind == "Group" else about.group)
    events = [o.event for o in listed.objects if _is_about(o.event, about)]
    if about.kind == "Node":
        await _describe_processes(cluster, about.name)
    events.sort(key=lambda event: event.metadata.resource_version)
    if events:
        click.echo("\nevents:")
        print_table(EVENT_COLUMNS, map(event_row, events[-_EVENTS_DESCRIBED:]))


async def _describe_processes(cluster: Cluster, node: str) -> None:
    """hasys's own on this node; a witness, and a node that is not there, tell none."""
    status = await cluster.status()
    told = next((one.figures.own for one in status.nodes if one.name == node), ())
    if told:
        click.echo("\nprocesses:")
        print_table(OWN_COLUMNS, map(own_row, told))


def _is_about(event: pb.Event, about: Ref) -> bool:
    if about.kind == "Node":
        return event.node == about.name or event.regarding == about.key()
    if about.kind == "Group":
        return about.name in (event.regarding.group, event.regarding.name)
    return event.regarding == about.key()


def parse_kind(spelling: str, name: str) -> tuple[tuple[str, ...], str]:
    """Kinds and name of ``vip web-ip``, ``vip/web-ip``, ``resources``, ``all``."""
    spelling, slash, tail = spelling.partition("/")
    if slash:
        if name or not tail:
            raise click.UsageError("write KIND NAME or KIND/NAME")
        name = tail
    if spelling.lower() in ("resources", "resource", "res"):
        return RESOURCE_KINDS, name
    if spelling.lower() == "all":
        return ("Group", *MEMBER_KINDS), name
    kind = find_kind(spelling)
    if kind is None:
        known = ", ".join(k.plural for k in KINDS.values())
        raise click.UsageError(f"no kind {spelling!r}: use one of {known}, resources, all")
    return (kind.name,), name
