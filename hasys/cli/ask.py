"""``hasys init`` with no options on a terminal: the same questions, one by one, each answer checked at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from hasys.cli.seed import Seed, parse_member, plan
from hasys.config import LABEL, Member
from hasys.model.errors import ConfigRefused
from hasys.model.timing import PROFILES

_Answer = TypeVar("_Answer")


def ask_for_cluster() -> tuple[Seed, Path]:
    """The cluster that the answers describe, and the folder for it."""
    click.echo("A new cluster. Enter takes what stands in brackets; Ctrl-C leaves, nothing is written before the end.")
    cluster = _until_right("Name of the cluster", _label, default="demo")
    count = click.prompt("How many servers run the service", type=click.IntRange(1, 99), default=2)
    members = [_ask_member(f"n{i + 1}", "Voter") for i in range(count)]
    if count % 2 == 0:
        click.echo(
            "A witness is a small third machine that only votes: without it, two servers cannot tell a dead peer"
        )
        click.echo("from a cut cable. Two without one keep what they hold, and an operator moves it (policy safe).")
        if count != 2 or click.confirm("Is there a witness", default=True):
            members.append(_ask_member("w", "Witness"))
    profile = click.prompt("Timing profile", type=click.Choice(list(PROFILES)), default="default")
    seed = plan(cluster, members, profile)
    out = Path(click.prompt("Folder to write to", default=f"./{cluster}"))
    for member in seed.members:
        click.echo(f"  {member.role.lower():8} {member.name:12} {', '.join(member.addresses)}")
    click.confirm("Write it", default=True, abort=True)
    return seed, out


def _ask_member(proposal: str, role: str) -> Member:
    name = _until_right(f"Name of the {'witness' if role == 'Witness' else 'server'}", _label, default=proposal)
    prompt = f"Address of {name} (IP; a second one after a comma is the heartbeat network)"
    return _until_right(prompt, lambda text: parse_member(f"{name}={text}", role))


def _label(text: str) -> str:
    if not LABEL.match(text):
        raise ConfigRefused(f"{text!r} is no DNS label: use a-z, 0-9 and '-', at most 63 characters")
    return text


def _until_right(prompt: str, check: Callable[[str], _Answer], default: str | None = None) -> _Answer:
    while True:
        try:
            return check(click.prompt(prompt, default=default))
        except ConfigRefused as fault:
            click.echo(f"  {fault}")
