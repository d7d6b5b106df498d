"""Keeps the node's own processes in step with the members: node.yaml names those of the day on which it was written.

The guard learns where stores take keep-alives, the agent's client where servers are. The last known list is kept on
disk with the other objects: a node finds stores after a reboot though none of its node.yaml is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from hasys.api.context import targets_of
from hasys.config import Member
from hasys.guard.protocol import StoreAt
from hasys.model.errors import Refused
from hasys.reconciler.cache import Cache
from hasys.reconciler.telling import Telling
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)


class Guard(Protocol):
    """Who sends the keep-alives."""

    @property
    def session(self) -> int: ...

    @property
    def connected(self) -> bool: ...

    async def stores(self, stores: Iterable[StoreAt], level: int) -> None: ...


class Members(Telling):
    """One per agent. ``look`` when the members or their level changed, or the guard connected."""

    def __init__(self, cache: Cache, guard: Guard, set_servers: Callable[[Sequence[str]], None], own: Member) -> None:
        super().__init__("the guard does not know the members yet")
        self._cache = cache
        self._guard = guard
        self._set_servers = set_servers
        self._own = own
        self._servers: tuple[str, ...] = ()
        self._told: tuple[int, tuple[StoreAt, ...], int] = (0, (), 0)
        """(session of the guard, and what it was told)."""

    def _members(self) -> tuple[Member, ...]:
        """Those with a store; first the own one, which notices a lost leader first, and is where node.yaml says."""
        nodes = [_member(node) for name, node in self._cache.nodes.items() if name != self._own.name]
        own = [self._own] if self._own.votes and self._own.name in self._cache.nodes else []
        return (*own, *sorted((m for m in nodes if m.votes and m.addresses), key=lambda m: m.name))

    async def _tell(self) -> None:
        members = self._members()
        if not members:
            return  # nothing is known yet
        servers = targets_of(members)
        if servers != self._servers:
            self._servers = servers
            self._set_servers(servers)
        if not self._guard.connected:
            return
        stores = tuple(StoreAt(m.name, m.addresses, m.lease_port) for m in members)
        told = (self._guard.session, stores, self._cache.level)
        if told == self._told:
            return
        try:
            await self._guard.stores(stores, self._cache.level)
        except Refused as e:
            log.warning("the guard keeps the stores of node.yaml: %s", e)
        self._told = told


def _member(node: pb.Node) -> Member:
    spec = node.spec
    role = pb.NodeSpec.Role.Name(spec.role)
    return Member(node.metadata.name, role, tuple(spec.addresses), spec.api_port, spec.raft_port, spec.lease_port)
