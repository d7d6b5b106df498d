"""Faults for a cluster whose every connection goes through a proxy: processes and networks, drawn from a seed."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from toxiproxy import Toxiproxy

from hasys.config import API_PORT, RAFT_PORT
from tests.chaos.cluster import CLIENT, NAMES, Cluster

PORTS = {"raft": RAFT_PORT, "api": API_PORT}


class Proxies:
    """A proxy for each pair of viewer and node and each port; asked through Toxiproxy's own client."""

    def __init__(self, server: str, cluster: Cluster) -> None:
        host, _, port = server.rpartition(":")
        self._toxiproxy = Toxiproxy()
        self._toxiproxy.update_api_consumer(host, int(port))
        self._cluster = cluster
        self._prefix = cluster.network
        self._proxies: dict[tuple[str, str, str], Any] = {}

    def create(self) -> None:
        """Give every viewer its own address for each node; call before ``Cluster.write``."""
        for i, viewer in enumerate((*NAMES, CLIENT), 1):
            view = self._cluster.views.setdefault(viewer, {})
            for j, node in enumerate(NAMES, 1):
                if viewer == node:
                    continue
                view[node] = f"{self._cluster.network}.{10 * i + j}"
                for port in PORTS:
                    if viewer != CLIENT or port == "api":
                        self._create(viewer, node, port)

    def _create(self, viewer: str, node: str, port: str) -> None:
        self._proxies[viewer, node, port] = self._toxiproxy.create(
            upstream=f"{self._cluster.address(node)}:{PORTS[port]}",
            name=f"{self._prefix}-{viewer}-{node}-{port}",
            listen=f"{self._cluster.views[viewer][node]}:{PORTS[port]}",
        )

    def between(self, viewers: Sequence[str], nodes: Sequence[str], port: str = "") -> Iterator[Any]:
        """The proxies from any of these to any of those."""
        for (viewer, node, known), proxy in self._proxies.items():
            if viewer in viewers and node in nodes and port in ("", known):
                yield proxy

    def heal(self) -> None:
        """Every proxy up, no toxic left. Only ours: a real server may have others."""
        for proxy in self._proxies.values():
            for name in proxy.toxics():
                proxy.destroy_toxic(name)
            proxy.enable()

    def remove(self) -> None:
        """Leave nothing on the server."""
        for proxy in self._proxies.values():
            proxy.destroy()
        self._proxies.clear()


class Nemesis:
    """Picks a fault, keeps it for a while, takes it back."""

    def __init__(self, cluster: Cluster, proxies: Proxies, rng: random.Random) -> None:
        self._cluster, self._proxies, self._rng = cluster, proxies, rng
        self.history: list[str] = []
        self.faults: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "kill all": self._kill_all,
            "freeze": self._freeze,
            "isolate": self._isolate,
            "one way": self._one_way,
            "partial": self._partial,
            "slow": self._slow,
            "trickle": self._trickle,
            "reset": self._reset,
            "limit": self._limit,
        }

    async def run(self, until: Callable[[], bool]) -> None:
        """One fault after the other; each kind once before any comes again."""
        left: list[str] = []
        while not until():
            if not left:
                left = self._rng.sample(sorted(self.faults), len(self.faults))
            await self.one(left.pop())

    async def one(self, name: str) -> None:
        """A fault from its beginning to its end."""
        self.history.append(name)
        try:
            await self.faults[name]()
        finally:
            await self.heal()
        await self._wait(0.1, 0.8)

    async def heal(self) -> None:
        """Everything runs and everybody reaches everybody."""
        for name in self._cluster.running:
            self._cluster.signal(name, signal.SIGCONT)
        await asyncio.to_thread(self._proxies.heal)
        self._cluster.start()

    # ------------------------------------------------------------ helpers
    async def _wait(self, least: float, most: float) -> None:
        await asyncio.sleep(self._rng.uniform(least, most))

    def _node(self) -> str:
        return self._rng.choice(NAMES)

    async def _poison(self, proxies: Sequence[Any], kind: str, streams: Sequence[str], **attributes: int) -> None:
        def add() -> None:
            for proxy in proxies:
                for stream in streams:
                    proxy.add_toxic(type=kind, stream=stream, attributes=attributes)

        await asyncio.to_thread(add)

    # ------------------------------------------------------------ processes
    async def _kill(self) -> None:
        self._cluster.kill([self._node()])
        await self._wait(0.0, 1.5)

    async def _kill_all(self) -> None:
        self._cluster.kill(NAMES)
        await self._wait(0.0, 0.2)

    async def _freeze(self) -> None:
        """Long enough for another leader; what the frozen one believes is of the past when it goes on."""
        self._cluster.signal(self._node(), signal.SIGSTOP)
        await self._wait(0.3, 2.5)

    # ------------------------------------------------------------ networks
    async def _isolate(self) -> None:
        """A node loses the other nodes, not its clients: the place for stale reads."""
        await self.cut_off(self._node())
        await self._wait(0.8, 2.5)

    async def cut_off(self, node: str) -> None:
        """Whatever the node and the others send to each other is lost, until :meth:`heal`."""
        others = [name for name in NAMES if name != node]
        cut = [*self._proxies.between([node], others), *self._proxies.between(others, [node])]
        await self._poison(cut, "timeout", ("upstream", "downstream"), timeout=0)

    async def _one_way(self) -> None:
        """What a node sends does not arrive; what others send to it does."""
        node = self._node()
        others = [name for name in NAMES if name != node]
        await self._poison(list(self._proxies.between([node], others, "raft")), "timeout", ("upstream",), timeout=0)
        await self._wait(0.8, 2.5)

    async def _partial(self) -> None:
        """Two nodes lose each other; the third sees both. Their connections are refused, not silent."""
        one, two = self._rng.sample(NAMES, 2)
        cut = [*self._proxies.between([one], [two]), *self._proxies.between([two], [one])]
        await asyncio.to_thread(lambda: [proxy.disable() for proxy in cut])
        await self._wait(0.8, 2.0)

    async def _slow(self) -> None:
        links = list(self._proxies.between((*NAMES, CLIENT), [self._node()]))
        await self._poison(links, "latency", ("upstream", "downstream"), latency=self._rng.choice((20, 80)), jitter=15)
        await self._wait(0.8, 2.0)

    async def _trickle(self) -> None:
        links = list(self._proxies.between(NAMES, [self._node()], "raft"))
        await self._poison(links, "bandwidth", ("upstream",), rate=self._rng.choice((4, 40)))
        await self._wait(0.8, 2.0)

    async def _reset(self) -> None:
        links = list(self._proxies.between((*NAMES, CLIENT), [self._node()]))
        await self._poison(links, "reset_peer", ("upstream",), timeout=self._rng.choice((0, 50)))
        await self._wait(0.3, 1.0)

    async def _limit(self) -> None:
        """Connections end in the middle of a message."""
        links = list(self._proxies.between((*NAMES, CLIENT), [self._node()]))
        await self._poison(links, "limit_data", ("upstream", "downstream"), bytes=self._rng.randint(3000, 9000))
        await self._wait(0.5, 1.5)
