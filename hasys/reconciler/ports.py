"""What the reconciler needs of the rest: the cluster's objects, and the guard. Tests bring their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hasys.api.kinds import Ref
from hasys.guard.client import SwornTo
from hasys.guard.protocol import Address, Plan
from hasys.v1 import api_pb2
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that belong together, in order."""

    changes: Sequence[tuple[pb.Object, bool]] = ()
    """Objects as they are now, or (True) as they were before they were deleted."""
    synced: bool = False
    """With this batch the picture is complete; comes again after each full list."""
    events: Sequence[pb.Event] = ()
    """What was recorded; with the first picture also what had been before."""


@dataclass(frozen=True, slots=True)
class Report:
    """What this node observed."""

    statuses: dict[Ref, pb.ResourceStatus] = field(default_factory=dict)
    events: tuple[pb.Event, ...] = ()
    results: dict[Ref, mpb.MonitorResult] = field(default_factory=dict)
    """What monitors found."""
    figures: mpb.NodeFigures | None = None
    """For the leader's memory alone."""
    runs: tuple[api_pb2.RunReport, ...] = ()


class Cluster(Protocol):
    """The store, through its API."""

    def watch(self) -> AsyncIterator[Batch]:
        """Groups and resources: what there is, ``synced``, then each change, until cancelled. Survives lost servers by
        itself; after a full list anew it tells the differences."""
        ...

    def set_servers(self, servers: Sequence[str]) -> None:
        """Ask these servers (``IP:PORT``) from now on: the members changed."""
        ...

    async def report(self, report: Report) -> Sequence[str]:
        """Write statuses and events. Returns what was refused, one line each; raises ``HasysError``."""
        ...


class Guard(Protocol):
    """The gate of all effects; see hasys/guard/client.py. Each call raises ``GuardGone`` while there is none."""

    @property
    def session(self) -> int:
        """Grows with each connection: what was told before must be told again. 0: never connected."""
        ...

    @property
    def connected(self) -> bool: ...

    def permits(self, group: str, epoch: int) -> bool:
        """As the guard last said."""
        ...

    def planned(self, group: str) -> Plan | None:
        """The plan that the guard has for the group: what this node may hold of it."""
        ...

    def released(self, group: str) -> int:
        """Epoch up to which the group is released here."""
        ...

    def oath(self, group: str) -> SwornTo | None:
        """By which an operator gave the group to this node while there is no majority; None: there is none."""
        ...

    def may_go_on(self, group: str) -> bool:
        """Whether this node held the group last and may hold it though no store answers (hasys.lease.tokens)."""
        ...

    async def gate(self, addresses: Iterable[Address]) -> None: ...

    async def plan(self, plan: Plan) -> bool: ...

    async def permit(self, group: str, epoch: int) -> bool: ...

    async def release(self, group: str, epoch: int) -> None: ...
