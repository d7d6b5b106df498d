"""What the leader's applied state says about groups, as far as grants depend on it. Never authority by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GroupAssignment:
    """Who should run a group. Built from ``Group.status.assignment`` and ``Group.status.resources_version``."""

    node: str
    """Empty: nobody."""
    epoch: int
    """Only grows; each belongs to exactly one node for ever."""
    version: int
    """``resources_version``: the last change of the group's or its resources' spec."""
    previous_node: str = ""
    """May still stop in order, until it released or ``revoked`` is committed."""
    previous_epoch: int = 0
    revoked: bool = False
    """Committed: the previous holder gets no more grants. Only then does the END of its grant free the group;
    without it, nothing but its guard's confirmed release does (docs/decisions/0002)."""
    outlives: float = 0.0
    """Seconds from ``t_q`` during which things of this group may outlive a grant on any lost node: the time that a
    guard has for an unmount; 0 when the group holds addresses alone."""
    lingers: Mapping[str, float] = field(default_factory=dict)
    """The same for one node, when the group holds more than addresses: its armed watchdog + 0.5 s, or the time that a
    fence from outside is waited for."""
    earlier: Mapping[str, int] = field(default_factory=dict)
    """Node -> epoch of holders before the previous one that are not proven to be out: nothing is left to grant them,
    but something of the group may linger there."""
    candidates: frozenset[str] = frozenset()
    """Nodes of which an operator's oath for the group is taken over (docs/decisions/0005)."""

    def before(self) -> dict[str, int]:
        """Node -> epoch of all who had it before and are not proven to be out."""
        previous = {self.previous_node: self.previous_epoch} if self.previous_node else {}
        return {**self.earlier, **previous}

    def outliving(self, node: str) -> float:
        """Seconds from ``t_q`` during which something of the group may outlive a grant on this node."""
        return max(self.outlives, self.lingers.get(node, 0.0))


@dataclass(frozen=True, slots=True)
class Assignments:
    """One version of everything that grants depend on. Build a new object for each change, and only then: the granter
    recognises an unchanged one by identity."""

    groups: Mapping[str, GroupAssignment]
    fenced: Mapping[str, str] = field(default_factory=dict)
    """Node -> boot id of the guard of which the operator swore that its machine is off."""
