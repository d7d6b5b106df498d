"""``hasys run NODE -- COMMAND``."""

from __future__ import annotations

import click

from hasys.api.convert import parse_duration
from hasys.cli.context import context_option
from hasys.cli.operate import run_operation
from hasys.cli.session import talk
from hasys.model.errors import Refused
from hasys.v1 import objects_pb2 as pb

SLACK = 35.0
"""Seconds beyond the command's own time until the answer must be here."""


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--timeout", default="60s", metavar="DURATION", help="Then it is killed (default 60s, at most 1h).")
@click.option("--user", default="", metavar="USER", help="As whom (default root).")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the history.")
@context_option
def run_command(node: str, command: tuple[str, ...], timeout: str, user: str, reason: str) -> None:
    """Run COMMAND on NODE and print the end of what it prints. Administrators only.

    Options come before NODE; everything after it is the command, without a shell: hasys run n1 -- systemctl restart
    nginx. Who ran what, with exit status and the last 4 KiB of its output, stays in the history. Exit status 1: the
    command failed.
    """
    try:
        limit = parse_duration(timeout)
    except ValueError as e:
        raise click.UsageError(f"--timeout: {e}") from None
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("name a command: hasys run NODE -- COMMAND")
    spec = pb.OperationSpec(type=pb.OperationSpec.Run, node=node, command=words, user=user, reason=reason)
    spec.timeout.CopyFrom(limit)
    ended = talk(lambda cluster: run_operation(cluster, spec, limit.ToNanoseconds() / 1e9 + SLACK))
    click.echo(ended.status.run.output, nl=False)
    if ended.status.state == "Failed":
        raise Refused(f"run of {node} failed: {ended.status.message}")
