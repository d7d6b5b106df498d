"""Keeps the guard told of every address that could ever be ours: gated before the first packet, Standby included."""

from __future__ import annotations

import anyio

from hasys.guard.protocol import Address
from hasys.reconciler.cache import Cache
from hasys.reconciler.ports import Guard
from hasys.resources.settings import address_of, interface_on
from hasys.v1 import objects_pb2 as pb


class Gates:
    """One per agent."""

    def __init__(self, cache: Cache, guard: Guard, node: str) -> None:
        self._cache = cache
        self._guard = guard
        self._node = node
        self._seen: tuple[int, int] | None = None
        self._told: tuple[int, frozenset[Address]] | None = None
        self._serial = anyio.Lock()

    async def ensure(self) -> None:
        """Return when the kernel gates every address of every group that this node is a candidate for."""
        async with self._serial:
            seen = self._cache.shape, self._guard.session
            if seen == self._seen:
                return
            wanted = frozenset(self.addresses())
            if (self._guard.session, wanted) != self._told:
                await self._guard.gate(sorted(wanted))
                self._told = seen[1], wanted
            self._seen = seen

    def addresses(self) -> set[Address]:
        """Every address of every group that this node is a candidate for, on its interface here."""
        found = set()
        for name, group in self._cache.groups.items():
            if all(candidate.name != self._node for candidate in group.spec.nodes):
                continue
            for resource in self._cache.resources(name).values():
                if isinstance(resource, pb.VirtualIP) and (interface := interface_on(resource.spec, self._node)):
                    found.add(Address(interface, address_of(resource.spec)))
        return found
