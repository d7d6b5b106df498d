"""A TCP port: does it take connections, and does it answer as expected?"""

from __future__ import annotations

import time

import anyio

from hasys.monitors.port import Check, Found
from hasys.v1 import monitors_pb2 as mpb

ANSWER = 64 * 1024
"""Most bytes of an answer that are looked at."""


class TcpCheck(Check):
    """See the module."""

    def __init__(self, spec: mpb.TcpMonitor) -> None:
        self._spec = spec
        self._host = spec.host or "127.0.0.1"

    async def look(self) -> Found:
        where = f"{self._host} port {self._spec.port}"
        begun = time.monotonic()
        try:
            stream = await anyio.connect_tcp(self._host, self._spec.port)
        except OSError:
            return Found(f"{where} takes no connection")
        async with stream:
            if self._spec.send:
                await stream.send(self._spec.send.encode())
            answered = not self._spec.expect or await self._expected(stream)
        took = (time.monotonic() - begun) * 1000
        return Found("" if answered else f"{where} does not answer as expected", f"{took:.0f} ms", took, "ms")

    async def _expected(self, stream: anyio.abc.SocketStream) -> bool:
        """Read until what is expected has come, or nothing more comes."""
        wanted, seen = self._spec.expect.encode(), b""
        while len(seen) < ANSWER:
            try:
                seen += await stream.receive(4096)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                break
            if wanted in seen:
                return True
        return False
