"""The page that Prometheus reads: GET /metrics, nothing else. Plain HTTP, read-only, bounded in every direction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("hasys.telemetry")

REQUEST = 8 * 1024
"""Most bytes of a request with its headers."""
PATIENCE = 5.0
"""Seconds that a request, and the sending of the answer, may take."""
CONNECTIONS = 16
"""At once; further ones are closed without a word."""
RETRY = 5.0
"""Seconds until an address that is not there is tried again."""

Page = Callable[[], Awaitable[bytes]]
CONTENT = "text/plain; version=0.0.4; charset=utf-8"


class Endpoint:
    """Serves ``page`` on one address."""

    def __init__(self, page: Page, address: str, port: int) -> None:
        self._page = page
        self.address, self.port = address, port
        self._open = 0
        self.ready = asyncio.Event()
        """It listens."""

    async def run(self) -> None:
        """Serve until cancelled; an address that cannot be had yet is tried again."""
        said = ""
        while True:
            try:
                server = await asyncio.start_server(self._serve, self.address, self.port, limit=REQUEST)
            except OSError as e:
                if str(e) != said:
                    said = str(e)
                    log.warning("metrics: cannot serve on %s port %d yet: %s", self.address, self.port, e.strerror)
                await asyncio.sleep(RETRY)
                continue
            self.port = server.sockets[0].getsockname()[1]
            log.info("metrics: http://%s:%d/metrics", self.address, self.port)
            self.ready.set()
            async with server:
                await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS:
                async with asyncio.timeout(PATIENCE):
                    writer.write(await self._answer(reader))
                    await writer.drain()
            writer.close()
        except (TimeoutError, ConnectionError):
            writer.transport.abort()  # what was not read by then is thrown away
        finally:
            self._open -= 1

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return _response(400, b"this is no HTTP request\n")
        method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
        target = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response(405, b"this page is only read\n")
        if target != b"/metrics":
            return _response(404, b"there is /metrics here and nothing else\n")
        page = await self._page()
        return _response(200, page, with_body=method == b"GET")


_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


def _response(code: int, body: bytes, *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {CONTENT}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (body if with_body else b"")
