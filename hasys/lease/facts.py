"""What a leading store knows of the guards, as placement and status need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from hasys.lease.wire import UNKNOWN_HEALTH, Grant, Health, KeepAlive


class Authority(Protocol):
    """Evidence that this store may answer keep-alives; ``hasys.store.port.Authority`` says what each field means."""

    @property
    def term(self) -> int: ...
    @property
    def applied(self) -> int: ...
    @property
    def t_q(self) -> float: ...
    @property
    def silent_since(self) -> float: ...


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node's guard, seen by this leader. Times are seconds of the leader's monotonic clock."""

    silent_for: float
    """Since its last keep-alive; for a node never heard: since the last moment when an earlier leader may have."""
    last_heard: float | None = None
    """None: this process never heard it."""
    boot: str = ""
    """Of the guard that was heard last."""
    confirmed: float | None = None
    """When it last proved that it hears us: the arrival, as it told, of the newest grant it received."""
    confirming: bool = False
    """It did so within ``leader_fallback``; otherwise it gets probes only."""
    lease_valid: bool = False
    """The grant last given to it has not ended."""
    lease_epoch: int = 0
    """Term of the leader that gave it; 0: never by this leader."""
    remaining: float = 0.0
    """Seconds until it ends."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Group -> epoch that its last keep-alive said it holds."""
    released: Mapping[str, int] = field(default_factory=dict)
    """Group -> epoch up to which this boot never acts again; a group assigned to it so needs a new epoch."""
    claims: Mapping[str, int] = field(default_factory=dict)
    """Group -> epoch of an operator's oath by which it holds the group, kept alive by this leader, or replaced by an
    assignment that the guard has not confirmed yet."""
    oaths: Mapping[str, int] = field(default_factory=dict)
    """Group -> epoch of an operator's oath that it said renews itself, and which no leader limits yet."""
    health: Health = UNKNOWN_HEALTH
    networks_since: float | None = None
    """When what it says of its networks last changed; None: it never spoke."""


def claims_of(grant: Grant, sworn: Mapping[str, tuple[int, bool]]) -> dict[str, int]:
    """Oaths that the grant keeps, and those that it replaces by an epoch above them, until the guard names them no
    more: what it says meanwhile was sent before that grant came, and its oath may have to be kept once more."""
    replaced = {g: sworn[g][0] for g, epoch, _ in grant.groups if g in sworn and sworn[g][0] < epoch}
    return {**replaced, **dict(grant.kept)}


def differs(last: KeepAlive | None, now: KeepAlive) -> bool:
    """Something changed that placement or status would want to know at once."""
    if last is None or last.boot != now.boot or last.held != now.held or last.released != now.released:
        return True
    if last.sworn != now.sworn or last.bound != now.bound:
        return True
    return replace(last.health, lag=0.0) != replace(now.health, lag=0.0)
