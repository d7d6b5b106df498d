"""Where the server listens: every own address, also one that appears later; a taken port is said at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasys.api.server import serving
from hasys.model.errors import Refused
from tests.unit.api.cluster import running

pytestmark = pytest.mark.anyio


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of 127.0.0.1 on which somebody listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_an_address_of_this_machine_is_here_and_another_is_not() -> None:
    assert serving.is_here("127.0.0.1", 0)
    assert not serving.is_here("192.0.2.1", 0)


def test_a_taken_port_is_refused_naming_it(taken: int) -> None:
    with pytest.raises(Refused, match=f"127.0.0.1 port {taken} is in use"):
        serving.is_here("127.0.0.1", taken)


async def test_an_address_that_appears_later_is_served_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []

    def appears_at_the_third_look(address: str, port: int) -> bool:
        attempts.append(address)
        return attempts.count(address) >= 3

    monkeypatch.setattr(serving, "is_here", appears_at_the_third_look)
    monkeypatch.setattr(serving, "BIND_AGAIN", 0.0)
    async with running(tmp_path, ("n1",)) as cluster:
        client = await cluster.client()
        assert len((await client.list("Node")).objects) == 1
        assert len(cluster.members["n1"].server.bound) == 2
    assert len(attempts) == 6


async def test_the_server_ends_every_stream_when_it_stops(tmp_path: Path) -> None:
    async with running(tmp_path, ("n1",)) as cluster:
        client = await cluster.client()
        stream = client.watch(["Node"])
        await anext(stream)
        pending = asyncio.ensure_future(anext(stream))
        await asyncio.wait_for(cluster.members["n1"].stop(), timeout=3.0)
        assert cluster.members["n1"].task is None
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
