"""A server with the state in memory, for the command line's tests, run as a process of its own: FOLDER of a node."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

from hasys.api.server import ApiServer
from hasys.config import Member, NodeConfig, load
from hasys.store.machine import Machine
from hasys.store.memory import MemoryEngine
from hasys.store.watch import WatchHub
from hasys.v1 import api_pb2
from tests.unit.api.cluster import seed


async def serve(config: NodeConfig) -> None:
    machine = Machine()
    engine = MemoryEngine(machine, name=config.name)
    engine.elect(config.name)
    seed(engine, machine, tuple(Member(name, "Voter", (f"10.77.0.{i}",)) for i, name in enumerate(("n1", "n2"), 1)))
    server = ApiServer(config, engine, machine, WatchHub(machine), _status)
    serving = asyncio.ensure_future(server.run())
    while not server.bound and not serving.done():  # noqa: ASYNC110  it has no event for this
        await asyncio.sleep(0)
    print("serving", flush=True)
    await serving


def _status(answer: api_pb2.StatusResponse, group: str) -> Iterator[None]:
    answer.cluster.name = "demo"
    yield


if __name__ == "__main__":
    asyncio.run(serve(load(sys.argv[1])))
