"""Floods cost bounded memory and keep nobody out who belongs here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from pathlib import Path

import pytest

from hasys.lease.wire import Grant
from hasys.store.raft.transport import MAX_HANDSHAKES
from tests.unit.api.cluster import Cluster
from tests.unit.lease.test_lease_server import TIMING, Guard, serving
from tests.unit.raft import test_engine as raft

pytestmark = pytest.mark.anyio
CONNECTIONS = 300
PER_CONNECTION = 256 * 1024
"""Bytes that one silent connection may cost."""


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def connect(host: str, port: int, count: int) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    found = []
    for _ in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            await loop.sock_connect(sock, (host, port))
        found.append(sock)
    return found


async def test_many_silent_connections_keep_no_caller_of_the_api_out(served: Cluster) -> None:
    files = served.authority.issue("admin", "admin")
    host, _, port = served.context(files, "n1").servers[0].rpartition(":")
    client = await served.client("admin", "admin", "n1")
    await client.list("Node")
    before = resident()
    flood = await connect(host, int(port), CONNECTIONS)
    late = await served.client("admin", "late", "n1")
    assert len((await late.list("Node")).objects) == 3
    assert resident() - before < CONNECTIONS * PER_CONNECTION
    for sock in flood:
        sock.close()


async def test_many_silent_connections_do_not_stop_consensus(voters: raft.Cluster) -> None:
    port, engine = voters.members[0].raft_port, voters.running["n1"].engine
    before, refused = resident(), engine.refusals
    flood = await connect("127.0.0.1", port, CONNECTIONS)
    assert (await engine.propose(b"goes on", timeout=5)).index
    await voters.until(lambda: engine.refusals - refused >= CONNECTIONS - MAX_HANDSHAKES - 1)
    assert resident() - before < CONNECTIONS * PER_CONNECTION
    for sock in flood:
        sock.close()


async def granted(guard: Guard) -> bool:
    """Does the guard get a grant within a lease, asking as often as it does? A lost keep-alive costs it one turn."""
    for _ in range(int(TIMING.ttl / TIMING.keepalive)):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMING.keepalive):
                return isinstance(await guard.ask(), Grant)
    return False


async def test_a_flood_of_datagrams_delays_no_grant_beyond_a_lease_and_costs_no_memory(tmp_path: Path) -> None:
    async with serving(tmp_path) as setting:
        await setting.n1.ask()
        flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        garbage = [secrets.token_bytes(size) for size in (0, 1, 60, 1400, 60_000)]
        before = resident()
        for round_ in range(40):
            for _ in range(20):
                for piece in garbage:
                    flood.sendto(piece, ("127.0.0.1", setting.port))
            assert await granted(setting.n1), round_
        flood.close()
        assert len(setting.server.refused) <= 8, setting.server.refused
        assert resident() - before < 8 * 2**20
