"""Connections end by age, and nobody notices."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from hasys.api.server import serving
from hasys.api.tls import CONNECTION_AGE_MS, SERVER_OPTIONS
from hasys.v1.api_pb2 import WatchResponse
from tests.unit.api.cluster import running
from tests.unit.api.test_server import group

pytestmark = pytest.mark.anyio


async def test_calls_go_on_over_a_new_connection_and_an_open_watch_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dict(SERVER_OPTIONS)["grpc.max_connection_age_ms"] == CONNECTION_AGE_MS
    options = {**dict(SERVER_OPTIONS), "grpc.max_connection_age_ms": 300}
    monkeypatch.setattr(serving, "SERVER_OPTIONS", tuple(options.items()))
    async with running(tmp_path, ("n1",)) as cluster, asyncio.timeout(20):
        client, (spec,) = await cluster.client(), cluster.specs
        names, synced = asyncio.Queue[str](), asyncio.Event()

        async def watch() -> None:
            async for answer in client.watch(["Group"]):
                for change in answer.changes:
                    if change.type == WatchResponse.SYNCED:
                        assert not synced.is_set(), "the watch began anew"
                        synced.set()
                    elif synced.is_set():
                        names.put_nowait(change.object.group.metadata.name)

        watching = asyncio.create_task(watch())
        await synced.wait()
        used: set[int] = set()
        while len(used) < 3:  # each call works, whichever connection it comes in on
            await client.list("Group")
            used |= {
                one.laddr.port
                for one in psutil.Process(os.getpid()).net_connections("tcp")
                if one.raddr and one.raddr.port == spec.api_port
            }
        await client.apply([group("web", "n1")])
        assert await names.get() == "web"
        watching.cancel()
