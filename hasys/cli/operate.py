"""The commands that ask for something: each creates an Operation and waits for its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from hasys.api.convert import nanoseconds
from hasys.api.errors import Invalid
from hasys.cli.context import context_option
from hasys.cli.output import taken
from hasys.cli.session import Cluster, talk, timeout_option
from hasys.model.errors import HasysError, NoMajority, Refused, TimedOut, Unavailable, Unknown, Unreached
from hasys.v1 import objects_pb2 as pb

_Type = pb.OperationSpec.Type
_Command = TypeVar("_Command", bound=Callable[..., Any])

_ENDED = ("Succeeded", "Failed")
_LAST_LOOK = 2.0
"""Seconds for asking, after a timeout, what the group waits for."""
_RESTART_TIMEOUT = 90.0
"""Seconds for the end of the restart of a process."""
_YES = "Without a majority: do not ask."


def _common(command: _Command) -> _Command:
    """Options of every operation."""
    reason = click.option("--reason", default="", metavar="TEXT", help="Kept in the history.")
    return reason(timeout_option("90s", "for the end")(context_option(command)))  # type: ignore[return-value]


@click.command()
@click.argument("group")
@click.option("--to", "node", default="", metavar="NODE", help="Where to; else the best other node.")
@_common
def switchover(group: str, node: str, reason: str, timeout: float) -> None:
    """Move GROUP in order: it stops on its node, then starts on the other. Waits for the result."""
    _operate(pb.OperationSpec(type=_Type.Switchover, group=group, node=node, reason=reason), timeout)


@click.command()
@click.argument("group")
@click.option("--force", is_flag=True, help="Needed: this is no planned move.")
@click.option("--to", "node", required=True, metavar="NODE", help="Where to.")
@click.option("--yes", is_flag=True, help=_YES)
@_common
def failover(group: str, node: str, force: bool, yes: bool, reason: str, timeout: float) -> None:
    """Move GROUP by force: conditions are skipped, the old node is fenced and not asked.

    It still waits until the old node's lease is over: two nodes never serve at once. Without a majority it works on
    NODE itself, as root, on your word alone.
    """
    if not force:
        raise click.UsageError(
            f"failover is the forced move: add --force, or use 'hasys switchover {group} --to {node}'"
        )
    spec = pb.OperationSpec(type=_Type.Failover, group=group, node=node, force=True, reason=reason)
    _operate_or_alone(spec, timeout, yes=yes)


@click.command()
@click.argument("group")
@click.option("--node", required=True, metavar="NODE", help="The node that the role is for.")
@click.option("--role", type=click.Choice(["active", "standby"]), required=True, help="standby: another node serves.")
@click.option("--yes", is_flag=True, help=_YES)
@_common
def resolve(group: str, node: str, role: str, yes: bool, reason: str, timeout: float) -> None:
    """Say which NODE is Active (or steps back) for GROUP, after a partition.

    Without a majority it works on NODE itself, as root, on your word alone.
    """
    spec = pb.OperationSpec(type=_Type.Resolve, group=group, node=node, role=role, reason=reason)
    _operate_or_alone(spec, timeout, yes=yes)


@click.command("fence-confirm")
@click.argument("node")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_common
def fence_confirm(node: str, yes: bool, reason: str, timeout: float) -> None:
    """Swear that NODE is off: its grants count as over at once.

    If it is not off, two nodes may serve the same address and write the same data. Look at the machine first.
    """
    if not yes:
        question = f"Is {node} switched off, and does it stay off? A wrong yes can destroy data"
        _confirm(question)
    _operate(pb.OperationSpec(type=_Type.FenceConfirm, node=node, reason=reason), timeout)


@click.command()
@click.argument("group")
@_common
def pause(group: str, reason: str, timeout: float) -> None:
    """Switch the automatic failover of GROUP off; what runs keeps running."""
    _operate(pb.OperationSpec(type=_Type.Pause, group=group, reason=reason), timeout)


@click.command()
@click.argument("group")
@_common
def resume(group: str, reason: str, timeout: float) -> None:
    """Switch the automatic failover of GROUP on again."""
    _operate(pb.OperationSpec(type=_Type.Resume, group=group, reason=reason), timeout)


@click.command()
@click.argument("group")
@click.argument("step", required=False, default="")
@_common
def retry(group: str, step: str, reason: str, timeout: float) -> None:
    """Run again what failed in GROUP (or only the resource STEP); what runs is not touched."""
    _operate(pb.OperationSpec(type=_Type.Retry, group=group, step=step, reason=reason), timeout)


def restart_process(node: str, role: str, reason: str) -> None:
    """``hasys node restart-process``; that command is where nothing of the API is imported."""
    _operate(pb.OperationSpec(type=_Type.RestartProcess, node=node, role=role, reason=reason), _RESTART_TIMEOUT)


@click.command()
@click.argument("node")
@_common
def drain(node: str, reason: str, timeout: float) -> None:
    """Move everything away from NODE and give it nothing until 'hasys undrain'."""
    _operate(pb.OperationSpec(type=_Type.Drain, node=node, reason=reason), timeout)


@click.command()
@click.argument("node")
@_common
def undrain(node: str, reason: str, timeout: float) -> None:
    """Let NODE be used again. Nothing moves back by itself."""
    _operate(pb.OperationSpec(type=_Type.Undrain, node=node, reason=reason), timeout)


def _confirm(question: str) -> None:
    """Raises ``Abort`` on a no and on the end of input, which leaves the question without the end of its line."""
    try:
        sure = click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        raise
    if not sure:
        raise click.Abort


def _operate_or_alone(spec: pb.OperationSpec, timeout: float, *, yes: bool) -> None:
    """With a majority an operation like any other; without one, on this node through its guard.

    Only an operation that was not stored ends in these two errors (:func:`run_operation`): none is done twice.
    """
    try:
        _operate(spec, timeout)
    except (NoMajority, Unreached) as silence:
        from hasys.cli.alone import Wanted, act_alone

        active = spec.role != "standby"
        act_alone(Wanted(spec.group, spec.node, active, spec.reason, yes, timeout), silence)


def _operate(spec: pb.OperationSpec, timeout: float) -> None:
    with telling(spec):
        ended = talk(lambda cluster: run_operation(cluster, spec, timeout))
        click.echo(outcome(spec, ended))


@contextlib.contextmanager
def telling(spec: pb.OperationSpec) -> Iterator[None]:
    """What goes wrong inside is told as a line about this operation."""
    what = title(spec)
    try:
        yield
    except Invalid as refused:
        why = "; ".join(fault.message for fault in refused.faults) or str(refused)
        raise Refused(f"{what} is refused: {why}") from None
    except Unreached:
        raise
    except NoMajority as error:
        raise NoMajority(f"no majority: {what} needs one: {str(error).removeprefix('no majority: ')}") from None
    except Unavailable as error:
        raise Unavailable(f"no majority: {what} needs one: {error}") from None


def outcome(spec: pb.OperationSpec, ended: pb.Operation) -> str:
    """``switchover of web done in 140ms``. Raises ``Refused`` when it failed."""
    what = title(spec)
    took = f" in {taken(ended.status.duration)}" if nanoseconds(ended.status.duration) else ""
    if ended.status.state == "Failed":
        raise Refused(f"{what} failed{took}: {ended.status.message}")
    note = f": {ended.status.message}" if ended.status.message else ""
    return f"{what} done{took}{note}"


def title(spec: pb.OperationSpec) -> str:
    """``switchover of web to n2``: what an operation is about."""
    words = {"FenceConfirm": "fence-confirm"}
    name = _Type.Name(spec.type)
    subject = f" of {spec.group}" if spec.group else ""
    if spec.type == _Type.RestartProcess:
        return f"restart of the {spec.role} of {spec.node}"
    if spec.role:
        return f"{name.lower()}{subject} with {spec.node} as {spec.role}"
    target = (f" to {spec.node}" if spec.group else f" of {spec.node}") if spec.node else ""
    step = f" step {spec.step}" if spec.step else ""
    return f"{words.get(name, name.lower())}{subject}{step}{target}"


async def run_operation(cluster: Cluster, spec: pb.OperationSpec, timeout: float) -> pb.Operation:
    """Create the operation and follow it to its end.

    Once it is stored it will be carried out, whoever still looks: silence of the servers then no longer means that
    nothing changed. Raises ``TimedOut`` saying what is still under way, or that its end cannot be seen.
    """
    latest = await cluster.create_operation(spec)

    async def follow() -> pb.Operation:
        nonlocal latest
        name = latest.metadata.name
        if latest.status.state in _ENDED:
            return latest
        async for answer in cluster.watch(["Operation"], spec.group):
            for change in answer.changes:
                if change.object.operation.metadata.name == name:
                    latest = change.object.operation
                    if latest.status.state in _ENDED:
                        return latest
        raise Refused(f"{title(spec)}: the watch ended before operation {name} did")

    try:
        async with asyncio.timeout(timeout):
            return await follow()
    except TimeoutError:
        why = latest.status.message or await _blocker(cluster, spec.group)
        state = f"{latest.status.state or 'Pending'}{f' ({why})' if why else ''}"
        still = f"{title(spec)} is still {state}; operation {latest.metadata.name}"
        raise TimedOut(f"timed out after {timeout:g}s: {still}") from None
    except (Unavailable, Unknown) as silence:
        name, state = latest.metadata.name, latest.status.state or "Pending"
        stored = f"{title(spec)} is stored as {name}, {state}"
        raise TimedOut(f"{stored}; its end cannot be seen: {silence}; look with: hasys get operation {name}") from None


async def _blocker(cluster: Cluster, group: str) -> str:
    """What the group waits for, with the resources that are on their way; empty when nobody can say it soon."""
    if not group:
        return ""
    with contextlib.suppress(HasysError, TimeoutError):
        async with asyncio.timeout(_LAST_LOOK):
            view = await cluster.status(group)
        moving = (r for g in view.groups for r in g.resources if r.state not in ("Running", "Stopped"))
        parts = [f"{r.kind}/{r.name} is {r.state} on {r.node}" + (r.message and f": {r.message}") for r in moving]
        return "; ".join([*(g.reason for g in view.groups if g.reason), *parts])
    return ""
