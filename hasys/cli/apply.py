"""``hasys apply`` and ``hasys delete``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import click

from hasys.api.errors import Invalid
from hasys.api.kinds import KINDS, Ref, copy, metadata, ref_of
from hasys.api.manifest import Manifests, load, to_yaml
from hasys.api.rules import fill_defaults
from hasys.cli.context import context_option
from hasys.cli.get import Selection, complete_kind, parse_kind
from hasys.cli.session import Cluster, talk, timeout_option
from hasys.cli.sources import file_option, read_all
from hasys.cli.waiting import until_gone, until_running
from hasys.model.errors import NotFound, Refused, TimedOut, Unavailable
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb


@click.command()
@file_option(required=True)
@click.option("--dry-run", is_flag=True, help="Check and show what would change; change nothing.")
@click.option("--prune", is_flag=True, help="Remove resources that the input does not name, of groups that it names.")
@click.option("--wait", is_flag=True, help="Until all of it runs.")
@timeout_option("60s", "with --wait")
@context_option
def apply(names: Sequence[str], dry_run: bool, prune: bool, wait: bool, timeout: float) -> None:
    """Create or change objects: all of the input, or nothing of it.

    Prints "KIND/NAME created|configured|unchanged|pruned" for each.
    """
    manifests = load(read_all(names))
    talk(lambda cluster: _apply(cluster, manifests, dry_run=dry_run, prune=prune, wait=timeout if wait else 0.0))


@click.command()
@click.argument("kind", required=False, default="", shell_complete=complete_kind)
@click.argument("name", required=False, default="")
@click.option("-g", "--group", default="", metavar="GROUP", help="The group it belongs to, when several have the name.")
@file_option(required=False)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until no node can have it any more.")
@timeout_option("90s", "for it to be gone")
@context_option
def delete(kind: str, name: str, group: str, names: Sequence[str], wait: bool, timeout: float) -> None:
    """Delete KIND NAME (or KIND/NAME), or what manifests name.

    Deleting a group deletes its resources; they are stopped in order first.
    """
    if bool(kind) == bool(names):
        raise click.UsageError("give KIND NAME, or -f FILE")
    limit = timeout if wait else 0.0
    if names:
        found = [ref_of(obj) for obj in load(read_all(names)).objects]
        talk(lambda cluster: _delete(cluster, found, limit))
        return
    kinds, name = parse_kind(kind, name)
    if not name:
        raise click.UsageError("delete needs a NAME")
    talk(lambda cluster: _delete_named(cluster, Selection(kinds, name, group), limit))


async def _apply(cluster: Cluster, manifests: Manifests, *, dry_run: bool, prune: bool, wait: float) -> None:
    objects = manifests.objects
    before = await _present(cluster, objects) if dry_run else {}
    try:
        answer = await cluster.apply(objects, dry_run=dry_run, prune=prune)
    except Invalid as refused:
        raise Refused(_with_positions(refused, manifests)) from None
    wanted = {ref_of(obj): obj for obj in objects}
    for result in answer.results:
        ref = Ref.of_key(result.key)
        click.echo(f"{ref} {result.action}{' (dry run)' if dry_run else ''}")
        if dry_run:
            _print_difference(result, before.get(ref), wanted.get(ref))
    if wait and not dry_run:
        await until_running(cluster, wanted, wait)


async def _present(cluster: Cluster, objects: Sequence[pb.Object]) -> dict[Ref, pb.Object]:
    """The objects as they are now, for every kind and group that the input is about."""
    groups = {(ref.kind, ref.group) for ref in map(ref_of, objects)}
    answers = [await cluster.list(kind, group) for kind, group in sorted(groups)]
    return {ref_of(obj): obj for answer in answers for obj in answer.objects}


def _with_positions(refused: Invalid, manifests: Manifests) -> str:
    """Each fault that the server found, with the file and line where it stands."""
    return "\n".join(manifests.where(fault) for fault in refused.faults) or str(refused)


def _print_difference(result: api.ApplyResult, before: pb.Object | None, after: pb.Object | None) -> None:
    """What would change in the spec, as a unified diff in manifest spelling."""
    if result.action not in ("created", "configured") or after is None:
        return
    old = to_yaml(before, status=False).splitlines() if before is not None else []
    new = to_yaml(_as_stored(after, before), status=False).splitlines()
    for line in list(difflib.unified_diff(old, new, lineterm="", n=2))[2:]:
        click.secho(f"  {line}", fg={"+": "green", "-": "red"}.get(line[:1]))


def _as_stored(after: pb.Object, before: pb.Object | None) -> pb.Object:
    """The wanted object with what the store adds (defaults, identity), so that only intended changes show."""
    stored = copy(after)
    fill_defaults(stored)
    if before is not None:
        metadata(stored).CopyFrom(metadata(before))
        metadata(stored).labels.clear()
        metadata(stored).labels.update(metadata(after).labels)
    return stored


async def _there(cluster: Cluster, refs: Sequence[Ref]) -> list[Ref]:
    """Those of ``refs``, resources all, that exist."""
    answers = [await cluster.list(kind, group) for kind, group in sorted({(ref.kind, ref.group) for ref in refs})]
    known = {ref_of(obj) for answer in answers for obj in answer.objects}
    return [ref for ref in refs if ref in known]


async def _delete_named(cluster: Cluster, wanted: Selection, limit: float) -> None:
    await _delete(cluster, [ref_of(await wanted.fetch_named(cluster))], limit)


async def _delete(cluster: Cluster, refs: Sequence[Ref], limit: float) -> None:
    """Delete them all; what is gone already is said and does not stop the rest.

    A group takes its resources along. Among other resources, what comes after another goes first.
    """
    groups = {ref.name for ref in refs if ref.kind == "Group"}
    along = [ref for ref in refs if KINDS[ref.kind].grouped and ref.group in groups]
    there = await _there(cluster, along)
    absent = [f"{ref}: no such object in group {ref.group}" for ref in along if ref not in there]
    left = [ref for ref in refs if ref not in along]
    begun = False
    while left:
        blocked: list[tuple[Ref, Invalid]] = []
        for ref in left:
            try:
                await cluster.delete(ref)
            except NotFound as error:
                absent.append(str(error))
            except Invalid as needed:
                blocked.append((ref, needed))
            except Unavailable as silence:
                if not begun:
                    raise
                again = "the same command again deletes the rest"
                raise TimedOut(f"deleted in part: {ref} is not: {silence}; {again}") from None
            else:
                begun = True
                click.echo(f"{ref} deleted")
        if len(blocked) == len(left):
            raise blocked[0][1]
        left = [ref for ref, _ in blocked]
    for ref in there:
        click.echo(f"{ref} deleted")
    if absent:
        raise NotFound("\n".join(absent))
    if limit:
        await until_gone(cluster, refs, limit)
