"""What a node does before it stops: gives its groups to others, as one operation of its own, within a bound."""

from __future__ import annotations

import asyncio
import subprocess

import click

from hasys.api.convert import seconds
from hasys.cli.operate import run_operation
from hasys.cli.session import Cluster, Connection
from hasys.config import CommonStop, NodeConfig
from hasys.model.errors import HasysError, Unavailable
from hasys.v1 import objects_pb2 as pb

REASON = "shutdown"
"""Such a drain ends by itself when the node is back."""

_REACH = 5.0
"""Seconds to find a server that knows which groups are here."""
_SLACK = 10.0
"""Seconds on top of the longest stop time: the start on the other side, and a lost datagram."""


def hand_over(config: NodeConfig) -> None:
    """Drain this node, within the longest stop time of the groups it runs. Says what came of it; never raises."""
    try:
        click.echo(f"hand-over: {asyncio.run(_hand_over(config))}", err=True)
    except HasysError as error:
        click.echo(f"hand-over: given up, stopping all the same: {error}", err=True)
    if config.common_stop is not None:
        click.echo(f"common stop: {_run(config.common_stop)}", err=True)


def _run(wanted: CommonStop) -> str:
    """How the node's own last command ended, in words."""
    try:
        done = subprocess.run(wanted.command, stdin=subprocess.DEVNULL, timeout=wanted.timeout, check=False)
    except subprocess.TimeoutExpired:
        return f"did not end within {wanted.timeout:g} s"
    except OSError as e:
        return f"{wanted.command[0]}: {e.strerror}"
    return f"exit status {done.returncode}"


async def _hand_over(config: NodeConfig) -> str:
    async with _own_cluster(config) as cluster:
        try:
            async with asyncio.timeout(_REACH):
                here, limit = await _groups_here(cluster, config.name)
        except TimeoutError:
            raise Unavailable("no majority answers") from None
        spec = pb.OperationSpec(type=pb.OperationSpec.Drain, node=config.name, reason=REASON)
        ended = await run_operation(cluster, spec, limit + _SLACK)
        outcome = ended.status.message or ended.status.state
        return f"{', '.join(here)}: {outcome}" if here else "no group runs here"


def _own_cluster(config: NodeConfig) -> Connection:
    from hasys.api.client import Client, from_node_config

    return Client(from_node_config(config))


async def _groups_here(cluster: Cluster, node: str) -> tuple[list[str], float]:
    """Groups that this node holds or is giving up, and the longest of their stop times in seconds."""
    listed = await cluster.list("Group")
    groups = [o.group for o in listed.objects]
    here = [g for g in groups if node in (g.status.assignment.node, g.status.assignment.previous_node)]
    longest = max((seconds(g.spec.failover.stop_timeout) or 60.0 for g in here), default=0.0)
    return sorted(g.metadata.name for g in here), longest
