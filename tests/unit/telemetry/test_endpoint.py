"""The page for Prometheus: read-only, and garbage on its port does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from hasys.telemetry import endpoint
from hasys.telemetry.endpoint import CONNECTIONS, REQUEST, Endpoint

pytestmark = pytest.mark.anyio


async def page() -> bytes:
    return b"hasys_up 1\n"


@asynccontextmanager
async def serving() -> AsyncIterator[Endpoint]:
    made = Endpoint(page, "127.0.0.1", 0)
    task = asyncio.create_task(made.run())
    await made.ready.wait()
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])


async def ask(at: Endpoint, request: bytes, *, end: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(request)
    if end:
        writer.write_eof()
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_the_page_is_served() -> None:
    async with serving() as at:
        answer = await ask(at, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", end=False)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nhasys_up 1\n")
        head = await ask(at, b"HEAD /metrics?x=1 HTTP/1.1\r\n\r\n", end=False)
        assert b"Content-Length: 11" in head
        assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
        (b"\r\n\r\n", b"405"),
        (b"", b"400"),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"a" * REQUEST + b"\r\n\r\n", b"400"),
    ],
)
async def test_anything_else_is_refused_and_the_page_is_served_afterwards(request_: bytes, code: bytes) -> None:
    async with serving() as at:
        answer = await ask(at, request_)
        assert answer[9:12] in (code, b""), "refused, or cut off while it was still sending"
        assert (await ask(at, b"GET /metrics HTTP/1.1\r\n\r\n")).endswith(b"hasys_up 1\n")


async def test_connections_that_say_nothing_are_bounded_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.2)
    async with serving() as at:
        silent = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(CONNECTIONS)]
        assert await ask(at, b"GET /metrics HTTP/1.1\r\n\r\n") == b"", "one too many is closed without a word"
        for reader, writer in silent:
            with suppress(ConnectionError):  # aborted
                assert await reader.read() == b""
            writer.close()
        assert (await ask(at, b"GET /metrics HTTP/1.1\r\n\r\n")).endswith(b"hasys_up 1\n")
