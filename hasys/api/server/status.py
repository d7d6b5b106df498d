"""The Status service: what ``hasys status`` shows, once or as a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from hasys.api.server.calls import Call, Method
from hasys.api.server.streams import Streams
from hasys.model.errors import NotFound, Unavailable
from hasys.store.machine import Changed, Machine
from hasys.v1 import api_pb2

StatusSource = Callable[[api_pb2.StatusResponse, str], Iterator[None]]
"""Fills in the status of a group (empty: all), in steps; built on the leader."""

PERIOD = 1.0
"""Seconds between two answers of a stream when nothing changes."""
SPACING = 0.05
"""Shortest time in seconds between two answers of a stream: a burst of changes is one answer. Never shorter than it
took to work the last one out, so that watchers of a large cluster leave half of the processor to it."""
SLICE = 0.005
"""Seconds for which an answer is worked out at a stretch: the same process sends heartbeats."""


class StatusService:
    """Serves on the leader alone."""

    def __init__(self, machine: Machine, source: StatusSource, streams: Streams) -> None:
        self._machine = machine
        self._source = source
        self._streams = streams
        self._changed = asyncio.Event()
        self._generation = 0
        self._ended = ""
        machine.subscribe(self._on_change)

    def methods(self) -> Iterator[Method]:
        """This service's RPCs."""
        base = "/hasys.v1.Status/"
        yield Method(base + "Get", api_pb2.StatusRequest, api_pb2.StatusResponse, self.get)
        yield Method(base + "Watch", api_pb2.StatusRequest, api_pb2.StatusResponse, stream=self.watch)

    def end_all(self, reason: str) -> None:
        """End every present stream; new ones may begin at once."""
        self._generation += 1
        self._ended = reason
        self._notify()

    def poke(self) -> None:
        """Something changed that is not in the replicated state (a lease, a leader): look again."""
        self._notify()

    async def get(self, request: api_pb2.StatusRequest, call: Call) -> api_pb2.StatusResponse:
        """The status as of now. Raises ``NotFound`` for an unknown group."""
        return await self._read(request.group)

    async def watch(self, request: api_pb2.StatusRequest, call: Call) -> AsyncIterator[api_pb2.StatusResponse]:
        """The status now, after each change, and at least each second."""
        with self._streams.opened(call.caller):
            generation = self._generation
            while True:
                changed, begun = self._changed, time.monotonic()
                answer = await self._read(request.group)
                took = time.monotonic() - begun
                yield answer
                await asyncio.sleep(spacing := min(max(SPACING, took), PERIOD))
                try:
                    async with asyncio.timeout(PERIOD - spacing):
                        await changed.wait()
                except TimeoutError:
                    pass
                if self._generation != generation:
                    raise Unavailable(self._ended)

    async def alone(self, request: api_pb2.StatusRequest) -> AsyncIterator[api_pb2.StatusResponse]:
        """As ``watch``, from what this member has stored, while there is no leader; the caller ends it."""
        while True:
            yield await self._read(request.group)
            await asyncio.sleep(PERIOD)

    async def _read(self, group: str) -> api_pb2.StatusResponse:
        """Each part as of the moment when it was read."""
        if group and self._machine.group(group) is None:
            raise NotFound(f"Group {group[:80]!r} does not exist")
        answer, begun = api_pb2.StatusResponse(), time.monotonic()
        for _ in self._source(answer, group):
            if time.monotonic() - begun >= SLICE:
                await asyncio.sleep(0)
                begun = time.monotonic()
        return answer

    def _on_change(self, index: int, changes: Sequence[Changed]) -> None:
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
