"""A guard that is cut from the leader alone keeps its lease by way of another store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hasys.config import Member, NodeConfig
from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.lease.wire import Grant, KeepAlive, encode
from hasys.store.leases import LeaseServer
from tests.unit.lease.test_lease_server import SECRET, TIMING, Engine, Guard

pytestmark = pytest.mark.anyio

GUARD, LEADER, WITNESS = "127.0.0.1", "127.0.0.3", "127.0.0.5"


def free_port(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class CutOff:
    """n1's guard reaches the witness only; n2 leads."""

    def __init__(self, folder: Path) -> None:
        self.members = (
            Member("n1", "Voter", (GUARD,), lease_port=free_port(GUARD)),
            Member("n2", "Voter", (LEADER,), lease_port=free_port(LEADER)),
            Member("w", "Witness", (WITNESS,), lease_port=free_port(WITNESS)),
        )
        (folder / "lease.secret").write_text(SECRET.hex())
        self.folder = folder
        self.assignments = Assignments({"web": GroupAssignment("n1", 1, 7)})
        self.leader, self.witness = Engine(), Engine()
        self.witness.leading = False
        self.servers = [self.serve("n2", self.leader), self.serve("w", self.witness)]
        self.guard = Guard("n1", (GUARD,), self.members[2].lease_port)

    def serve(self, name: str, engine: Engine) -> LeaseServer:
        x = self.folder / "x"
        secret = self.folder / "lease.secret"
        config = NodeConfig(x, "demo", "c1", name, self.members, "default", x, x, x, secret, x, x, x)
        return LeaseServer(config, engine, lambda: self.assignments, TIMING)

    def say(self) -> KeepAlive:
        """A keep-alive to the witness alone."""
        message, _ = self.guard.keeper.keepalive(self.guard.now())
        self.guard.sockets[0].sendto(encode(message, self.guard.key), (WITNESS, self.members[2].lease_port))
        return message

    async def grant(self) -> Grant:
        """The next grant that reaches the guard; hints are passed over."""
        while True:
            answer = await self.guard.answer()
            if isinstance(answer, Grant):
                return answer


@asynccontextmanager
async def cut_off(folder: Path) -> AsyncIterator[CutOff]:
    it = CutOff(folder)
    tasks = [asyncio.create_task(server.run()) for server in it.servers]
    await asyncio.sleep(0)
    try:
        yield it
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        it.guard.close()


async def test_grants_come_by_way_of_a_store_that_follows(tmp_path: Path) -> None:
    async with cut_off(tmp_path) as it:
        it.say()
        assert (await it.grant()).probe
        asked = it.say()
        grant = await it.grant()
        assert (grant.seq, grant.groups) == (asked.seq, (("web", 1, 7),))


async def test_a_push_takes_the_way_of_the_last_keepalive(tmp_path: Path) -> None:
    async with cut_off(tmp_path) as it:
        for _ in range(2):
            it.say()
            await it.grant()
        it.assignments = Assignments({"web": GroupAssignment("n2", 2, 7, "n1", 1, revoked=True)})
        for callback in it.leader.applied:
            callback(10)
        assert (await it.grant()).groups == ()


async def test_a_store_passes_nothing_on_that_another_store_passed_to_it(tmp_path: Path) -> None:
    """Two stores that take each other for the leader must not play ball."""
    async with cut_off(tmp_path) as it:
        it.leader.leading = False
        it.say()
        await it.guard.answer()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.grant(), 0.2)
        assert [server.refused for server in it.servers] == [{}, {}]
