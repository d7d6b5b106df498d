"""The day without a majority: ``resolve`` and ``failover --force`` on the very node, as root, through its guard.

Nothing here decides whether it is safe: the operator swears, the guard refuses while a leader answers, and the leader's
word counts again as soon as there is one. docs/decisions/0005, docs/scenarios/no-majority.md.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hasys.api.client import load_context
from hasys.cli.context import context_path
from hasys.cli.session import within
from hasys.config import NodeConfig, load
from hasys.guard.client import GuardClient, GuardGone, connect
from hasys.model.errors import HasysError, Refused, Unreached
from hasys.reconciler import lastknown
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

LOOK = 0.1
"""Seconds between looks at what the guard did."""

WARNING = """\
WARNING: there is no majority, so nothing but your word keeps a second node from running {group}.
  Say yes only if no other node runs it, and none can get a majority that {node} does not hear: they are switched off,
  or their cables to {node} work. If a majority exists elsewhere, both sides serve the same address and write the
  same data: what one of them writes will be lost.
  {node} runs {group} as it last knew it, until a majority answers; then the majority decides."""

TWO_NODES_WARNING = """\
WARNING: two nodes, policy {policy}: {others} serves {group} as long as it has power, whether {node} hears it or not.
  Say yes only if {others} is off, or its {group} is stopped, and stays so until the link to {node} works again:
  else both serve the same address and write the same data, and what one of them writes will be lost.
  {node} runs {group} as it last knew it, until both see each other; then it stays where it serves."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator asked for."""

    group: str
    node: str
    active: bool
    """Run the group here; False: stop running it on an oath."""
    reason: str
    yes: bool
    timeout: float
    """Seconds."""

    @property
    def command(self) -> str:
        return f"{'hold' if self.active else 'let go of'} {self.group} on {self.node}"


def act_alone(wanted: Wanted, silence: HasysError) -> None:
    """Carry it out without the store. ``silence`` is what the store's servers said. Raises ``Refused`` with what is
    missing, ``TimedOut`` when the guard or the agent did not get it done."""
    why = str(silence).removeprefix("no majority: ")
    socket = _socket(load_context(context_path()).cluster, wanted.node)
    if not socket.exists():
        if isinstance(silence, Unreached):
            raise silence
        raise Refused(
            f"no majority ({why}): then {wanted.group} can only be moved on {wanted.node} itself,"
            f" and no guard of {wanted.node} is here ({socket})"
        )
    if os.geteuid() != 0:
        raise Refused(f"no majority ({why}): without one this works as root only")
    if wanted.active:
        _warn(wanted, why, asyncio.run(_config_of(socket)))
    click.echo(asyncio.run(_through_guard(wanted, socket)))


def _socket(cluster: str, node: str) -> Path:
    """Where the guard of a node listens; ``HASYS_RUN`` names its run directory when node.yaml does."""
    return Path(os.environ.get("HASYS_RUN", f"/run/hasys/{cluster}-{node}")) / "guard.sock"


async def _config_of(socket: Path) -> NodeConfig | None:
    """None: the guard does not answer, which the command will say when it comes to it."""
    try:
        async with connect(socket) as guard:
            return load(Path((await guard.status())["config"]))
    except HasysError:
        return None


def _warn(wanted: Wanted, why: str, config: NodeConfig | None) -> None:
    others = ", ".join(m.name for m in config.members if m.name != wanted.node) if config else ""
    text = TWO_NODES_WARNING if config and config.policy else WARNING
    click.echo(f"no majority: {why}", err=True)
    policy = config.policy if config else ""
    click.echo(text.format(group=wanted.group, node=wanted.node, others=others, policy=policy), err=True)
    if wanted.yes:
        return
    if not sys.stdin.isatty():
        raise Refused("not confirmed: nothing was done; on a terminal it asks, in a script add --yes")
    click.confirm(f"Run {wanted.group} on {wanted.node} on your word", abort=True, err=True)


async def add_what_is_held_here(status: api.StatusResponse) -> None:
    """Into a status without a majority: what a guard of this machine holds on its operator's word. The stores do not
    know of it."""
    for node in status.nodes:
        socket = _socket(status.cluster.name, node.name)
        if not socket.exists():
            continue
        try:
            async with connect(socket, timeout=1.0) as guard:
                known = await guard.status()
        except HasysError:
            continue
        held = {g["group"] for g in known["groups"] if g["permitted"]}
        for group in status.groups:
            oath = next((o for o in known["oaths"] if o["group"] == group.name), None)
            if oath is not None:
                permitted = group.name in held
                begun = "holds" if permitted else "begins to hold"
                group.active, group.epoch = node.name, oath["epoch"]
                group.phase = "Degraded" if permitted else "Starting"
                why = f"policy {status.cluster.policy}" if oath.get("byPolicy") else "its operator's word"
                group.reason = f"{node.name} {begun} it on {why} until a majority answers"
            elif group.name in held and group.name in known.get("tokens", ()):
                group.active, group.phase = node.name, "Degraded"
                group.reason = f"{node.name} goes on with it by itself: policy {status.cluster.policy}"


async def _through_guard(wanted: Wanted, socket: Path) -> str:
    try:
        async with connect(socket) as guard:
            known = await guard.status()
            if wanted.active:
                return await _hold(wanted, guard, load(Path(known["config"])))
            return await _let_go(wanted, guard)
    except GuardGone as gone:
        raise Refused(f"{wanted.command}: {gone}") from None


async def _hold(wanted: Wanted, guard: GuardClient, config: NodeConfig) -> str:
    group = _last_known(wanted, config)
    epoch = max(group.status.assignment.epoch, group.status.assignment.previous_epoch) + 1
    epoch = await guard.swear(wanted.group, epoch, _cause(wanted))
    click.echo(f"sworn as epoch {epoch}; it begins when every earlier lease has ended", err=True)
    await _until(wanted, guard, lambda status: _permitted(status, wanted.group))
    return (
        f"{wanted.node} holds {wanted.group} on your word (epoch {epoch}) until a majority answers;"
        f" let go: hasys resolve {wanted.group} --node {wanted.node} --role standby"
    )


async def _let_go(wanted: Wanted, guard: GuardClient) -> str:
    if wanted.group not in _sworn(await guard.status()):
        return f"{wanted.node} does not hold {wanted.group}: without a majority only your word could let it"
    await guard.forswear(wanted.group, _cause(wanted))
    await _until(wanted, guard, lambda status: wanted.group not in _sworn(status))
    return f"{wanted.node} holds {wanted.group} no longer"


def _last_known(wanted: Wanted, config: NodeConfig) -> pb.Group:
    path = lastknown.path_of(config)
    kept = lastknown.read(path)
    for obj, _ in kept.changes if kept else ():
        if obj.WhichOneof("kind") == "group" and obj.group.metadata.name == wanted.group:
            if all(node.name != wanted.node for node in obj.group.spec.nodes):
                raise Refused(f"{wanted.node} is not one of the nodes of {wanted.group}, as last known")
            return obj.group
    raise Refused(f"{wanted.node} does not know what {wanted.group} consists of: {path} holds nothing of it")


def _cause(wanted: Wanted) -> str:
    who = os.environ.get("SUDO_USER") or "root"
    said = f": {wanted.reason}" if wanted.reason else ""
    return "".join(c if c.isprintable() else " " for c in f"by {who} on {wanted.node}{said}")[:512]


def _sworn(status: dict[str, Any]) -> set[str]:
    return {oath["group"] for oath in status["oaths"]}


def _permitted(status: dict[str, Any], group: str) -> bool:
    if group not in _sworn(status):
        raise Refused(f"{group}: {_ended(status, group)}")
    return any(g["group"] == group and g["permitted"] for g in status["groups"])


def _ended(status: dict[str, Any], group: str) -> str:
    ends = [r["cause"] for r in status["reports"] if r["group"] == group and not r["begun"]]
    return f"the guard ended the oath: {ends[-1]}" if ends else "a majority answered meanwhile, it decides again"


async def _until(wanted: Wanted, guard: GuardClient, done: Callable[[dict[str, Any]], bool]) -> None:
    last: dict[str, Any] = {}

    async def look() -> None:  # polled: the other end of a socket has no event to wait for
        nonlocal last
        while not done(last := await guard.status()):  # noqa: ASYNC110
            await asyncio.sleep(LOOK)

    def still() -> str:
        agent = "" if last.get("agent", {}).get("connected") else "; its agent does not run"
        return f"{wanted.command} is under way{agent}"

    await within(wanted.timeout, look(), still)
