"""Where engines are put to the test: one stage per engine, all with the same few handles."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hasys.config import Member, NodeConfig
from hasys.model.timing import PROFILES
from hasys.store.machine import Machine
from hasys.store.main import MeasuredEngine
from hasys.store.memory import MemoryEngine
from hasys.store.port import Engine
from hasys.store.watch import WatchHub
from tests.certs import issue, make_ca

NAMES = ("n1", "n2", "n3")


@dataclass
class Seat:
    """One member: its engine, the state machine behind it, and the task that runs the engine."""

    name: str
    engine: Engine
    machine: Machine
    hub: WatchHub
    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


class Stage(Protocol):
    """Members of one log. ``seats`` has those that run."""

    seats: dict[str, Seat]

    async def start(self) -> None:
        """Start every member; return when one leads."""
        ...

    async def lose_majority(self) -> None:
        """From now on there is no majority. At least one member still runs."""
        ...

    async def another_leader(self) -> None:
        """The leader is lost; return when there is one in a later term."""
        ...

    async def restart(self) -> None:
        """Every member stops and starts with what it has stored."""
        ...

    async def stop(self) -> None: ...


def leader(stage: Stage) -> Seat | None:
    return next((s for s in stage.seats.values() if s.engine.authority() is not None), None)


async def until(stage: Stage, condition: Callable[[], bool], limit: float = 20.0) -> None:
    """Wait for the engines' own notices, not for time."""
    async with asyncio.timeout(limit):
        while not condition():
            notice = asyncio.get_running_loop().create_future()

            def notify(*_: object, notice: asyncio.Future[None] = notice) -> None:
                if not notice.done():
                    notice.set_result(None)

            for seat in stage.seats.values():
                seat.engine.on_change(notify)
                seat.engine.on_applied(notify)
            await notice


async def leading(stage: Stage) -> Seat:
    """The leader, once there is one."""
    await until(stage, lambda: leader(stage) is not None)
    found = leader(stage)
    assert found is not None
    return found


class MemoryStage:
    """The engine without consensus: one member."""

    def __init__(self, folder: Path) -> None:
        self.seats: dict[str, Seat] = {}

    @property
    def engine(self) -> MemoryEngine:
        engine = self.seats["n1"].engine
        assert isinstance(engine, MemoryEngine)
        return engine

    async def start(self) -> None:
        machine = Machine()
        engine = MemoryEngine(machine)
        self.seats["n1"] = Seat("n1", engine, machine, WatchHub(machine), asyncio.create_task(engine.run()))

    async def lose_majority(self) -> None:
        self.engine.elect(None)

    async def another_leader(self) -> None:
        self.engine.elect(None)
        self.engine.elect("n1")

    async def restart(self) -> None:
        """What is in memory is all that it stores."""
        await self.seats["n1"].stop()
        self.seats["n1"].task = asyncio.create_task(self.engine.run())

    async def stop(self) -> None:
        await self.seats["n1"].stop()


class RaftStage:
    """Three members on loopback, with real mutual TLS and real files."""

    def __init__(self, folder: Path) -> None:
        self.seats: dict[str, Seat] = {}
        self._folder = folder
        ports = free_ports(len(NAMES))
        members = tuple(Member(n, "Voter", ("127.0.0.1",), raft_port=p) for n, p in zip(NAMES, ports, strict=True))
        ca = make_ca("conformance")
        self._configs = {}
        for name in NAMES:
            files, base = issue(ca, folder / name, name), folder / name
            self._configs[name] = NodeConfig(
                path=base / "node.yaml", cluster="test", cluster_id="conformance", name=name, members=members,
                profile="default", ca=files.ca, certificate=files.certificate, key=files.key, lease_secret=base / "x",
                node_secret=base / "x", data_dir=base / "data", run_dir=base / "run",
            )  # fmt: skip

    async def start(self) -> None:
        for name in NAMES:
            self._start(name)
        await leading(self)

    def _start(self, name: str) -> None:
        machine, config = Machine(), self._configs[name]
        engine = MeasuredEngine(config, PROFILES["default"], machine, data_dir=config.data_dir)
        self.seats[name] = Seat(name, engine, machine, WatchHub(machine), asyncio.create_task(engine.run()))

    async def lose_majority(self) -> None:
        stays = (await leading(self)).name
        for name in [n for n in self.seats if n != stays]:
            await self.seats.pop(name).stop()

    async def another_leader(self) -> None:
        await self.seats.pop((await leading(self)).name).stop()
        await leading(self)

    async def restart(self) -> None:
        await self.stop()
        self.seats.clear()
        await self.start()

    async def stop(self) -> None:
        await asyncio.gather(*(seat.stop() for seat in self.seats.values()))


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


STAGES: dict[str, Callable[[Path], Stage]] = {"memory": MemoryStage, "raft": RaftStage}
ENGINES: dict[str, type] = {"memory": MemoryEngine, "raft": MeasuredEngine}
"""What each stage puts to the test: every engine that there is."""
