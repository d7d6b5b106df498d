"""Durable writes through the API of a running cluster: one after the other, then many clients at once.

    python -m bench.api_writes [--context DIR/client/client.yaml] [--seconds 5] [--clients 64] [--json FILE]

Without ``--context`` it starts three stores of its own on loopback (``bench/loopback.py``).

Every write is an apply that changes one Delay of a group made for the purpose and removed at the end. A write counts
when its answer arrived: on disk on a majority, applied. Clients are coroutines over ``--connections`` connections of
one process, which shares the machine with whatever servers run on it: state the machine with the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any

from bench.loopback import Loopback
from hasys.api.client import Client, load_context
from hasys.api.kinds import Ref
from hasys.v1 import objects_pb2 as pb

GROUP = "bench-writes"


def delay(number: int, nanos: int) -> pb.Object:
    """A Delay whose duration makes each write a change."""
    obj = pb.Object()
    obj.delay.metadata.name = f"d{number}"
    obj.delay.metadata.group = GROUP
    obj.delay.spec.duration.nanos = nanos
    return obj


async def write(client: Client, number: int, until: float, latencies: list[float]) -> None:
    """One client: write after write until a time."""
    nanos = 0
    while (begun := time.perf_counter()) < until:
        nanos += 1
        await client.apply([delay(number, nanos)])
        latencies.append(time.perf_counter() - begun)


async def measure(
    clients: list[Client], count: int, seconds: float, cluster: Loopback | None
) -> dict[str, float | dict[str, float]]:
    """Rate and latencies (milliseconds) of ``count`` writers, and what one write cost each process (milliseconds)."""
    latencies: list[float] = []
    before = cluster.cpu() if cluster else {}
    begun = time.perf_counter()
    cpu = time.process_time()
    until = begun + seconds
    await asyncio.gather(*(write(clients[i % len(clients)], i, until, latencies) for i in range(count)))
    elapsed = time.perf_counter() - begun
    latencies.sort()
    return {
        "clients": count,
        "writes": len(latencies),
        "per_second": len(latencies) / elapsed,
        "median_ms": statistics.median(latencies) * 1e3,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3,
        "worst_ms": latencies[-1] * 1e3,
        "cpu_ms": {
            "client": (time.process_time() - cpu) / len(latencies) * 1e3,
            **{n: (t - before[n]) / len(latencies) * 1e3 for n, t in (cluster.cpu() if cluster else {}).items()},
        },
    }


async def prepared(client: Client) -> None:
    """The group that the writes go to: paused, so that nobody starts it."""
    nodes = [obj.node for obj in (await client.list("Node")).objects]
    group = pb.Object()
    group.group.metadata.name = GROUP
    group.group.spec.failover.mode = pb.Failover.Manual
    group.group.spec.nodes.add(name=next(n.metadata.name for n in nodes if n.spec.role != pb.NodeSpec.Witness))
    await client.apply([group])


async def run(arguments: argparse.Namespace, cluster: Loopback | None) -> list[dict[str, Any]]:
    """Prepare, measure, remove."""
    context = load_context(cluster.context if cluster else arguments.context)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(context)) for _ in range(arguments.connections)]
        await prepared(clients[0])
        for client in clients:
            await client.list("Group")  # connects, and learns where the leader is
        try:
            return [
                await measure(clients[:1], 1, arguments.seconds, cluster),
                await measure(clients, arguments.clients, arguments.seconds, cluster),
            ]
        finally:
            await clients[0].delete(Ref("Group", "", GROUP))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Durable writes through the API of a running cluster.")
    parser.add_argument("--context", type=Path, help="client.yaml of the cluster; default: one made for this run")
    parser.add_argument("--profile", type=Path, help="a folder for a cProfile of each store of the cluster made here")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with nullcontext() if arguments.context else Loopback(arguments.profile) as cluster:
        results = asyncio.run(run(arguments, cluster))
    print(f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}, load before {load:.1f}")
    for one in results:
        print(
            f"{one['clients']:3.0f} clients: {one['per_second']:7.0f} writes/s,"
            f" median {one['median_ms']:.2f} ms, p99 {one['p99_ms']:.2f} ms, worst {one['worst_ms']:.1f} ms"
            f" (ms of processor per write: {', '.join(f'{n} {ms:.2f}' for n, ms in one['cpu_ms'].items())})"
        )
    if arguments.json:
        data: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count(), "results": results}
        arguments.json.write_text(json.dumps(data, indent=2))


if __name__ == "__main__":
    main()
