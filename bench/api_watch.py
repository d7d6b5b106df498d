"""How many events reach a watcher of a running cluster, and how long after they were written.

    python -m bench.api_watch [--context DIR/client/client.yaml] [--events 10000] [--batch 50]

Without ``--context`` it starts three stores of its own on loopback (``bench/loopback.py``).

Events are recorded by reports of ``--batch`` each, one report after the other, while a watcher listens on a connection
of its own. Both are in this process, which shares the machine with whatever servers run on it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

from bench.loopback import Loopback
from hasys.api.client import Client, load_context
from hasys.v1 import objects_pb2 as pb
from hasys.v1.api_pb2 import WatchResponse

REASON = "Benchmark"


async def listen(client: Client, count: int, listening: asyncio.Event, seen: list[float]) -> None:
    """Collect the delay of each event since its report was begun, in seconds."""
    async for answer in client.watch(["Event"]):
        now = time.perf_counter()
        for change in answer.changes:
            if change.type == WatchResponse.SYNCED:
                listening.set()
            elif listening.is_set() and change.object.event.reason == REASON:
                seen.append(now - float(change.object.event.message))
        if len(seen) >= count:
            return


async def run(arguments: argparse.Namespace, settings: Path) -> None:
    """Write, listen, print."""
    context = load_context(settings)
    async with Client(context) as writer, Client(context) as watcher:
        node = next(obj.node.metadata.name for obj in (await writer.list("Node")).objects)
        listening, seen = asyncio.Event(), list[float]()
        task = asyncio.create_task(listen(watcher, arguments.events, listening, seen))
        await listening.wait()
        begun = time.perf_counter()
        for _ in range(0, arguments.events, arguments.batch):
            event = pb.Event(type="Normal", reason=REASON, message=repr(time.perf_counter()))
            await writer.report(node, events=[event] * arguments.batch)
        await task
        elapsed = time.perf_counter() - begun
    seen.sort()
    print(f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}")
    print(
        f"{len(seen)} events in {elapsed:.2f} s: {len(seen) / elapsed:.0f}/s reached the watcher,"
        f" median {statistics.median(seen) * 1e3:.1f} ms after the report began, worst {seen[-1] * 1e3:.1f} ms"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Events that reach a watcher of a running cluster.")
    parser.add_argument("--context", type=Path, help="client.yaml of the cluster; default: one made for this run")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=50)
    arguments = parser.parse_args()
    print(f"load before {os.getloadavg()[0]:.1f}")
    with nullcontext() if arguments.context else Loopback() as cluster:
        asyncio.run(run(arguments, cluster.context if cluster else arguments.context))


if __name__ == "__main__":
    main()
