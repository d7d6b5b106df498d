"""``hasys command-files``: a file that appears in a directory is a command, with the names that HA_SYS gives them.

For operators who have a shell on a node but no certificate, and for scripts written for HA_SYS. Who may write into the
directory may move groups: it must not be writable by everybody.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click

from hasys.cli.context import context_option
from hasys.cli.operate import run_operation, title
from hasys.cli.session import Cluster, talk
from hasys.model.errors import HasysError, Refused, Unknown
from hasys.model.lines import one_line
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

PERIOD = 1.0
"""Seconds between two looks."""
LIMIT = 4096
"""Bytes that are read of a command file."""
TIMEOUT = 90.0
"""Seconds for the end of one operation."""

Conversation: TypeAlias = Callable[[Cluster], Coroutine[Any, Any, None]]
_Type = pb.OperationSpec.Type


@dataclass(frozen=True, slots=True)
class Command:
    """What a file asks for: of every group for which this node is (not) Active, unless the file names groups."""

    type: pb.OperationSpec.Type.ValueType
    here: bool | None
    """True: this node is to be Active; False: to step back; None: Active and Standby change places."""
    force: bool = False


COMMANDS = {
    "HA_MANUAL_FAILOVER.DAT": Command(_Type.Switchover, None),
    "HA_FORCE_FAILOVER_BACKUP.DAT": Command(_Type.Failover, False, force=True),
    "HA_FORCE_FAILOVER_ONLINE.DAT": Command(_Type.Failover, True, force=True),
    "HA_STRONG_FAILOVER_BACKUP.DAT": Command(_Type.Resolve, False),
    "HA_STRONG_FAILOVER_ONLINE.DAT": Command(_Type.Resolve, True),
}
"""File name -> command: a planned move; a forced one, without conditions; the resolution of a partition."""


@click.command("command-files")
@click.option("--directory", required=True, metavar="DIR", help="Where files appear; for trusted users alone.")
@click.option("--node", required=True, metavar="NAME", help="The node that the files speak of: this one.")
@click.option("--once", is_flag=True, help="Look once, do what is there, end.")
@context_option
def command_files(directory: str, node: str, once: bool) -> None:
    """Watch DIR for command files and carry them out, with the certificate of the client settings.

    HA_MANUAL_FAILOVER.DAT moves in order; HA_FORCE_FAILOVER_BACKUP.DAT and HA_FORCE_FAILOVER_ONLINE.DAT force this
    node to step back or to serve; HA_STRONG_FAILOVER_BACKUP.DAT and HA_STRONG_FAILOVER_ONLINE.DAT resolve a partition.

    A file may name groups, one per line; an empty one means every group that this node can run. It is removed before it
    is
    carried out, so it counts once; how it ended stands in NAME.result beside it.
    """
    folder = Path(directory)
    check(folder)
    while True:
        for name, groups in taken(folder):
            outcome = carry_out(name, groups, node, talk)
            write_result(folder, name, outcome)
            click.echo(f"{name}: {'; '.join(outcome)}")
        if once:
            return
        time.sleep(PERIOD)


def check(folder: Path) -> None:
    """Raises ``Refused`` for a directory in which anybody could give commands."""
    try:
        found = folder.lstat()
    except OSError as e:
        raise Refused(f"{folder}: {e.strerror}: make it, writable by those alone who may move groups") from None
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{folder} is no directory")
    if found.st_mode & stat.S_IWOTH:
        raise Refused(f"{folder} can be written by everybody: chmod o-w it")


def taken(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The commands that are there, with the groups that they name; their files are gone."""
    found = []
    for name in COMMANDS:
        path = folder / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as e:
            raise Refused(f"{path}: {e.strerror}: remove it") from None
        with os.fdopen(fd, "rb") as file:
            text = file.read(LIMIT).decode("utf-8", "replace") if stat.S_ISREG(os.fstat(fd).st_mode) else ""
        path.unlink()
        found.append((name, tuple(text.split())))
    return found


def carry_out(name: str, groups: Sequence[str], node: str, ask: Callable[[Conversation], None]) -> list[str]:
    """Do it; one line for each group. Nothing is raised: a watcher goes on."""
    lines: list[str] = []

    async def work(cluster: Cluster) -> None:
        status = await cluster.status()
        specs = operations(name, groups, node, status)
        if not specs:
            lines.append(f"no group for which {node} could do that")
        for spec in specs:
            try:
                ended = await run_operation(cluster, spec, TIMEOUT)
                state = "done" if ended.status.state == "Succeeded" else "failed"
                lines.append(f"{title(spec)} {state}: {ended.status.message}")
            except Unknown as e:  # it may go on: the text says which operation to look for
                lines.append(f"{title(spec)} unknown: {e}")
            except HasysError as e:
                lines.append(f"{title(spec)} failed: {e}")

    try:
        ask(work)
    except HasysError as e:
        lines.append(f"failed: {e}")
    return [one_line(line) for line in lines]


def operations(name: str, groups: Sequence[str], node: str, status: api.StatusResponse) -> list[pb.OperationSpec]:
    """What the file means now. Groups that it names are taken as they are: the store refuses what is wrong."""
    command, specs = COMMANDS[name], []
    views = {view.name: view for view in status.groups}
    for group in groups or [view.name for view in status.groups if node in view.nodes and view.mode == "Mirror"]:
        active = views[group].active if group in views else ""
        to_here = active != node if command.here is None else command.here
        if not groups and (active == node) == to_here:
            continue  # it is so already
        spec = pb.OperationSpec(type=command.type, group=group, force=command.force, reason=f"command file {name}")
        if command.type == _Type.Resolve:
            spec.node, spec.role = node, "active" if to_here else "standby"
        elif to_here:
            spec.node = node
        elif command.type == _Type.Failover:
            others = sorted(other for other in (views[group].nodes if group in views else ()) if other != node)
            spec.node = next((other for other in others if views[group].nodes[other] == "Standby"), (*others, "")[0])
        specs.append(spec)
    return specs


def write_result(folder: Path, name: str, lines: Sequence[str]) -> None:
    """Beside where the command was; replaced by the next one."""
    fresh = folder / f".{name}.new"
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "w") as file:
        file.write("".join(f"{line}\n" for line in lines))
    fresh.rename(folder / f"{name}.result")
