"""The work sheet of one decision: the picture as it will be once the effects so far are written, and those effects.

Later steps of the same decision see earlier ones: a drained node gives its groups away in the same look, and a phase is
computed from the assignment just made. Not shared, not kept: one draft per call of ``decide``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hasys.model import events
from hasys.model.view import Assignment, Failure, GroupInfo, NodeInfo, NodeState, OperationInfo, Phase, Reboot, View
from hasys.placement.effects import (
    AskFence,
    Batch,
    Decision,
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
from hasys.placement.lasted import trouble
from hasys.placement.standing import Standing, contact_since, standing

LATER = 2**63
"""A log index after every report so far: what is asked for now has not been reported on."""


class Draft:
    """Collects effects by subject; each method changes the picture and adds the effect that makes it true."""

    def __init__(self, view: View, now: float) -> None:
        self.now = now
        self.nodes: dict[str, NodeInfo] = dict(view.nodes)
        self.groups: dict[str, GroupInfo] = dict(view.groups)
        self.view = replace(view, nodes=self.nodes, groups=self.groups)
        self._effects: dict[tuple[str, str], list[Effect]] = {}
        self._moved: dict[str, float] = {}
        """Group -> seconds that what gave it another epoch had lasted."""
        self._state_lasted: dict[str, float] = {}
        """Node -> seconds that it was in the state that this decision ends, or silent."""
        self._next: float | None = None

    # ------------------------------------------------------------ reading
    def standing(self, node: str) -> Standing:
        """How the node stands now; KeyError for a name that is no member."""
        return standing(self.nodes[node], self.now, self.view)

    def begun(self, since: float | None) -> float:
        """Start of a wait: an instant this leader has not seen counts from the beginning of its authority."""
        return self.view.leader_since if since is None else since

    def look_at(self, time: float) -> None:
        """Decide again at this time at the latest. Times that have passed are ignored: nothing would differ."""
        if time > self.now and (self._next is None or time < self._next):
            self._next = time

    def moved(self, group: str) -> bool:
        """Did this decision give the group another epoch? Then its recorded phase speaks of an older one."""
        return group in self._moved

    # ------------------------------------------------------------ groups
    def assign(self, name: str, assignment: Assignment) -> None:
        group = self.groups[name]
        new_epoch = assignment.epoch != group.assignment.epoch
        again = assignment.attempt != group.assignment.attempt
        if new_epoch:
            self._moved[name] = trouble(group, self.view, self.now)
        assert assignment.epoch >= group.assignment.epoch, "an epoch only grows"
        holders = group.may_hold | ({group.assignment.node} if group.assignment.node and new_epoch else set())
        self.groups[name] = replace(
            group,
            assignment=assignment,
            may_hold=frozenset(holders),
            epoch_since=self.now if new_epoch else group.epoch_since,
            attempt_version=LATER if again else group.attempt_version,
        )
        self._add("Group", name, SetAssignment(name, assignment))

    def phase(self, name: str, phase: Phase, reason: str) -> None:
        """Record a phase; without a change, nothing happens."""
        group = self.groups[name]
        if (group.phase, group.reason) == (phase, reason):
            return
        since = group.phase_since if group.phase is phase else self.now
        self.groups[name] = replace(group, phase=phase, reason=reason, phase_since=since)
        self._add("Group", name, SetPhase(name, phase, reason))

    def failure(self, name: str, node: str, failure: Failure | None) -> None:
        group = self.groups[name]
        failures = {n: f for n, f in group.failures.items() if n != node}
        if failure is not None:
            failures[node] = failure
        self.groups[name] = replace(group, failures=failures)
        self._add("Group", name, SetFailure(name, node, failure))

    def pause(self, name: str, paused: bool) -> None:
        self.groups[name] = replace(self.groups[name], paused=paused)
        self._add("Group", name, SetPaused(name, paused))

    def failovers(self, name: str, epochs: Mapping[int, float | None]) -> None:
        self.groups[name] = replace(self.groups[name], failovers=epochs)
        self._add("Group", name, SetFailovers(name, tuple(epochs)))

    def alone(self, name: str, cause: str) -> None:
        self.groups[name] = replace(self.groups[name], alone=cause)
        self._add("Group", name, SetAlone(name, cause))

    def purge(self, name: str) -> None:
        self.groups.pop(name)
        self._add("Group", name, Purge(name))

    # ------------------------------------------------------------ nodes
    def node_state(self, name: str, state: NodeState, message: str) -> None:
        node = self.nodes[name]
        silent = state is NodeState.LOST
        self._state_lasted[name] = self.now - (
            contact_since(node, self.view) if silent else self.begun(node.state_since)
        )
        self.nodes[name] = replace(node, last_state=state, state_since=self.now)
        self._add("Node", name, SetNodeState(name, state, message))

    def cut(self, name: str, addresses: tuple[str, ...]) -> None:
        self.nodes[name] = replace(self.nodes[name], last_cut=addresses)
        self._add("Node", name, SetCut(name, addresses))

    def watchdog(self, name: str, timeout: float) -> None:
        self.nodes[name] = replace(self.nodes[name], last_watchdog=timeout)
        self._add("Node", name, SetWatchdog(name, timeout))

    def networks(self, name: str, told: Mapping[str, str]) -> None:
        self.nodes[name] = replace(self.nodes[name], networks_told=told)
        self._add("Node", name, SetNetworks(name, told))

    def reboot(self, name: str, reboot: Reboot | None) -> None:
        self.nodes[name] = replace(self.nodes[name], reboot=reboot)
        self._add("Node", name, SetReboot(name, reboot))

    def drain(self, name: str, drained: bool) -> None:
        self.nodes[name] = replace(self.nodes[name], drained=drained)
        self._add("Node", name, SetDrained(name, drained))

    def shutdown(self, name: str, boot_id: str) -> None:
        self.nodes[name] = replace(self.nodes[name], shutdown_boot_id=boot_id)
        self._add("Node", name, SetShutdown(name, boot_id))

    def fence_confirmed(self, name: str, confirmed: bool) -> None:
        node = self.nodes[name]
        boot_id = node.boot_id if confirmed else ""
        self.nodes[name] = replace(node, fence_confirmed=confirmed, fence_boot_id=boot_id)
        self._add("Node", name, SetFenceConfirmed(name, confirmed, boot_id))

    def ask_fence(self, name: str, by: str, cause: str) -> None:
        self._fencing(name, "just asked for")
        self._add("Node", name, AskFence(name, by, cause))

    def end_fence(self, name: str, failed: str = "") -> None:
        self._fencing(name, "", failed)
        self._add("Node", name, EndFence(name, failed))

    def _fencing(self, name: str, operation: str, failed: str = "") -> None:
        fencing = self.nodes[name].fencing
        if fencing is not None:
            self.nodes[name] = replace(self.nodes[name], fencing=replace(fencing, operation=operation, failed=failed))

    # ------------------------------------------------------------ operations, events
    def start(self, operation: OperationInfo, epoch: int = 0) -> None:
        effect = StartOperation(operation.name, operation.group, operation.node, epoch)
        self._add(*subject(operation, self.view), effect)

    def finish(self, operation: OperationInfo, succeeded: bool, message: str, epoch: int = 0) -> None:
        """Every operation ends here, with an event that carries its duration in seconds."""
        took = self.now - self.begun(operation.since)
        kind, name = subject(operation, self.view)
        self._add(
            kind,
            name,
            FinishOperation(operation.name, operation.group, operation.node, succeeded, message, epoch, took),
        )
        reason = "OperationSucceeded" if succeeded else "OperationFailed"
        self._add(
            kind,
            name,
            Record(
                reason,
                events.text(reason, operation=operation.name, cause=message),
                group=operation.group,
                node=operation.node,
                epoch=epoch,
                actor=operation.actor,
                duration=took,
                cause=message,
            ),
        )

    def group_event(self, name: str, reason: str, *, actor: str = "controller", **parts: object) -> None:
        """An event about a group at its present epoch. Its duration counts from the beginning of that epoch; if this
        decision began it: how long its cause had lasted."""
        group = self.groups[name]
        record = Record(
            reason,
            events.text(reason, group=name, **parts),
            group=name,
            node=str(parts.get("node", group.assignment.node)),
            epoch=group.assignment.epoch,
            actor=actor,
            duration=self._moved[name] if name in self._moved else self.now - self.begun(group.epoch_since),
            cause=str(parts.get("cause", "")),
        )
        self._add("Group", name, record)

    def deleted_event(self, name: str) -> None:
        epoch = self.groups[name].assignment.epoch
        record = Record("GroupDeleted", events.text("GroupDeleted", group=name), group=name, epoch=epoch)
        self._add("Group", name, record)

    def node_event(self, name: str, reason: str, *, actor: str = "controller", **parts: object) -> None:
        lasted = self._state_lasted[name] if name in self._state_lasted and events.reason(reason).took else None
        cause = str(parts.get("cause", ""))
        message = events.text(reason, node=name, **parts)
        self._add("Node", name, Record(reason, message, node=name, actor=actor, duration=lasted, cause=cause))

    # ------------------------------------------------------------ the result
    def _add(self, kind: str, name: str, effect: Effect) -> None:
        self._effects.setdefault((kind, name), []).append(effect)

    def decision(self) -> Decision:
        batches = tuple(Batch(kind, name, tuple(effects)) for (kind, name), effects in self._effects.items())
        return Decision(batches, self._next)


def subject(operation: OperationInfo, view: View) -> tuple[str, str]:
    """Whose transaction an operation's writes belong to: its group's, its node's, or its own."""
    if operation.group and operation.group in view.groups:
        return "Group", operation.group
    if operation.node and operation.node in view.nodes and not operation.group:
        return "Node", operation.node
    return "Operation", operation.name
