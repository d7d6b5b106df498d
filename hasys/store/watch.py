"""Watches over the state machine: a bounded history that every watcher reads at its own pace.

A watcher costs a position in the history, nothing more: a slow one cannot grow memory. Who falls behind the history's
end, or asks for a version that is older, must list again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice

from hasys.api.kinds import Ref, group_of
from hasys.store.machine import Changed, Machine
from hasys.v1 import objects_pb2 as pb
from hasys.v1.api_pb2 import Change, WatchResponse

HISTORY = 20_000
"""Changes kept to resume from."""
HISTORY_BYTES = 32 * 1024 * 1024
"""Of their objects, encoded: fewer changes are kept when the objects are large."""
BATCH = 500
"""Most changes of one answer."""
BATCH_BYTES = 1024 * 1024
"""An answer is closed once it is larger than this; one object more may follow, still far below the message limit."""
PROGRESS = 15.0
"""Seconds without a matching change after which a watcher is told how far it has seen everything."""


class Relist(Exception):
    """The history does not reach back that far: list again, then watch from there."""


class Ended(Exception):
    """This server stopped serving the watch (it leads no longer, or stops): resume elsewhere."""


class WatchHub:
    """Turns the machine's changes into streams."""

    def __init__(self, machine: Machine, *, history: int = HISTORY, history_bytes: int = HISTORY_BYTES) -> None:
        self._machine = machine
        self._history: deque[tuple[int, Changed]] = deque()
        self._limit = history
        self._limit_bytes = history_bytes
        self._bytes = 0
        self._next = 0
        """Position of the next change; positions count all changes since the start."""
        self._floor = machine.revision
        """Changes after this index are in the history."""
        self._generation = 0
        """Grows when everything was replaced or ended: older watchers stop."""
        self._ended = ""
        self._waiting: set[asyncio.Future[None]] = set()
        self._unsubscribe = machine.subscribe(self._changed)

    def close(self) -> None:
        """End every watch and stop listening."""
        self._unsubscribe()
        self.end_all("the server stops")

    def end_all(self, reason: str) -> None:
        """End every present watch; new ones may begin at once."""
        self._generation += 1
        self._ended = reason
        self._wake()

    @property
    def first(self) -> int:
        """Position of the oldest change kept."""
        return self._next - len(self._history)

    def _changed(self, index: int, changes: Sequence[Changed]) -> None:
        if not changes:
            self._history.clear()
            self._bytes = 0
            self._floor = index
            self.end_all("the state was replaced by a snapshot")
            return
        for change in changes:
            self._history.append((index, change))
            self._bytes += change.object.ByteSize()
        self._next += len(changes)
        while len(self._history) > self._limit or self._bytes > self._limit_bytes:
            self._floor, oldest = self._history.popleft()
            self._bytes -= oldest.object.ByteSize()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def watch(self, kinds: Sequence[str] = (), group: str = "", start: int = 0) -> AsyncIterator[WatchResponse]:
        """Changes of these kinds (none: all) that are about a group (empty: all) after version ``start``. With 0: first
        what there is as ADDED, then SYNCED. Raises :class:`Relist` at once, or later when the watcher is too slow;
        :class:`Ended` when this server stops serving it."""
        wanted = frozenset(kinds)
        if start == 0:
            return self._from_now(wanted, group)
        revision = self._machine.revision
        if start < self._floor or start > revision:
            raise Relist(f"version {start} is out of reach ({self._floor} to {revision}): list again")
        return self._follow(self._position_after(start), wanted, group, start, self._generation)

    def _position_after(self, version: int) -> int:
        """Position of the first change after a version. From the end: who resumes was here a moment ago."""
        position = self._next
        for index, _ in reversed(self._history):
            if index <= version:
                break
            position -= 1
        return position

    async def _from_now(self, wanted: frozenset[str], group: str) -> AsyncIterator[WatchResponse]:
        position, version, generation = self._next, self._machine.revision, self._generation
        for answer in self._listing(wanted, group, version):
            yield answer
        del answer  # this watch may live for months: it keeps nothing of what there was
        async for later in self._follow(position, wanted, group, version, generation):
            yield later

    def _listing(self, wanted: frozenset[str], group: str, version: int) -> Iterator[WatchResponse]:
        """What there is now as ADDED, then SYNCED; all of it as of the first step."""
        answer, size = WatchResponse(resource_version=version), 0
        for obj in self._present(wanted, group):
            change = Change(type=WatchResponse.ADDED, object=obj)
            answer.changes.append(change)
            size += change.ByteSize()
            if len(answer.changes) >= BATCH or size > BATCH_BYTES:
                yield answer
                answer, size = WatchResponse(resource_version=version), 0
        answer.changes.add(type=WatchResponse.SYNCED)
        yield answer

    def _present(self, wanted: frozenset[str], group: str) -> list[pb.Object]:
        kinds = sorted(wanted) if wanted else [""]
        return [obj for kind in kinds for obj in self._machine.list(kind, group)]

    async def _follow(
        self, position: int, wanted: frozenset[str], group: str, version: int, generation: int
    ) -> AsyncIterator[WatchResponse]:
        loop = asyncio.get_running_loop()
        told = loop.time()
        while True:
            if self._generation != generation:
                raise Ended(self._ended)
            if position < self.first:
                raise Relist(f"this watcher is behind the {len(self._history)} changes that are kept: list again")
            if position < self._next:
                position, version, answer = self._collect(position, version, wanted, group)
                if answer.changes:
                    told = loop.time()
                    yield answer
            elif loop.time() - told >= PROGRESS:
                told = loop.time()
                answer = WatchResponse(resource_version=max(version, self._machine.revision))
                answer.changes.add(type=WatchResponse.PROGRESS)
                yield answer
            else:
                await self._news(told + PROGRESS)

    def _collect(
        self, position: int, version: int, wanted: frozenset[str], group: str
    ) -> tuple[int, int, WatchResponse]:
        """The next answer from a position on, and where it ended. Its version is one that is complete in it: an answer
        that ends inside a large command names the version before."""
        answer, size, complete = WatchResponse(), 0, True
        for index, change in islice(self._history, position - self.first, None):
            if len(answer.changes) >= BATCH or size > BATCH_BYTES:
                complete = index != version
                break
            position, version = position + 1, index
            if _matches(change, wanted, group):
                answer.changes.add(type=change.type, object=change.object)
                size += change.object.ByteSize()
        answer.resource_version = version if complete else version - 1
        return position, version, answer

    async def _news(self, until: float) -> None:
        """Wait for a change, or until a time of the loop's clock."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.add(future)
        timer = loop.call_at(until, _resolve, future)
        try:
            await future
        finally:
            timer.cancel()
            self._waiting.discard(future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _matches(change: Changed, wanted: frozenset[str], group: str) -> bool:
    ref: Ref = change.ref
    if wanted and ref.kind not in wanted:
        return False
    return not group or ref.group == group or group_of(change.object) == group
