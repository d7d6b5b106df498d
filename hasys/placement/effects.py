"""What a decision asks for. Effects are values: the controllers write them, scenarios print them.

Order within one batch about one group: its operation's start, its assignment, failures, phase, events, its operation's
end. The controllers write a group's batch as one conditional transaction, so a reader never sees half of it; a write
that lost a race changes nothing, and the next look decides again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hasys.model.view import Assignment, Failure, NodeState, Phase, Reboot


@dataclass(frozen=True, slots=True)
class SetAssignment:
    """Give the group to a node, to nobody, to the same node again, or take the previous holder's grants away."""

    group: str
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class SetPhase:
    group: str
    phase: Phase
    reason: str


@dataclass(frozen=True, slots=True)
class SetFailure:
    """Remember (or with None forget) that the group could not run on a node."""

    group: str
    node: str
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class SetPaused:
    group: str
    paused: bool


@dataclass(frozen=True, slots=True)
class SetFailovers:
    """Epochs of the failovers that count for the group's limit."""

    group: str
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetAlone:
    """Why the loss of the group's node would not be survived, as told; empty: it would, or nothing was told."""

    group: str
    cause: str


@dataclass(frozen=True, slots=True)
class Purge:
    """Nobody can hold the deleted group any more: remove it and its resources."""

    group: str


@dataclass(frozen=True, slots=True)
class SetNodeState:
    node: str
    state: NodeState
    message: str


@dataclass(frozen=True, slots=True)
class SetCut:
    """The addresses of the node that the leader does not reach."""

    node: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetWatchdog:
    """Seconds of the armed watchdog of the node; 0: none."""

    node: str
    timeout: float


@dataclass(frozen=True, slots=True)
class SetNetworks:
    """Interface -> what is wrong with it."""

    node: str
    networks: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SetReboot:
    """Ask a node that a failover left to reboot, or (None) no more."""

    node: str
    reboot: Reboot | None


@dataclass(frozen=True, slots=True)
class SetDrained:
    node: str
    drained: bool


@dataclass(frozen=True, slots=True)
class SetShutdown:
    """The boot of the node that leaves in order; empty: it may take groups again."""

    node: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class SetFenceConfirmed:
    node: str
    confirmed: bool
    boot_id: str


@dataclass(frozen=True, slots=True)
class AskFence:
    """A new operation: ``by`` switches ``node`` off."""

    node: str
    by: str
    cause: str


@dataclass(frozen=True, slots=True)
class EndFence:
    """The operation has ended; ``failed`` says why it was in vain, empty: it was not."""

    node: str
    failed: str


@dataclass(frozen=True, slots=True)
class StartOperation:
    operation: str
    group: str
    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class FinishOperation:
    operation: str
    group: str
    node: str
    succeeded: bool
    message: str
    epoch: int
    duration: float


@dataclass(frozen=True, slots=True)
class Record:
    """An event of the catalogue (hasys/model/events.py)."""

    reason: str
    message: str
    group: str = ""
    node: str = ""
    epoch: int = 0
    actor: str = "controller"
    duration: float | None = None
    """Seconds; the catalogue says of what."""
    cause: str = ""


Effect = (
    SetAssignment
    | SetPhase
    | SetFailure
    | SetPaused
    | SetFailovers
    | SetAlone
    | Purge
    | SetNodeState
    | SetCut
    | AskFence
    | EndFence
    | SetWatchdog
    | SetNetworks
    | SetDrained
    | SetReboot
    | SetShutdown
    | SetFenceConfirmed
    | StartOperation
    | FinishOperation
    | Record
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Effects that belong into one transaction: about one group, one node, or one operation alone."""

    kind: str
    """Group | Node | Operation."""
    name: str
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write now, and when to look again if nothing changes before (leader's monotonic clock)."""

    batches: tuple[Batch, ...]
    next_look: float | None

    @property
    def effects(self) -> list[Effect]:
        return [effect for batch in self.batches for effect in batch.effects]
