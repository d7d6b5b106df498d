"""From effects to one conditional transaction per subject."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from hasys.api.convert import duration, stamp
from hasys.api.kinds import Ref, copy
from hasys.model import events
from hasys.placement.effects import (
    AskFence,
    Batch,
    Effect,
    EndFence,
    FinishOperation,
    Purge,
    Record,
    SetAlone,
    SetAssignment,
    SetCut,
    SetDrained,
    SetFailovers,
    SetFailure,
    SetFenceConfirmed,
    SetNetworks,
    SetNodeState,
    SetPaused,
    SetPhase,
    SetReboot,
    SetShutdown,
    SetWatchdog,
    StartOperation,
)
from hasys.store.machine import Machine
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2


def command_of(batch: Batch, machine: Machine, clock: str = "") -> store_pb2.Command | None:
    """The transaction, conditional on the subject's present version; None when the subject has gone meanwhile.
    ``clock`` is the member whose clock its events go by: this one."""
    return _Writer(machine, clock).command(batch)


class _Writer:
    """Collects the changed copies of a batch's objects, then its events."""

    def __init__(self, machine: Machine, clock: str) -> None:
        self._machine = machine
        self._clock = clock
        self._stamp = stamp()
        self._spec: dict[Ref, pb.Object] = {}
        self._status: dict[Ref, pb.Object] = {}
        self._purged: list[Ref] = []
        self._asked: list[pb.Object] = []
        """New operations."""
        self._events: list[pb.Event] = []
        self._gone = False

    def command(self, batch: Batch) -> store_pb2.Command | None:
        for effect in batch.effects:
            self._take(effect)
        if self._gone:
            return None
        command = store_pb2.Command(id=secrets.token_hex(8), actor="controller", time=self._stamp)
        for ref in self._purged:
            self._status.pop(ref, None)
        for ref, obj in self._spec.items():
            mutation = command.mutations.add(put_spec=obj)
            # a status of the same object follows in this command: only the first may be conditional
            mutation.expect_version = self._version(ref)
        for ref, obj in self._status.items():
            mutation = command.mutations.add(put_status=obj)
            mutation.expect_version = 0 if ref in self._spec else self._version(ref)
        for ref in self._purged:
            command.mutations.add(delete=ref.key(), purge=True, expect_version=self._version(ref))
        for obj in self._asked:
            command.mutations.add(put_spec=obj, expect_absent=True)
            command.mutations.add(put_status=obj)
        for event in self._events:
            command.mutations.add(record=event)
        return command

    def _version(self, ref: Ref) -> int:
        obj = self._machine.get(ref)
        assert obj is not None
        return int(getattr(obj, obj.WhichOneof("kind") or "").metadata.resource_version)

    # ------------------------------------------------------------ copies to change
    def _copy(self, ref: Ref, copies: dict[Ref, pb.Object]) -> pb.Object:
        if ref not in copies:
            stored = self._machine.get(ref)
            if stored is None:
                self._gone = True
                return pb.Object()
            copies[ref] = copy(stored)
        return copies[ref]

    def _group(self, name: str) -> pb.GroupStatus:
        return self._copy(Ref("Group", "", name), self._status).group.status

    def _node(self, name: str) -> pb.NodeStatus:
        return self._copy(Ref("Node", "", name), self._status).node.status

    def _operation(self, name: str) -> pb.OperationStatus:
        return self._copy(Ref("Operation", "", name), self._status).operation.status

    # ------------------------------------------------------------ one effect each
    def _take(self, effect: Effect) -> None:
        match effect:
            case SetAssignment():
                self._assignment(effect)
            case SetPhase(group, phase, reason):
                status = self._group(group)
                if status.phase != phase.value:
                    status.phase_since.CopyFrom(self._stamp)
                status.phase, status.reason = phase.value, reason
            case SetFailure(group, node, failure):
                failures = self._group(group).failures
                failures.pop(node, None)
                if failure is not None:
                    failures[node].CopyFrom(
                        pb.StartFailure(
                            epoch=failure.epoch, message=failure.message, time=self._stamp, count=failure.count
                        )
                    )
            case SetPaused(group, paused):
                self._group(group).paused = paused
            case SetFailovers(group, epochs):
                self._group(group).failovers[:] = epochs
            case SetAlone(group, cause):
                self._group(group).alone = cause
            case Purge(group):
                self._purged.append(Ref("Group", "", group))
            case Record():
                self._events.append(event_of(effect, self._stamp, self._clock))
            case StartOperation() | FinishOperation():
                self._operation_status(effect)
            case _:
                self._node_effect(effect)

    def _assignment(self, effect: SetAssignment) -> None:
        a, status = effect.assignment, self._group(effect.group)
        since = self._stamp if status.assignment.epoch != a.epoch else status.assignment.since
        status.assignment.CopyFrom(
            pb.Assignment(
                node=a.node,
                epoch=a.epoch,
                previous_node=a.previous_node,
                previous_epoch=a.previous_epoch,
                revoked=a.revoked,
                cause=a.cause,
                operation=a.operation,
                since=since,
                attempt=a.attempt,
                retry_step=a.retry_step,
                last_node=a.last_node,
                earlier=[pb.Holder(node=node, epoch=epoch) for node, epoch in a.earlier],
            )
        )

    def _operation_status(self, effect: StartOperation | FinishOperation) -> None:
        status = self._operation(effect.operation)
        if not status.HasField("started"):
            status.started.CopyFrom(self._stamp)
        status.epoch = effect.epoch
        if isinstance(effect, StartOperation):
            status.state = "Running"
            return
        status.state = "Succeeded" if effect.succeeded else "Failed"
        status.message = effect.message
        status.finished.CopyFrom(self._stamp)
        status.duration.CopyFrom(duration(round(max(0.0, effect.duration), 3)))

    def _node_effect(self, effect: Effect) -> None:
        match effect:
            case SetNodeState(node, state, message):
                status = self._node(node)
                status.state, status.message = state.value, message
                status.state_since.CopyFrom(self._stamp)
            case SetCut(node, addresses):
                self._node(node).cut[:] = addresses
            case AskFence(node, by, cause):
                self._ask_fence(node, by, cause)
            case EndFence(node, failed):
                ref = Ref("Fencing", "", node)
                if self._machine.get(ref) is not None:  # else it was deleted meanwhile
                    fencing = self._copy(ref, self._status).fencing.status
                    fencing.operation, fencing.failed = "", failed
            case SetWatchdog(node, timeout):
                self._node(node).ClearField("watchdog")
                if timeout:
                    self._node(node).watchdog.CopyFrom(duration(timeout))
            case SetNetworks(node, networks):
                told = self._node(node).networks
                told.clear()
                told.update(networks)
            case SetReboot(node, reboot):
                self._node(node).ClearField("reboot")
                if reboot is not None:
                    self._node(node).reboot.CopyFrom(
                        pb.NodeReboot(
                            boot_id=reboot.boot_id,
                            group=reboot.group,
                            epoch=reboot.epoch,
                            cause=reboot.cause,
                            due=reboot.due,
                        )
                    )
            case SetDrained(node, drained):
                self._copy(Ref("Node", "", node), self._spec).node.spec.drained = drained
            case SetShutdown(node, boot_id):
                self._node(node).shutdown_boot_id = boot_id
            case SetFenceConfirmed(node, confirmed, boot_id):
                status = self._node(node)
                status.fence_confirmed, status.fence_boot_id = confirmed, boot_id
            case _:  # pragma: no cover
                raise AssertionError(f"no writer for {effect}")

    def _ask_fence(self, node: str, by: str, cause: str) -> None:
        """A new operation, and the note that it is under way: together, so that there is never a second one."""
        fencing = self._copy(Ref("Fencing", "", node), self._status).fencing
        name = f"fence-{node}-{secrets.token_hex(4)}"
        fencing.status.operation, fencing.status.failed = name, ""
        asked = pb.Object()
        asked.operation.metadata.name = name
        asked.operation.spec.CopyFrom(
            pb.OperationSpec(
                type=pb.OperationSpec.Fence, node=node, by=by, reason=cause[:256], actor="controller",
                fencing=fencing.spec,
            )
        )  # fmt: skip
        asked.operation.status.state = "Pending"
        asked.operation.status.started.CopyFrom(self._stamp)
        self._asked.append(asked)


def event_of(record: Record, time: Timestamp, clock: str = "") -> pb.Event:
    """The event object; the store gives it its name."""
    regarding = pb.Key(kind="Group", name=record.group) if record.group else pb.Key(kind="Node", name=record.node)
    event = pb.Event(
        type=events.reason(record.reason).grade.value,
        reason=record.reason,
        message=record.message,
        actor=record.actor,
        node=record.node,
        regarding=regarding,
        epoch=record.epoch,
        time=time,
        clock=clock,
        cause=record.cause,
    )
    if record.duration is not None:
        event.duration.CopyFrom(duration(round(max(0.0, record.duration), 3)))
    return event


def recording(records: Sequence[tuple[Record, float]], clock: str) -> store_pb2.Command:
    """Events alone, each with the seconds since it happened."""
    now = stamp()
    command = store_pb2.Command(id=secrets.token_hex(8), actor="controller", time=now)
    for record, ago in records:
        then = Timestamp()
        then.FromNanoseconds(now.ToNanoseconds() - round(ago * 1e9))
        command.mutations.add(record=event_of(record, then, clock))
    return command


def cluster_event(reason: str, **parts: str) -> pb.Event:
    """An event about the cluster as a whole."""
    event = event_of(Record(reason, events.text(reason, **parts)), stamp())
    event.regarding.CopyFrom(pb.Key(kind="Cluster", name=parts.get("name", "")))
    return event
