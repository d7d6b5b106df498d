"""Durable writes through the API of a running cluster: one after the other, then many clients at once.

    python -m bench.api_writes [--context DIR/client/client.yaml] [--seconds 5] [--clients 64] [--json FILE]

Without ``--context`` it starts three stores of its own on loopback (``bench/loopback.py``).

Every write is an apply that changes one Delay of a group made for the purpose and removed at the end; at last each
apply changes ``--batch`` of them. A write counts when its answer arrived: on disk on a majority, applied. Clients are
coroutines over ``--connections`` connections of one process, which shares the machine with whatever servers run on it:
state the machine with the figures. One client uses the client library; many are a load generator that calls the leader
through bare gRPC stubs, so that the machine's time goes to the servers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Any

import grpc

from bench.loopback import Loopback
from hasys.api.client import Client, Context, load_context
from hasys.api.kinds import Ref
from hasys.api.tls import client_credentials
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb

GROUP = "bench-writes"
BATCHES = 4
"""Clients that write many objects at once."""


Write = Callable[[Sequence[pb.Object]], Awaitable[object]]
"""One apply, by whatever way."""


def delay(number: int, nanos: int) -> pb.Object:
    """A Delay whose duration makes each write a change."""
    obj = pb.Object()
    obj.delay.metadata.name = f"d{number}"
    obj.delay.metadata.group = GROUP
    obj.delay.spec.duration.nanos = nanos
    return obj


async def writer(write: Write, number: int, batch: int, until: float, latencies: list[float]) -> None:
    """One client: write after write until a time."""
    objects = [delay(number * batch + i, 0) for i in range(batch)]
    while (begun := time.perf_counter()) < until:
        for obj in objects:
            obj.delay.spec.duration.nanos += 1
        await write(objects)
        latencies.append(time.perf_counter() - begun)


async def measure(
    ways: Sequence[Write], count: int, seconds: float, cluster: Loopback | None, batch: int = 1
) -> dict[str, float | dict[str, float]]:
    """Rate and latencies (milliseconds) of ``count`` clients, and what one object cost each process (milliseconds)."""
    latencies: list[float] = []
    before = cluster.cpu() if cluster else {}
    begun = time.perf_counter()
    cpu = time.process_time()
    until = begun + seconds
    await asyncio.gather(*(writer(ways[i % len(ways)], i, batch, until, latencies) for i in range(count)))
    elapsed = time.perf_counter() - begun
    objects = batch * len(latencies)
    latencies.sort()
    return {
        "clients": count,
        "batch": batch,
        "writes": objects,
        "per_second": objects / elapsed,
        "median_ms": statistics.median(latencies) * 1e3,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3,
        "worst_ms": latencies[-1] * 1e3,
        "cpu_ms": {
            "clients": (time.process_time() - cpu) / objects * 1e3,
            **{n: (t - before[n]) / objects * 1e3 for n, t in (cluster.cpu() if cluster else {}).items()},
        },
    }


async def connect(client: Client, context: Context, connections: int, stack: AsyncExitStack) -> list[Write]:
    """Bare stubs of the leader's Apply, one for each connection."""
    leader = (await client.status()).cluster.leader
    node = (await client.get("Node", leader)).node
    address = node.spec.addresses[0]
    target = f"[{address}]:{node.spec.api_port}" if ":" in address else f"{address}:{node.spec.api_port}"
    credentials = client_credentials(context.ca, context.certificate, context.key)
    return [await _stub(target, credentials, stack) for _ in range(connections)]


async def _stub(target: str, credentials: grpc.ChannelCredentials, stack: AsyncExitStack) -> Write:
    options = ("grpc.use_local_subchannel_pool", 1)  # a connection of its own
    channel = await stack.enter_async_context(grpc.aio.secure_channel(target, credentials, options=[options]))
    call = channel.unary_unary(
        "/hasys.v1.Resources/Apply", api_pb2.ApplyRequest.SerializeToString, api_pb2.ApplyResponse.FromString
    )

    async def write(objects: Sequence[pb.Object]) -> None:
        answer = await call(api_pb2.ApplyRequest(objects=objects))
        assert all(result.action != "unchanged" for result in answer.results)

    return write


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
        client = await stack.enter_async_context(Client(context))
        await prepared(client)
        try:
            ways = await connect(client, context, arguments.connections, stack)
            return [
                await measure([client.apply], 1, arguments.seconds, cluster),
                await measure(ways, arguments.clients, arguments.seconds, cluster),
                await measure(ways, BATCHES, arguments.seconds, cluster, arguments.batch),
            ]
        finally:
            await client.delete(Ref("Group", "", GROUP))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Durable writes through the API of a running cluster.")
    parser.add_argument("--context", type=Path, help="client.yaml of the cluster; default: one made for this run")
    parser.add_argument("--profile", type=Path, help="a folder for a cProfile of each store of the cluster made here")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with nullcontext() if arguments.context else Loopback(arguments.profile) as cluster:
        results = asyncio.run(run(arguments, cluster))
    print(f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}, load before {load:.1f}")
    for one in results:
        print(
            f"{one['clients']:3.0f} clients, {one['batch']:3.0f} in each: {one['per_second']:7.0f} writes/s,"
            f" median {one['median_ms']:.2f} ms, p99 {one['p99_ms']:.2f} ms, worst {one['worst_ms']:.1f} ms"
            f" (ms of processor per object: {', '.join(f'{n} {ms:.2f}' for n, ms in one['cpu_ms'].items())})"
        )
    if arguments.json:
        data: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count(), "results": results}
        arguments.json.write_text(json.dumps(data, indent=2))


if __name__ == "__main__":
    main()
