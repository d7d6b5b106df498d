"""The Status service: what ``hasys status`` shows, once or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from hasys.api.server.calls import Call, Method
from hasys.api.server.streams import Streams
from hasys.model.errors import NotFound, Unavailable
from hasys.store.machine import Changed, Machine
from hasys.v1 import api_pb2

StatusSource = Callable[[str], api_pb2.StatusResponse]
"""The status of a group (empty: all); built on the leader."""

PERIOD = 1.0
"""Seconds between two answers of a stream when nothing changes."""
SPACING = 0.05
"""Shortest time in seconds between two answers of a stream: a burst of changes is one answer."""


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
        return self._read(request.group)

    async def watch(self, request: api_pb2.StatusRequest, call: Call) -> AsyncIterator[api_pb2.StatusResponse]:
        """The status now, after each change, and at least each second."""
        with self._streams.opened(call.caller):
            generation = self._generation
            while True:
                changed = self._changed
                yield self._read(request.group)
                await asyncio.sleep(SPACING)
                try:
                    async with asyncio.timeout(PERIOD - SPACING):
                        await changed.wait()
                except TimeoutError:
                    pass
                if self._generation != generation:
                    raise Unavailable(self._ended)

    async def alone(self, request: api_pb2.StatusRequest) -> AsyncIterator[api_pb2.StatusResponse]:
        """As ``watch``, from what this member has stored, while there is no leader; the caller ends it."""
        while True:
            yield self._read(request.group)
            await asyncio.sleep(PERIOD)

    def _read(self, group: str) -> api_pb2.StatusResponse:
        if group and self._machine.group(group) is None:
            raise NotFound(f"Group {group[:80]!r} does not exist")
        return self._source(group)

    def _on_change(self, index: int, changes: Sequence[Changed]) -> None:
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
