"""A hundred nodes of which three vote: what the leader's store costs (no root).

    python -m bench.crowd [--nodes 100] [--groups 100] [--seconds 30] [--json FILE] [--profile-to DIR]

The stores of two nodes and a witness are real processes on loopback (``bench/loopback.py``). Guard and agent of every
node that runs groups are simulated in this process: the guard's own keeper with its real datagrams (ten keep-alives a
second each), the agent's two watches, and its figures every three seconds. Each group is assigned to a node, so that
grants name it; nothing is started. Processor time is what /proc says of each store.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.loopback import NAMES, Loopback
from hasys.api.client import Client, from_node_config, load_context
from hasys.api.convert import now as wall_clock
from hasys.config import NodeConfig, load
from hasys.lease.keeping import Keeper
from hasys.lease.wire import LARGEST, DatagramRefused, Grant, Health, Hint, decode, encode, parse_secret
from hasys.model.errors import HasysError
from hasys.reconciler.watching import TELL
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb

SETTLE = 10.0
"""Seconds after the last node was Ready."""
PATIENCE = 60.0
"""Seconds within which every node must be Ready."""
HEALTH = Health(armed=True, agent=True, version="bench")


@dataclass
class Guard:
    """A node's guard without anything to fence: keeper and datagrams."""

    config: NodeConfig
    answers: int = 0
    _timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin to send."""
        config, loop = self.config, asyncio.get_running_loop()
        self._key = parse_secret(config.node_secret.read_bytes())
        stores = [m.name for m in config.voters]
        nonces = lambda: secrets.randbits(64)  # noqa: E731
        self._keeper = Keeper(config.cluster_id, config.name, stores, config.seed_timing(), "bench", nonces)
        self._stores = {m.name: (m.addresses[0], m.lease_port) for m in config.voters}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind((config.me.addresses[0], 0))
        loop.add_reader(self._socket, self._readable)
        self._wake()

    def _wake(self) -> None:
        now, keeper = time.monotonic(), self._keeper
        keeper.expire(now)
        if keeper.keepalive_due(now):
            message, targets = keeper.keepalive(now, HEALTH)
            data = encode(message, self._key)
            for name in targets:
                self._socket.sendto(data, self._stores[name])
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.001, keeper.next_wakeup(time.monotonic()) - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _readable(self) -> None:
        try:
            message = decode(self._socket.recv(LARGEST + 1), self.config.cluster_id, lambda _: self._key)
        except (OSError, DatagramRefused):
            return
        if isinstance(message, Grant):
            self._keeper.received(message, time.monotonic())
            self.answers += 1
        elif isinstance(message, Hint):
            self._keeper.hinted(message, time.monotonic())


async def agent(config: NodeConfig) -> None:
    """What an agent asks of the cluster all the time."""
    async with Client(from_node_config(config)) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(_drain(client, []))
        tasks.create_task(_drain(client, ["Operation"]))
        while True:
            await asyncio.sleep(TELL)
            figures = mpb.NodeFigures(cpu=3.0, memory=20.0, processes=100, time=wall_clock())
            with contextlib.suppress(HasysError):  # as agents do: the next ones come soon
                await client.report(config.name, figures=figures)


async def _drain(client: Client, kinds: Sequence[str]) -> None:
    async for _ in client.watch(kinds):
        pass


def groups(count: int, nodes: Sequence[str]) -> list[pb.Object]:
    """Empty groups, one node each."""
    made = []
    for number in range(count):
        obj = pb.Object()
        obj.group.metadata.name = f"g{number}"
        obj.group.spec.nodes.add(name=nodes[number % len(nodes)], priority=10)
        made.append(obj)
    return made


async def run(cluster: Loopback, options: argparse.Namespace) -> dict[str, object]:
    """Share of a core that each store used, and how many keep-alives were answered a second."""
    configs = [load(cluster.folder / name / "node.yaml") for name in cluster.names if name != "w"]
    guards = [Guard(config) for config in configs]
    async with Client(load_context(cluster.context)) as client, asyncio.TaskGroup() as tasks:
        for guard in guards:
            guard.start()
        agents = []
        for config in configs:
            agents.append(tasks.create_task(agent(config)))
            await asyncio.sleep(TELL / len(configs))  # machines do not start at the same instant
        await client.apply(groups(options.groups, [c.name for c in configs]))
        async with asyncio.timeout(PATIENCE):
            while True:
                status = await client.status()
                ready = sum(node.state == "Ready" for node in status.nodes)
                if ready == len(cluster.names):
                    break
                await asyncio.sleep(0.5)
        await asyncio.sleep(SETTLE)
        used, answered, begun = cluster.cpu(), sum(g.answers for g in guards), time.monotonic()
        await asyncio.sleep(options.seconds)
        took = time.monotonic() - begun
        share = {name: 100 * (value - used[name]) / took for name, value in cluster.cpu().items()}
        status = await client.status()
        for task in agents:
            task.cancel()
    return {
        "nodes": len(cluster.names),
        "groups": options.groups,
        "leader": status.cluster.leader,
        "ready": sum(node.state == "Ready" for node in status.nodes),
        "answers_per_second": round((sum(g.answers for g in guards) - answered) / took),
        "percent_of_a_core": {name: round(value, 1) for name, value in share.items()},
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="What a hundred nodes cost the leader.")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile-to", type=Path)
    options = parser.parse_args()
    with Loopback(options.profile_to, observers=options.nodes - len(NAMES)) as cluster:
        found = asyncio.run(run(cluster, options))
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
