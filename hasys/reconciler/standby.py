"""Tells the guard of two nodes which groups this node would run in their Active's place (docs/two-nodes.md).

When nobody answers any more it is too late to read the store: the guard knows it beforehand, and decides by the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hasys.api.convert import seconds
from hasys.api.outliving import lives_on, stopped_after, unmounted_after
from hasys.guard.protocol import StoodBy
from hasys.reconciler.cache import Cache
from hasys.reconciler.telling import Telling
from hasys.v1 import objects_pb2 as pb


class Guard(Protocol):
    """Who would take them over."""

    @property
    def session(self) -> int: ...

    @property
    def connected(self) -> bool: ...

    async def standby(self, groups: Mapping[str, StoodBy]) -> None: ...


class Standbys(Telling):
    """One per agent. ``look`` when objects changed or the guard connected."""

    def __init__(self, cache: Cache, guard: Guard, node: str) -> None:
        super().__init__("the guard does not know yet what this node stands by for")
        self._cache = cache
        self._guard = guard
        self._node = node
        self._told: tuple[int, Mapping[str, StoodBy]] = (0, {})
        """(session of the guard, what it was told)."""

    async def _tell(self) -> None:
        if not (self._cache.synced and self._guard.connected):
            return
        me = self._cache.nodes.get(self._node)
        drained = me is not None and me.spec.drained
        found = {} if drained else {n: e for n, g in self._cache.groups.items() if (e := epoch(g, self._node))}
        groups = {name: StoodBy(e, self._outlives(name)) for name, e in found.items()}
        told = (self._guard.session, groups)
        if told != self._told:
            await self._guard.standby(groups)
            self._told = told

    def _outlives(self, group: str) -> float:
        """Seconds: an address is muted by its kernel in time, a mount is taken off by the guard after that, a program
        ends at the latest when the machine is reset, or when somebody had the time to switch it off: nobody but an
        operator does that while there is no leader."""
        members = (*self._cache.resources(group).values(), *self._cache.monitors(group).values())
        if not lives_on(members):
            return 0.0
        name = self._cache.groups[group].status.assignment.node
        holder = self._cache.nodes.get(name)
        watchdog = seconds(holder.status.watchdog) if holder is not None else 0.0
        fencing = self._cache.fencings.get(name)
        wait = seconds(fencing.spec.wait) if fencing is not None else 0.0
        return max(stopped_after(watchdog), unmounted_after(members) or 0.0, wait)


def epoch(group: pb.Group, node: str) -> int:
    """The epoch at which ``node`` would run the group without its Active; 0: it would not. An operator who wants to
    decide about it (Manual, paused, stopped) is waited for, and so is one who must mend what failed here."""
    a, spec = group.status.assignment, group.spec
    by_itself = spec.mode == pb.GroupSpec.Mirror and spec.failover.mode == pb.Failover.Auto and not group.status.paused
    wanted = not (a.stopped or group.metadata.HasField("deleting")) and node not in group.status.failures
    mine = any(n.name == node for n in spec.nodes) and a.node not in ("", node)
    return max(a.epoch, a.previous_epoch) + 1 if by_itself and wanted and mine else 0
