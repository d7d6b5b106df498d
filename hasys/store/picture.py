"""From stored objects and lease facts to the frozen view that placement decides on.

Keeps what no object records: when this leader first saw an epoch, a phase, an attempt, an operation. A new leader
starts without these memories; deadlines then count from the beginning of its authority.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from hasys.api.convert import seconds
from hasys.api.kinds import RESOURCE_KINDS, Ref, resource
from hasys.lease.facts import NodeFacts
from hasys.model.lines import one_line
from hasys.model.networks import LostNetworks
from hasys.model.timing import Timing
from hasys.model.view import (
    Assignment,
    Candidate,
    Failure,
    FencingInfo,
    Finding,
    GroupInfo,
    Limit,
    MonitorAction,
    NodeInfo,
    NodeState,
    OperationInfo,
    OperationType,
    Phase,
    Reboot,
    ResourceInfo,
    ResourceState,
    Role,
    View,
)
from hasys.store import gates
from hasys.store.machine import Changed, Machine
from hasys.store.port import Engine
from hasys.store.transaction import FINISHED
from hasys.v1 import objects_pb2 as pb

STOP_TIMEOUT = 60.0
"""Seconds; the default of Failover.stop_timeout in the schema."""
LIMIT, WITHIN, QUIET, FAILBACK = 3, 600.0, 3600.0, 600.0
"""Defaults of FailoverLimit and Failback in the schema; seconds."""
RUN_TIMEOUT = 60.0
"""Seconds that ``hasys run`` gives a command when nothing else is said."""
FENCE_DELAY = 5.0
"""Seconds; the schema's default of ``FencingSpec.delay``."""
COMMAND = 200
"""Most characters of a command in the history."""
_T = TypeVar("_T")

SLICE = 0.005
"""Seconds of reading at a stretch."""
_NEVER = NodeFacts(silent_for=0.0)


class Leases(Protocol):
    """What the lease server tells a leader."""

    def facts(self, now: float) -> Mapping[str, NodeFacts]: ...

    def may_hold(self, group: str, now: float) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class Reign:
    """One leadership of this member, on its monotonic clock."""

    term: int
    since: float
    silent_since: float
    cold: bool


@dataclass(slots=True)
class _Sighting:
    epoch: int
    phase: Phase
    attempt: int
    epoch_since: float | None = None
    phase_since: float | None = None
    attempt_version: int = 0
    failovers: dict[int, float | None] = field(default_factory=dict)


class Picture:
    """Builds views; one per store process."""

    def __init__(self, name: str, machine: Machine, engine: Engine, leases: Leases) -> None:
        self._name = name
        self._machine = machine
        self._engine = engine
        self._leases = leases
        self._groups: dict[str, GroupInfo] = {}
        self._dirty: set[str] | None = None
        """Groups to read again; None: all."""
        self._seen: dict[str, _Sighting] = {}
        self._open: dict[str, pb.Operation] = {}
        """Operations that have not ended."""
        self._found: dict[str, dict[tuple[str, str], float]] = {}
        """Group -> monitor and node -> when its finding was first seen."""
        self._operations: dict[str, float] = {}
        self._states: dict[str, tuple[NodeState | None, float | None]] = {}
        """Node -> its recorded state and when this leadership first saw it; None: from its beginning."""
        self._links: dict[str, tuple[bool, float | None]] = {}
        """The same of whether its store answers."""
        machine.subscribe(self._changed)

    def forget(self) -> None:
        """A new leadership begins: what was seen in an earlier one proves nothing."""
        self._seen.clear()
        self._found.clear()
        self._operations.clear()
        self._states.clear()
        self._links.clear()

    def view(self, now: float, reign: Reign, timing: Timing) -> View:
        """The picture at this instant."""
        facts = self._leases.facts(now)
        for _ in self.read():
            pass
        claims = _by_group({node: known.claims for node, known in facts.items()})
        unheard = _by_group({node: known.oaths for node, known in facts.items()})
        groups = {
            name: replace(
                self._with_times(group, now), claims=claims.get(name, {}), unheard=frozenset(unheard.get(name, ()))
            )
            for name, group in self._groups.items()
        }
        return View(
            timing=timing,
            leader_since=reign.since,
            silent_since=reign.silent_since,
            cold=reign.cold,
            nodes=self._nodes(facts, now),
            groups=groups,
            operations=self._pending(now),
        )

    # ------------------------------------------------------------ nodes
    def _nodes(self, facts: Mapping[str, NodeFacts], now: float) -> dict[str, NodeInfo]:
        engine = self._engine.status()
        connected = {self._name, *engine.connected}
        nodes = {}
        for obj in self._machine.list("Node"):
            name = obj.node.metadata.name
            seen = node_info(obj.node, facts.get(name, _NEVER), connected=name in connected)
            since = _since(self._states, name, seen.last_state, now)
            linked = _since(self._links, name, seen.connected, now)
            told = self._machine.get(Ref("Fencing", "", name))
            fencing = fencing_info(told.fencing) if told is not None else None
            nodes[name] = replace(
                seen, cut=engine.cut.get(name), state_since=since, connected_since=linked, fencing=fencing
            )
        return nodes

    # ------------------------------------------------------------ groups
    def _changed(self, index: int, changes: Sequence[Changed]) -> None:
        if not changes:
            self._dirty = None
        for change in changes:
            if change.ref.kind == "Operation":
                self._note_operation(change.ref.name, change.object.operation)
        if self._dirty is None:
            return
        for change in changes:
            if change.ref.kind == "Group":
                self._dirty.add(change.ref.name)
            elif change.ref.group:
                self._dirty.add(change.ref.group)

    async def refresh(self) -> None:
        """Read what changed since the last view, in slices: after a start that is everything, and this process must
        send heartbeats meanwhile. Also for a member that does not lead: it may have to, from one moment to the next."""
        begun = time.monotonic()
        for _ in self.read():
            if time.monotonic() - begun >= SLICE:
                await asyncio.sleep(0)
                begun = time.monotonic()

    def read(self) -> Iterator[None]:
        """The same, one group in each step."""
        if self._dirty is None:
            self._groups.clear()
            self._dirty = {obj.group.metadata.name for obj in self._machine.list("Group")}
            self._open.clear()
            for obj in self._machine.list("Operation"):
                self._note_operation(obj.operation.metadata.name, obj.operation)
        while self._dirty:
            self._read_group(self._dirty.pop())
            yield

    def _read_group(self, name: str) -> None:
        group = self._machine.group(name)
        if group is None:
            self._groups.pop(name, None)
            self._seen.pop(name, None)
        else:
            self._groups[name] = group_info(group, self._machine.members_of(name))

    def _with_times(self, group: GroupInfo, now: float) -> GroupInfo:
        a = group.assignment
        seen = self._seen.get(group.name)
        if seen is None:
            seen = self._seen[group.name] = _Sighting(a.epoch, group.phase, a.attempt)
            seen.failovers = dict.fromkeys(group.failovers)
        if seen.epoch != a.epoch:
            seen.epoch, seen.epoch_since = a.epoch, now
            seen.attempt, seen.attempt_version = a.attempt, 0
        if seen.phase is not group.phase:
            seen.phase, seen.phase_since = group.phase, now
        if seen.attempt != a.attempt:
            stored = self._machine.group(group.name)
            seen.attempt, seen.attempt_version = a.attempt, stored.metadata.resource_version if stored else 0
        seen.failovers = {epoch: seen.failovers.get(epoch, now) for epoch in group.failovers}
        return replace(
            group,
            may_hold=self._leases.may_hold(group.name, now),
            epoch_since=seen.epoch_since,
            phase_since=seen.phase_since,
            attempt_version=seen.attempt_version,
            failovers=seen.failovers,
            findings=self._dated(group, now),
        )

    def _dated(self, group: GroupInfo, now: float) -> tuple[Finding, ...]:
        """Findings with the time when this leader first saw them; those that went are forgotten."""
        before = self._found.get(group.name, {})
        times = {(f.monitor, f.node): before.get((f.monitor, f.node), now) for f in group.findings}
        if times:
            self._found[group.name] = times
        else:
            self._found.pop(group.name, None)
        return tuple(replace(f, since=times[f.monitor, f.node]) for f in group.findings)

    # ------------------------------------------------------------ operations
    def _note_operation(self, name: str, operation: pb.Operation) -> None:
        if operation.status.state in FINISHED:
            self._open.pop(name, None)
        else:
            self._open[name] = operation

    def _pending(self, now: float) -> tuple[OperationInfo, ...]:
        found = sorted(self._open.values(), key=lambda op: op.metadata.created.ToNanoseconds())
        names = {op.metadata.name for op in found}
        self._operations = {name: since for name, since in self._operations.items() if name in names}
        return tuple(operation_info(op, self._operations.setdefault(op.metadata.name, now)) for op in found)


def _since(seen: dict[str, tuple[_T, float | None]], name: str, value: _T, now: float) -> float | None:
    """When the value that holds now was first seen; None: it is the first one. Notes it."""
    before, since = seen.get(name, (value, None))
    seen[name] = value, since if before == value else now
    return seen[name][1]


def _by_group(oaths: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Node -> group -> epoch, turned round."""
    found: dict[str, dict[str, int]] = {}
    for node, of_node in oaths.items():
        for group, epoch in of_node.items():
            found.setdefault(group, {})[node] = epoch
    return found


# ---------------------------------------------------------------- message to value
def node_info(node: pb.Node, facts: NodeFacts, *, connected: bool) -> NodeInfo:
    """A member from its object and its guard's facts."""
    status = node.status
    r = status.reboot
    return NodeInfo(
        name=node.metadata.name,
        role=Role(pb.NodeSpec.Role.Name(node.spec.role)),
        drained=node.spec.drained,
        heard=facts.last_heard,
        confirmed=facts.confirmed,
        armed=facts.health.armed,
        agent_alive=facts.health.agent,
        message=facts.health.message,
        boot_id=facts.boot,
        released=facts.released,
        fence_confirmed=status.fence_confirmed,
        fence_boot_id=status.fence_boot_id,
        shutdown_boot_id=status.shutdown_boot_id,
        last_state=NodeState(status.state) if status.state else None,
        networks=facts.health.networks,
        networks_since=facts.networks_since,
        networks_told=dict(status.networks),
        connected=connected,
        last_cut=tuple(status.cut),
        watchdog=facts.health.watchdog_timeout,
        last_watchdog=seconds(status.watchdog),
        disk_failed=facts.health.disk_failed,
        reboot=Reboot(r.boot_id, r.group, r.epoch, r.cause, r.due) if status.HasField("reboot") else None,
    )


def fencing_info(fencing: pb.Fencing) -> FencingInfo:
    """How the node of that name is switched off from outside."""
    spec, status = fencing.spec, fencing.status
    return FencingInfo(
        agent=spec.agent,
        delay=seconds(spec.delay) if spec.HasField("delay") else FENCE_DELAY,
        nodes=tuple(spec.nodes),
        operation=status.operation,
        failed=status.failed,
    )


def group_info(group: pb.Group, members: Mapping[Ref, pb.Object]) -> GroupInfo:
    """A group from its object and its resources; without what only a leader knows."""
    spec, status = group.spec, group.status
    a = status.assignment
    stop_timeout = spec.failover.stop_timeout
    return GroupInfo(
        name=group.metadata.name,
        candidates=tuple(Candidate(n.name, n.priority) for n in spec.nodes),
        manual=spec.failover.mode == pb.Failover.Manual,
        farm=spec.mode == pb.GroupSpec.Farm,
        paused=status.paused,
        stop_timeout=seconds(stop_timeout) or STOP_TIMEOUT,
        assignment=Assignment(
            node=a.node,
            epoch=a.epoch,
            previous_node=a.previous_node,
            previous_epoch=a.previous_epoch,
            revoked=a.revoked,
            cause=a.cause,
            operation=a.operation,
            attempt=a.attempt,
            retry_step=a.retry_step,
            last_node=a.last_node,
            earlier=tuple((h.node, h.epoch) for h in a.earlier),
        ),
        phase=Phase(status.phase or "Stopped"),
        reason=status.reason,
        failures={node: Failure(f.epoch, f.message, f.count) for node, f in status.failures.items()},
        resources=tuple(resource_info(ref, obj) for ref, obj in sorted(members.items()) if ref.kind in RESOURCE_KINDS),
        findings=tuple(finding for _, obj in sorted(members.items()) for finding in findings(obj)),
        interfaces=interfaces_of(group, members),
        lost_networks=LostNetworks(pb.GroupNetwork.Lost.Name(spec.network.lost)),
        needs_gateway=spec.network.gateway == pb.GroupNetwork.Check,
        deleting=group.metadata.HasField("deleting"),
        limit=limit_of(spec.failover) if spec.failover.HasField("limit") else None,
        failovers=dict.fromkeys(status.failovers),
        alone=status.alone,
        failback=(seconds(spec.failover.failback.quiet) or FAILBACK) if spec.failover.HasField("failback") else None,
        closed=gates.closed(group, members),
        reboots=spec.failover.reboot_failed_node,
    )


def limit_of(failover: pb.Failover) -> Limit:
    """With the defaults of the schema for what an older store left out."""
    limit = failover.limit
    return Limit(
        limit.failovers if limit.HasField("failovers") else LIMIT,
        seconds(limit.within) or WITHIN,
        seconds(limit.quiet) or QUIET,
    )


def interfaces_of(group: pb.Group, members: Mapping[Ref, pb.Object]) -> dict[str, frozenset[str]]:
    """Node -> interfaces that the group's addresses use there."""
    wanted = [o.virtual_ip.spec.interface for o in members.values() if o.WhichOneof("kind") == "virtual_ip"]
    return {
        node.name: frozenset(name for i in wanted if (name := i.per_node.get(node.name, "") or i.name))
        for node in group.spec.nodes
    }


def resource_info(ref: Ref, obj: pb.Object) -> ResourceInfo:
    """A resource as last reported."""
    part = resource(obj)
    assert part is not None, "members of a group are resources"
    status = part.status
    return ResourceInfo(
        kind=ref.kind,
        name=ref.name,
        node=status.node,
        epoch=status.epoch,
        state=ResourceState(status.state or "Unknown"),
        message=status.message,
        vital=part.spec.on_start_failure != pb.Continue,
        version=part.metadata.resource_version,
        deleting=part.metadata.HasField("deleting"),
    )


def findings(obj: pb.Object) -> Iterator[Finding]:
    """What a monitor has found wrong, node by node; nothing for other objects."""
    for node, result in sorted(obj.monitor.status.nodes.items()):
        if result.state == "Failed" and result.action in ("Failover", "Stop"):
            action, spec = MonitorAction(result.action), obj.monitor.spec
            patience = 0.0 if result.epoch else seconds(spec.interval) + seconds(spec.timeout)
            yield Finding(obj.monitor.metadata.name, node, action, result.message, result.epoch, patience=patience)


def operation_info(operation: pb.Operation, since: float) -> OperationInfo:
    """An unfinished operation."""
    spec, status = operation.spec, operation.status
    return OperationInfo(
        name=operation.metadata.name,
        type=OperationType(pb.OperationSpec.Type.Name(spec.type)),
        group=spec.group,
        node=spec.node,
        step=spec.step,
        reason=spec.reason,
        role=spec.role,
        actor=spec.actor or "admin",
        running=status.state == "Running",
        epoch=status.epoch,
        since=since,
        command=one_line(" ".join(spec.command) or f"restart of the {spec.role}")[:COMMAND],
        timeout=_timeout(spec),
        by=spec.by,
        outcome=status.run.outcome,
        succeeded=status.run.exited and status.run.exit_code == 0,
    )


def _timeout(spec: pb.OperationSpec) -> float:
    """Seconds that the command, or the fence agent, may take."""
    given = spec.fencing if spec.type == pb.OperationSpec.Fence else spec
    return seconds(given.timeout) if given.HasField("timeout") else RUN_TIMEOUT
