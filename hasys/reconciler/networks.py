"""Which interfaces this node's groups need, and where it is told how they are."""

from __future__ import annotations

from hasys.config import NodeConfig
from hasys.monitors.networks import NetworkMonitor, Watched
from hasys.reconciler.cache import Cache
from hasys.reconciler.gates import Gates
from hasys.reconciler.link import GuardLink
from hasys.resources.addresses import KernelAddresses


class Networks:
    """One per agent: the monitor is told what to watch, the guard what it finds."""

    def __init__(
        self, config: NodeConfig, cache: Cache, gates: Gates, addresses: KernelAddresses, link: GuardLink
    ) -> None:
        self._name = config.name
        self._cache = cache
        self._gates = gates
        self._shape: int | None = None
        self._needed = Watched(frozenset())
        self.monitor = NetworkMonitor(addresses, self.watched, link.networks)

    async def run(self) -> None:
        """Watch until cancelled."""
        await self.monitor.run()

    def watched(self) -> Watched | None:
        """None until the store was read: nothing may be said to be well before it is known what is needed."""
        if not self._cache.synced:
            return None
        if self._shape != self._cache.shape:
            self._shape = self._cache.shape
            gated = self._gates.addresses()
            others = {name: tuple(n.spec.addresses) for name, n in self._cache.nodes.items() if name != self._name}
            self._needed = Watched(frozenset(a.interface for a in gated), frozenset(a.address for a in gated), others)
        return self._needed
