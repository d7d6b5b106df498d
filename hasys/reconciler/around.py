"""What the agent knows anyway, for monitors: :class:`hasys.monitors.port.Machine`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anyio

from hasys.monitors.port import Link, Standing
from hasys.reconciler.cache import Cache
from hasys.resources.addresses import Addresses
from hasys.resources.settings import address_of
from hasys.v1 import objects_pb2 as pb


class Around:
    """One per agent. ``store``: address and port of this node's own server."""

    def __init__(
        self, cache: Cache, addresses: Addresses, guard_connected: Callable[[], bool], store: tuple[str, int]
    ) -> None:
        self._cache = cache
        self._addresses = addresses
        self._guard_connected = guard_connected
        self._store = store

    def link(self, name: str) -> Link | None:
        found = self._addresses.link(name)
        return Link(found.up, found.carrier) if found is not None else None

    def holder(self, address: str) -> str:
        return next((held.interface for held in self._addresses.holders(address)), "")

    def addresses(self, group: str) -> Mapping[str, str]:
        found = self._cache.resources(group)
        return {name: address_of(r.spec) for name, r in found.items() if isinstance(r, pb.VirtualIP)}

    def replicated(self, group: str) -> Mapping[str, tuple[str, str]]:
        volumes = {n: r.spec for n, r in self._cache.resources(group).items() if isinstance(r, pb.ReplicatedVolume)}
        return {name: (spec.drbd_resource, spec.device) for name, spec in volumes.items()}

    def standing(self, group: str) -> Standing | None:
        found = self._cache.groups.get(group)
        return Standing(found.status.phase, found.status.assignment.node) if found is not None else None

    async def own(self) -> Mapping[str, str]:
        guard = "" if self._guard_connected() else "the guard does not answer"
        store = ""
        try:
            async with await anyio.connect_tcp(*self._store):
                pass
        except OSError:
            store = "the store does not answer"
        return {"Guard": guard, "Store": store}
