"""The stand-in of the guard, as the agent's tests use it."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from hasys.guard import protocol
from hasys.guard.protocol import Hello
from tests.lab.standin import StandInGuard

pytestmark = pytest.mark.anyio


async def test_an_agent_that_is_killed_with_answers_unread_ends_its_connection_and_nothing_else(tmp_path: Path) -> None:
    guard = StandInGuard()
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await guard.serve(reader, writer)
        ended.set()

    async with await asyncio.start_unix_server(serve, tmp_path / "guard.sock"):
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(str(tmp_path / "guard.sock"))
            agent.sendall(json.dumps({"id": 1, **protocol.request_to_json(Hello(1, "/agent"))}).encode() + b"\n")
            await guard.news.wait()
        async with asyncio.timeout(10):
            await ended.wait()
