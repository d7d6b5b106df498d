"""One TCP connection through a proxy, and what the toxics do to it. Semantics as Toxiproxy's README states them."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

CHUNK = 32 * 1024
"""Most bytes read at once."""
QUEUED = 64
"""Chunks under way in one direction before the sender has to wait."""
PIECE = 0.05
"""Seconds of transmission that the bandwidth toxic lets through in one go."""

ATTRIBUTES: dict[str, dict[str, int]] = {
    "latency": {"latency": 0, "jitter": 0},
    "bandwidth": {"rate": 0},
    "slow_close": {"delay": 0},
    "timeout": {"timeout": 0},
    "reset_peer": {"timeout": 0},
    "limit_data": {"bytes": 0},
}
"""Each type that is known, with its attributes and their defaults (milliseconds, KB/s, bytes)."""


@dataclass(slots=True, eq=False)
class Toxic:
    """One fault on one direction of every connection of a proxy."""

    name: str
    type: str
    stream: str
    toxicity: float
    attributes: dict[str, int]

    def seconds(self, attribute: str) -> float:
        """An attribute in milliseconds."""
        return self.attributes[attribute] / 1000

    def shown(self) -> dict[str, object]:
        """As the HTTP API shows it."""
        return {
            "attributes": self.attributes, "name": self.name, "type": self.type, "stream": self.stream,
            "toxicity": self.toxicity,
        }  # fmt: skip


@dataclass(eq=False)
class Link:
    """One direction of one connection: reads at one end, writes at the other, lets the toxics act in between."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    toxics: Callable[[], list[Toxic]]
    """Those of this direction, as they are now."""
    drop: Callable[[bool], None]
    """End the whole connection; True: with a reset."""
    _chosen: dict[Toxic, bool] = field(default_factory=dict)
    _sent: dict[Toxic, int] = field(default_factory=dict)
    _timers: dict[Toxic, asyncio.TimerHandle] = field(default_factory=dict)
    _queue: asyncio.Queue[tuple[float, bytes]] = field(default_factory=lambda: asyncio.Queue(QUEUED))

    async def run(self) -> None:
        """Until either end closes."""
        self.toxics_changed()
        reading = asyncio.create_task(self._read())
        try:
            await self._write()
        finally:
            reading.cancel()
            for timer in self._timers.values():
                timer.cancel()
            self.writer.close()

    def toxics_changed(self) -> None:
        """A timeout acts on an idle connection too; when it is taken away, the connection ends (what was dropped
        cannot be brought back)."""
        now = {toxic for toxic in self._active() if toxic.type == "timeout"}
        for toxic in [t for t in self._timers if t not in now]:
            self._timers.pop(toxic).cancel()
            self.drop(False)
        loop = asyncio.get_running_loop()
        for toxic in now - set(self._timers):
            after = toxic.seconds("timeout") or 1e9
            self._timers[toxic] = loop.call_later(after, self.drop, False)

    def _active(self) -> list[Toxic]:
        """Toxicity is the chance that a toxic is applied to a connection at all."""
        for toxic in self.toxics():
            if toxic not in self._chosen:
                self._chosen[toxic] = random.random() < toxic.toxicity
        return [toxic for toxic in self.toxics() if self._chosen[toxic]]

    async def _read(self) -> None:
        loop, data = asyncio.get_running_loop(), b"-"
        while data:
            try:
                data = await self.reader.read(CHUNK)
            except OSError:
                data = b""
            await self._queue.put((loop.time(), data))

    async def _write(self) -> None:
        data = b"-"
        with suppress(OSError):
            while data:
                read_at, data = await self._queue.get()
                if not await self._suffer(read_at, data):
                    return

    async def _suffer(self, read_at: float, data: bytes) -> bool:
        """Pass one chunk on (an empty one is the end), through every toxic. False: the connection is over."""
        for toxic in self._active():
            if toxic.type == "timeout":
                return bool(data)  # dropped
            if toxic.type == "reset_peer":
                await asyncio.sleep(toxic.seconds("timeout"))
                self.drop(True)
                return False
            if toxic.type == "latency" and data:
                await self._delay(toxic, read_at)
            elif toxic.type == "slow_close" and not data:
                await asyncio.sleep(toxic.seconds("delay"))
            elif toxic.type == "limit_data" and data:
                data = data[: self._left(toxic, len(data))]
                if not data:
                    self.drop(False)
                    return False
        await self._send(data)
        return self._within_limits(data)

    async def _delay(self, toxic: Toxic, read_at: float) -> None:
        jitter = toxic.seconds("jitter")
        until = read_at + toxic.seconds("latency") + random.uniform(-jitter, jitter)
        await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))

    def _left(self, toxic: Toxic, wanted: int) -> int:
        sent = self._sent.get(toxic, 0)
        allowed = max(0, min(wanted, toxic.attributes["bytes"] - sent))
        self._sent[toxic] = sent + allowed
        return allowed

    def _within_limits(self, data: bytes) -> bool:
        if any(t.type == "limit_data" and self._sent.get(t, 0) >= t.attributes["bytes"] for t in self._active()):
            self.drop(False)
            return False
        return bool(data)

    async def _send(self, data: bytes) -> None:
        rates = [t.attributes["rate"] for t in self._active() if t.type == "bandwidth"]
        if not rates:
            self.writer.write(data)
            await self.writer.drain()
            return
        rate = max(1, min(rates)) * 1000
        piece = max(1, int(rate * PIECE))
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            await asyncio.sleep(len(part) / rate)
            self.writer.write(part)
            await self.writer.drain()


class Connection:
    """Both directions."""

    def __init__(
        self, client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter], toxics: Callable[[str], list[Toxic]],
    ) -> None:  # fmt: skip
        self._writers = (client[1], server[1])
        self.links = (
            Link(client[0], server[1], lambda: toxics("upstream"), self.drop),
            Link(server[0], client[1], lambda: toxics("downstream"), self.drop),
        )

    async def run(self) -> None:
        """Until both directions have ended."""
        await asyncio.gather(*(link.run() for link in self.links))

    def toxics_changed(self) -> None:
        """Let timers begin and end."""
        for link in self.links:
            link.toxics_changed()

    def drop(self, reset: bool) -> None:
        """Close both ends at once; with ``reset`` by RST instead of FIN."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if reset and sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if reset:
                writer.transport.abort()
            else:
                writer.close()
