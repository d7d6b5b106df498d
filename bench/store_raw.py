"""Raw rate of the consensus engine: three members in processes of their own on loopback, real TLS, real disk.

``python -m bench.store_raw [--seconds 5]`` prints sequential latency, the rate with 64 writers on the leader, the rate
with 16 writers on a follower, and the CPU of an idle member.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hasys.config import Member, NodeConfig
from hasys.model.timing import PROFILES
from hasys.store.raft.engine import RaftEngine
from tests.certs import issue, make_ca

NAMES = ("n1", "n2", "n3")


class Counter:
    """The smallest state machine: it counts."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, index: int, command: bytes) -> bytes:
        self.count += 1
        return b"%d" % self.count

    def snapshot_parts(self) -> Iterator[bytes]:
        return iter((b"%d" % self.count,))

    def restore(self, index: int, data: bytes) -> None:
        self.count = int(data)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def configurations(folder: Path) -> list[NodeConfig]:
    """Three voters on loopback with certificates of one authority."""
    ca = make_ca("bench")
    members = tuple(
        Member(name, "Voter", ("127.0.0.1",), raft_port=port)
        for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)
    )
    found = []
    for name in NAMES:
        files = issue(ca, folder / name, name, ips=("127.0.0.1",))
        found.append(
            NodeConfig(
                path=folder / name / "node.yaml", cluster="bench", cluster_id="bench", name=name, members=members,
                profile="default", ca=files.ca, certificate=files.certificate, key=files.key,
                lease_secret=folder / "none", node_secret=folder / "none", data_dir=folder / name / "data",
                run_dir=folder / name / "run",
            )
        )  # fmt: skip
    return found


async def serve(config: NodeConfig, pipe: Connection) -> None:
    """One member: run the engine, do what comes through the pipe."""
    engine = RaftEngine(config, PROFILES["default"], Counter(), data_dir=config.data_dir)
    running = asyncio.create_task(engine.run())
    loop = asyncio.get_running_loop()
    while not running.done():
        order = await loop.run_in_executor(None, pipe.recv)
        if order == "stop":
            running.cancel()
            break
        pipe.send(await perform(engine, order))
    await asyncio.gather(running, return_exceptions=True)


async def perform(engine: RaftEngine, order: Any) -> Any:
    loop = asyncio.get_running_loop()
    if order == "leader":
        return engine.status().leader
    if order == "cpu":
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    writers, seconds, size = order
    until = loop.time() + seconds
    times: list[float] = []

    async def write() -> None:
        while (start := loop.time()) < until:
            await engine.propose(b"x" * size, timeout=5)
            times.append(loop.time() - start)

    await asyncio.gather(*(write() for _ in range(writers)))
    times.sort()
    return len(times) / seconds, statistics.median(times), times[int(len(times) * 0.99)]


def member(config: NodeConfig, pipe: Connection) -> None:
    asyncio.run(serve(config, pipe))


async def measure(pipes: dict[str, Connection], seconds: float) -> dict[str, Any]:
    leader = None
    while leader is None:
        await asyncio.sleep(0.1)
        leader = ask(pipes["n1"], "leader")
    follower = next(n for n in NAMES if n != leader)
    found: dict[str, Any] = {}
    for title, where, writers in (
        ("sequential on the leader", leader, 1),
        ("64 writers on the leader", leader, 64),
        ("sequential on a follower", follower, 1),
        ("16 writers on a follower", follower, 16),
    ):
        rate, median, p99 = ask(pipes[where], (writers, seconds, 200))
        found[title] = {"per second": round(rate), "median ms": round(median * 1e3, 2), "p99 ms": round(p99 * 1e3, 2)}
    before = {n: ask(p, "cpu") for n, p in pipes.items()}
    await asyncio.sleep(seconds)
    for name, pipe in pipes.items():
        role = "leader" if name == leader else "follower"
        found[f"idle CPU of {name} ({role})"] = f"{(ask(pipe, 'cpu') - before[name]) / seconds:.2%}"
    return found


def ask(pipe: Connection, order: Any) -> Any:
    pipe.send(order)
    return pipe.recv()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        pipes: dict[str, Connection] = {}
        processes = []
        for config in configurations(Path(folder).resolve()):
            ours, theirs = context.Pipe()
            pipes[config.name] = ours
            processes.append(context.Process(target=member, args=(config, theirs), daemon=True))
            processes[-1].start()
        print(json.dumps(asyncio.run(measure(pipes, arguments.seconds)), indent=2))
        for pipe in pipes.values():
            pipe.send("stop")
        for process in processes:
            process.join(5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
