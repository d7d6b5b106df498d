"""``hasys member``: who belongs to the cluster, and changing that while it runs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hasys.cli.context import context_option, context_path
from hasys.cli.init import write_member
from hasys.cli.output import output_option, print_json, print_table
from hasys.cli.pki import Authority
from hasys.cli.seed import Seed, parse_member
from hasys.cli.session import timeout_option
from hasys.config import Member
from hasys.lease.wire import parse_secret
from hasys.model.errors import ConfigRefused, HasysError, Refused, TimedOut, Unavailable, Unknown
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from hasys.api.client import Client  # at run time only when it is needed: the import takes its time

LOOK = 0.5
"""Seconds between two looks at a member that catches up."""

_ROLES = ("Voter", "Witness", "Observer")
_CA = click.option("--ca", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
                   help="The authority that 'hasys init' wrote (its folder 'ca').")  # fmt: skip
_ADDRESS = click.option("--address", required=True, metavar="ADDR[:PORT][,ADDR2]", help="One IP per network.")
_ROLE = click.option("--role", type=click.Choice(_ROLES), default="Voter", show_default=True)
_OUT = click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR",
                    help="Where to write the new member's folder (DIR/NAME).")  # fmt: skip
_SECRET = click.option("--lease-secret", "secret", type=click.Path(path_type=Path), metavar="FILE",
                       help="The cluster's lease.secret; else the one beside the authority.")  # fmt: skip


@click.group()
def member() -> None:
    """Members of the cluster: list, add, remove, replace."""


@member.command("list")
@output_option("table", "json")
@context_option
def list_(output: str) -> None:
    """Who belongs to the cluster, and how each takes part."""
    answer = asyncio.run(_ask())
    if output == "json":
        print_json({"members": [_json(view) for view in answer.members]})
        return
    print_table(
        ("NAME", "ROLE", "STATE", "ADDRESSES"),
        [(v.name, v.role, v.state, ",".join(f"{a}:{v.api_port}" for a in v.addresses)) for v in answer.members],
    )


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What ``add`` and ``replace`` need to make a member's folder."""

    member: Member
    ca: Path
    out: Path
    secret: Path


@member.command()
@click.argument("name")
@_ROLE
@_ADDRESS
@_CA
@_OUT
@_SECRET
@context_option
def add(name: str, role: str, address: str, ca: Path, out: Path, secret: Path | None) -> None:
    """Add a member: writes its folder, as 'hasys init' does, and tells the cluster.

    A voter or witness copies the log first, and votes once it has caught up; start it with its new folder. For a
    member that exists: changes its addresses.
    """
    new = Newcomer(_member(name, role, address), ca, out, secret or ca / "lease.secret")
    _show(asyncio.run(_add(new)))
    click.echo(f"copy {out / name}/ to {name} and start it there: {_start_command(new.member)}")
    if new.member.votes:
        click.echo("it votes once it has caught up: 'hasys member list' shows Joining until then")


@member.command()
@click.argument("name")
@context_option
def remove(name: str) -> None:
    """Remove a member for good. Refused when the majority that lives would be lost, or while groups can run there."""
    _show(asyncio.run(_remove(name)))
    click.echo(f"{name} is no member any more: stop hasys there, and delete its folder")


@member.command()
@click.argument("old")
@click.argument("name", metavar="NEW")
@_ROLE
@_ADDRESS
@_CA
@_OUT
@_SECRET
@timeout_option("10m", "until NEW votes; the same command again goes on")
@context_option
def replace(
    old: str, name: str, role: str, address: str, ca: Path, out: Path, secret: Path | None, timeout: float
) -> None:
    """Replace the (dead) member OLD by NEW: adds NEW, waits until it votes, then removes OLD."""
    new = Newcomer(_member(name, role, address), ca, out, secret or ca / "lease.secret")
    _show(asyncio.run(_replace(old, new, timeout)))


def _member(name: str, role: str, address: str) -> Member:
    return parse_member(f"{name}={address}", role)


def _start_command(new: Member) -> str:
    verb = "witness" if new.role == "Witness" else "node"
    return f"hasys {verb} run --config {new.name}/node.yaml"


# ---------------------------------------------------------------- conversations
async def _ask() -> api.ListMembersResponse:
    async with _client() as client:
        return await client.members()


async def _add(new: Newcomer) -> api.ChangeMemberResponse:
    async with _client() as client:
        known = await client.members()
        exists = any(view.name == new.member.name for view in known.members)
        folder = None if exists else _write_folder(new, known)
        try:
            return await client.add_member(new.member.name, _spec(new.member))
        except (Refused, Unavailable):  # it is no member for sure
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        except HasysError as error:
            if folder is None:
                raise
            raise Unknown(f"{error}; {_kept(new.member.name, folder)}") from None
        except BaseException:  # above all Ctrl-C, which ends the waiting and not the change
            if folder is not None:
                click.echo(_kept(new.member.name, folder), err=True)
            raise


def _kept(name: str, folder: Path) -> str:
    """What to do with a newcomer's folder when nobody knows whether it is a member: its keys are nowhere else."""
    return (
        f"{folder} is kept: if 'hasys member list' shows {name}, go on with it;"
        " if not, remove the folder and repeat the command"
    )


async def _remove(name: str) -> api.ChangeMemberResponse:
    async with _client() as client:
        return await client.remove_member(name)


async def _replace(old: str, new: Newcomer, timeout: float) -> api.ChangeMemberResponse:
    name = new.member.name
    async with _client() as client:
        added = not any(view.name == name for view in (await client.members()).members)
        if added:
            await _add(new)
            click.echo(f"copy {new.out / name}/ to {name}: {_start_command(new.member)}")
        try:
            if new.member.votes:
                click.echo(f"waiting until {name} votes ...")
                await _until_it_votes(client, name, timeout)
            answer = await client.remove_member(old)
        except Unavailable as silence:
            if not added:
                raise
            again = "the same command again goes on"
            raise TimedOut(f"{name} is added, {old} is not removed: {silence}; {again}") from None
        click.echo(f"{old} is replaced by {name}")
        return answer


async def _until_it_votes(client: Client, name: str, timeout: float) -> None:
    until = asyncio.get_running_loop().time() + timeout
    while True:
        states = {view.name: view.state for view in (await client.members()).members}
        if states.get(name) in ("Follower", "Leader"):
            return
        if asyncio.get_running_loop().time() >= until:
            raise TimedOut(f"{name} does not vote yet ({states.get(name, 'no member')}); nothing was removed")
        await asyncio.sleep(LOOK)


def _client() -> Client:
    from hasys.api.client import Client, load_context

    return Client(load_context(context_path()))


def _spec(new: Member) -> pb.NodeSpec:
    return pb.NodeSpec(
        role=pb.NodeSpec.Role.Value(new.role), addresses=new.addresses,
        api_port=new.api_port, raft_port=new.raft_port, lease_port=new.lease_port,
    )  # fmt: skip


# ---------------------------------------------------------------- the folder
def _write_folder(new: Newcomer, known: api.ListMembersResponse) -> Path:
    """The new member's folder, completely or not at all. Raises ConfigRefused."""
    authority = Authority.load(new.ca)
    if authority.organization != f"hasys:{known.cluster_id}":
        raise ConfigRefused(f"{new.ca} is the authority of another cluster")
    target = new.out / new.member.name
    if target.exists():
        raise ConfigRefused(f"{target} exists: nothing is overwritten, choose another --out")
    try:
        secret = parse_secret(new.secret.read_bytes())
    except OSError as e:
        raise ConfigRefused(f"{new.secret}: {e.strerror}: give a voter's file with --lease-secret") from None
    others = [_known(view) for view in known.members]
    seed = Seed(_cluster_name(), known.cluster_id, (*others, new.member), "default")
    new.out.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".member-", dir=new.out))
    try:
        write_member(draft / new.member.name, new.member, authority, seed, secret)
        (draft / new.member.name).rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _cluster_name() -> str:
    from hasys.api.client import load_context

    return load_context(context_path()).cluster


def _known(view: api.MemberView) -> Member:
    return Member(view.name, view.role, tuple(view.addresses), view.api_port, view.raft_port, view.lease_port)


# ---------------------------------------------------------------- output
def _show(answer: api.ChangeMemberResponse) -> None:
    if not answer.members:  # an earlier attempt did it, and its answer was lost with the leader that handed over
        return
    names: Sequence[str] = [f"{view.name} ({view.state})" for view in answer.members]
    click.echo(f"members: {', '.join(names)}")
    for warning in answer.warnings:
        click.echo(f"warning: {warning}", err=True)


def _json(view: api.MemberView) -> dict[str, object]:
    return {
        "name": view.name, "role": view.role, "state": view.state, "addresses": list(view.addresses),
        "apiPort": view.api_port, "raftPort": view.raft_port, "leasePort": view.lease_port,
    }  # fmt: skip
