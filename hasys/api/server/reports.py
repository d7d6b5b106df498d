"""What an agent reports becomes mutations, item by item: a stale one is refused and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from hasys.api.auth import NODE, Caller
from hasys.api.convert import seconds, stamp
from hasys.api.errors import TooLarge
from hasys.api.kinds import Ref, copy, resource, runner_of
from hasys.model.lines import one_line
from hasys.store.machine import Machine
from hasys.v1 import api_pb2, store_pb2
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb

ITEMS = 5_000
"""Most statuses, and most events, of one report."""
OUTPUT = 4 * 1024
"""Most characters kept of a program's output."""
MESSAGE = 1_024
"""Most characters of a message."""
OLDEST = 7 * 86_400.0
"""Most seconds that a report may say something happened ago."""
MONITOR_STATES = ("Waiting", "Ok", "Restarting", "Failed", "Idle")
MONITOR_ACTIONS = ("", "Alert", "Failover", "Stop")
STATES = ("Stopped", "Starting", "Running", "Stopping", "Failed", "Unknown")


@dataclass(frozen=True, slots=True)
class Receipt:
    """When and by whom a report was received."""

    clock: str = ""
    """The member that leads."""
    delay: float = 0.0
    """Seconds that the report was under way."""


def plan_report(
    request: api_pb2.ReportRequest, caller: Caller, machine: Machine, receipt: Receipt = Receipt()
) -> tuple[list[str], list[store_pb2.Mutation]]:
    """The refused items, one line each, and the mutations for the others. Raises ``TooLarge``."""
    if max(len(request.statuses), len(request.events), len(request.monitors), len(request.runs)) > ITEMS:
        raise TooLarge(f"a report of more than {ITEMS} items: split it")
    refused: list[str] = []
    mutations: list[store_pb2.Mutation] = []
    for item in request.statuses:
        ref = Ref.of_key(item.key)
        old = machine.get(ref)
        why = _why_not(request.node, item.status, old, machine)
        if why:
            refused.append(f"{ref}: {why}")
        elif old is not None:
            new = _with_status(old, item.status)
            if new is not None:
                mutations.append(store_pb2.Mutation(put_status=new))
    for told in request.monitors:
        ref = Ref.of_key(told.key)
        old = machine.get(ref)
        why = _monitor_why_not(request.node, told.result, old, machine)
        if why:
            refused.append(f"{ref}: {why}")
        elif old is not None:
            mutations += _with_result(old, request.node, told.result, machine)
    for run in request.runs:
        why, ended = _run_result(request.node, run, machine)
        if ended is None:
            refused.append(f"Operation/{one_line(run.operation)[:80]}: {why}")
        else:
            mutations.append(store_pb2.Mutation(put_status=ended))
    received = stamp()
    for event in request.events:
        mutation = store_pb2.Mutation(record=event)
        mutation.record.node = request.node
        mutation.record.message = one_line(event.message)[:MESSAGE]
        mutation.record.cause = one_line(event.cause)[:MESSAGE]
        if caller.role == NODE or not event.actor:
            mutation.record.actor = caller.actor
        _set_time(mutation.record, received, receipt)
        mutations.append(mutation)
    return refused, mutations


def _set_time(event: pb.Event, received: Timestamp, receipt: Receipt) -> None:
    """The times of all nodes become times of one clock, the leader's: its receipt, less how long ago the reporter's
    monotonic clock says that it was. What no network or wall clock can falsify but by the time under way."""
    event.clock = ""
    if event.HasField("age"):
        age = min(max(0.0, seconds(event.age)), OLDEST) + receipt.delay
        event.time.FromNanoseconds(max(0, received.ToNanoseconds() - round(age * 1e9)))
        event.clock = receipt.clock
        event.ClearField("age")
    elif not event.HasField("time"):
        event.time.CopyFrom(received)
        event.clock = receipt.clock


def _why_not(node: str, status: pb.ResourceStatus, old: pb.Object | None, machine: Machine) -> str:
    """Why this status is refused; empty when it is welcome."""
    part = resource(old) if old is not None else None
    if part is None:
        return "does not exist"
    if status.node != node:
        return f"reported by {node} for node {status.node!r}"
    if status.state not in STATES:
        return f"state {status.state[:40]!r} is none of {', '.join(STATES)}"
    group = machine.group(part.metadata.group)
    if group is None:
        return "its group does not exist"
    assignment = group.status.assignment
    if node == assignment.node:
        epoch = assignment.epoch
    elif node == assignment.previous_node:
        epoch = assignment.previous_epoch
    else:
        return f"node {node} is not assigned to group {part.metadata.group!r} (epoch {assignment.epoch})"
    if node == assignment.node == assignment.previous_node and status.epoch == assignment.previous_epoch:
        epoch = assignment.previous_epoch
    if status.epoch < epoch:
        return f"epoch {status.epoch} is older than {epoch}"
    if status.epoch > epoch:
        return f"epoch {status.epoch} was never assigned (now {epoch})"
    if status.epoch < part.status.epoch:
        return f"epoch {status.epoch} is older than {part.status.epoch}, which reported already"
    return ""


def _monitor_why_not(node: str, result: mpb.MonitorResult, old: pb.Object | None, machine: Machine) -> str:
    """Why this result of a monitor is refused; empty when it is welcome."""
    if old is None or not old.HasField("monitor"):
        return "does not exist"
    if result.state not in MONITOR_STATES:
        return f"state {result.state[:40]!r} is none of {', '.join(MONITOR_STATES)}"
    if result.action not in MONITOR_ACTIONS:
        return f"action {result.action[:40]!r} is none of {', '.join(MONITOR_ACTIONS[1:])}"
    group = machine.group(old.monitor.metadata.group)
    if group is None or node not in [one.name for one in group.spec.nodes]:
        return f"node {node} is none of the nodes of its group"
    if result.epoch > group.status.assignment.epoch:
        return f"epoch {result.epoch} was never assigned (now {group.status.assignment.epoch})"
    return ""


def _with_result(
    old: pb.Object, node: str, result: mpb.MonitorResult, machine: Machine
) -> Iterator[store_pb2.Mutation]:
    """The write that puts one node's result beside those of the others; nothing when that is what there is."""
    new = copy(old)
    nodes = new.monitor.status.nodes
    nodes[node].CopyFrom(result)
    nodes[node].message = one_line(result.message)[:MESSAGE]
    group = machine.group(old.monitor.metadata.group)
    members = {one.name for one in group.spec.nodes} if group is not None else set()
    for name in [name for name in nodes if name not in members]:
        del nodes[name]
    if new != old:  # two nodes may report at once: the second one reads the first one's result and writes both
        yield store_pb2.Mutation(put_status=new, expect_version=old.monitor.metadata.resource_version)


def _run_result(node: str, run: api_pb2.RunReport, machine: Machine) -> tuple[str, pb.Object | None]:
    """Why this result of ``hasys run`` is refused, or the operation that holds it; the controllers end it."""
    old = machine.get(Ref("Operation", "", run.operation))
    if old is None:
        return "does not exist", None
    spec, status = old.operation.spec, old.operation.status
    if runner_of(spec) != node:
        return f"is nothing that {node} runs", None
    if status.state != "Running" or status.run.outcome:
        return "does not run", None
    new = copy(old)
    result = new.operation.status.run
    result.CopyFrom(run.result)
    result.outcome = one_line(run.result.outcome)[:MESSAGE] or "ended"
    result.output = run.result.output[-OUTPUT:]
    return "", new


def _with_status(old: pb.Object, status: pb.ResourceStatus) -> pb.Object | None:
    """The object with the new status; None when that is what it has."""
    new = copy(old)
    part = resource(new)
    assert part is not None
    part.status.CopyFrom(status)
    part.status.message = one_line(status.message)[:MESSAGE]
    part.status.output = status.output[-OUTPUT:]
    return None if new == old else new
