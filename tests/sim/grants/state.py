"""The replicated state that grants depend on, and the commands that change it: conditional, deterministic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.model.timing import Timing

EVERYBODY = frozenset({"n1", "n2", "n3"})


@dataclass(frozen=True, slots=True)
class Assign:
    """Next epoch, on ``node``; the present holder becomes the previous one."""

    group: str
    expect: int
    """Refused unless this is the present epoch."""
    node: str
    revoke: bool
    above: int = 0
    """The new epoch is above this one too: that of an operator's oath which is taken over."""


@dataclass(frozen=True, slots=True)
class RevokePrevious:
    group: str
    expect: int


@dataclass(frozen=True, slots=True)
class Retime:
    """First write of a change of timings: the larger TTL counts."""

    timing: Timing


@dataclass(frozen=True, slots=True)
class LowerTtlMax:
    """Second write: grants of the old TTL are over."""

    expect: Timing


Command = Assign | RevokePrevious | Retime | LowerTtlMax


@dataclass(frozen=True)
class State:
    groups: Mapping[str, GroupAssignment] = field(default_factory=dict)
    timing: Timing | None = None
    ttl_max: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "assignments", Assignments(self.groups))

    assignments: Assignments = field(init=False, compare=False)

    def after(self, command: Command) -> State:
        match command:
            case Assign(group, expect, node, revoke, above):
                a = self.groups.get(group)
                if (a.epoch if a else 0) != expect:
                    return self
                previous = (a.node, a.epoch) if a else ("", 0)
                new = GroupAssignment(
                    node, max(expect, above) + 1, 1, *previous, revoked=revoke or not previous[0], candidates=EVERYBODY
                )
                return replace(self, groups={**self.groups, group: new})
            case RevokePrevious(group, expect):
                a = self.groups[group]
                if a.epoch != expect:
                    return self
                return replace(self, groups={**self.groups, group: replace(a, revoked=True)})
            case Retime(timing):
                old = self.timing.ttl if self.timing else 0.0
                return replace(self, timing=timing, ttl_max=max(timing.ttl, old, self.ttl_max))
            case LowerTtlMax(expect):
                return replace(self, ttl_max=expect.ttl) if self.timing == expect else self
