"""Clients that watch, on the real hub: its coroutines run on a small event loop of virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from hasys.api.kinds import Ref, inner, ref_of
from hasys.store.watch import Ended, Relist, WatchHub
from hasys.v1.api_pb2 import Change, WatchResponse
from tests.sim.store.checks import Violation, matching

if TYPE_CHECKING:
    from tests.sim.store.world import Member, StoreWorld

_SIGNS = (WatchResponse.SYNCED, WatchResponse.PROGRESS)


class _Future(asyncio.Future[Any]):
    """Hashed by number: the hub keeps futures in a set, and places in memory must not decide the order of events."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as the hub needs, on the world's time and one machine's clock."""

    def __init__(self, world: StoreWorld, local: Callable[[], float]) -> None:
        self._world, self._local = world, local

    def time(self) -> float:
        return self._local()

    def create_future(self) -> asyncio.Future[Any]:
        future = _Future(loop=self)
        future.number = self._world.next_number()
        return future

    def call_soon(  # type: ignore[override]  # the arguments' types are not tied to the callback's here
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self._later(0.0, asyncio.Handle(callback, args, self, context))

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._later(max(0.0, when - self.time()) + 1e-6, handle)
        return handle

    def _later(self, delay: float, handle: asyncio.Handle) -> asyncio.Handle:
        self._world.at(delay, lambda: None if handle.cancelled() else handle._run())
        return handle

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What a callback found ends the history."""
        raise context["exception"]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled handles stay in the world's queue and do nothing."""

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine up to its next wait."""
        asyncio._set_running_loop(self)
        try:
            return coroutine.send(None)
        finally:
            asyncio._set_running_loop(None)


class Watcher:
    """Keeps one watch open: resumes where it was, on any member, and lists again when told to."""

    def __init__(self, world: StoreWorld, kinds: tuple[str, ...]) -> None:
        self.world, self.kinds = world, kinds
        self.version = 0
        """Everything up to here was seen."""
        self.position = 0
        """In the reference's changes: the next one that may come."""
        self.answers = self.relists = self.resumed = 0
        self._listing: dict[Ref, int] | None = None
        self._stream: AsyncIterator[WatchResponse] | None = None
        self._step: Any = None
        self._member: Member | None = None
        self._life = -1
        self._slow = world.clients.choice((0.0, 0.02, 0.5))
        self.retry()

    # ------------------------------------------------------------ the stream
    def retry(self) -> None:
        self._stream = self._step = None
        self.world.at(self.world.clients.uniform(0.005, 0.2), self.connect)

    def connect(self) -> None:
        running = [m for m in self.world.members() if m.core is not None]
        if not running:
            self.retry()
            return
        self._member = member = self.world.clients.choice(running)
        self._life = member.life
        assert member.hub is not None
        hub: WatchHub = member.hub
        try:
            self._stream = hub.watch(self.kinds, start=self.version)
        except Relist:
            self._start_again()
            return
        if self.version:
            self.resumed += 1
        else:
            self._listing = {}
        self.advance()

    def _start_again(self) -> None:
        reachable = self._member is not None and self._member.hub is not None
        behind = reachable and self.version > self._member.state.revision  # type: ignore[union-attr]
        if not behind:  # a member that lags cannot serve this version: another can
            self.version = 0
            self.relists += 1
        self.retry()

    def advance(self) -> None:
        """Take the next answer, or wait for it."""
        member = self._member
        if member is None or member.life != self._life or member.core is None or self._stream is None:
            self.retry()
            return
        if self.world.is_frozen(member):
            self.world.at(member.frozen_until - self.world.now, self.advance)
            return
        if self._step is None:
            self._step = self._stream.__anext__()
        try:
            waits = member.loop.run(self._step)
        except StopIteration as done:
            self._step = None
            self._answer(done.value)
            self.world.at(self.world.clients.uniform(0.0, self._slow), self.advance)
        except Relist:
            self._start_again()
        except (Ended, StopAsyncIteration):
            self.retry()
        else:
            waits.add_done_callback(lambda _: self.advance())

    # ------------------------------------------------------------ the check
    def _answer(self, answer: WatchResponse) -> None:
        self.answers += 1
        for change in answer.changes:
            if self._listing is not None:
                self._list(change, answer.resource_version)
            elif change.type not in _SIGNS:
                self._next(change)
        if self._listing is None:
            self.version = answer.resource_version
            self._complete()

    def _list(self, change: Change, version: int) -> None:
        assert self._listing is not None
        if change.type == WatchResponse.ADDED:
            self._listing[ref_of(change.object)] = inner(change.object).metadata.resource_version
            return
        reference = self.world.checker.reference
        state = {r: v for r, v in reference.state_at(version).items() if not self.kinds or r.kind in self.kinds}
        if state != self._listing:
            raise Violation(f"watch: the list at version {version} is not the state at that version")
        self.position = reference.position_after(version)
        self._listing = None

    def _next(self, change: Change) -> None:
        """In order, without a gap."""
        changes = self.world.checker.reference.changes
        while self.position < len(changes):
            index, expected = changes[self.position]
            self.position += 1
            if not matching([(index, expected)], self.kinds):
                continue
            got = (change.type, ref_of(change.object), inner(change.object).metadata.resource_version)
            if got != (expected.type, expected.ref, index):
                raise Violation(f"watch: {expected.ref} of entry {index} was to come, {got[1]} of {got[2]} came")
            return
        raise Violation("watch: a change came that no member has applied")

    def _complete(self) -> None:
        reference = self.world.checker.reference
        end = reference.position_after(self.version)
        missing = matching(reference.changes[self.position : end], self.kinds)
        if missing:
            raise Violation(f"watch: {missing[0][1].ref} of entry {missing[0][0]} was skipped at {self.version}")

    def has_seen_all(self) -> bool:
        """Nothing is left to come."""
        reference = self.world.checker.reference
        return self._listing is None and not matching(reference.changes[self.position :], self.kinds)
