"""The guard's event loop: descriptors and timers, one thread, and a measure of how late it woke.

Smaller than asyncio on purpose: what happens between a timer and its effect fits on one page.
"""

from __future__ import annotations

import heapq
import itertools
import select
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW = 30.0
"""Seconds. The worst lag is remembered for one to two windows."""


@dataclass(order=True, slots=True)
class Timer:
    """A call that is due at ``when`` (seconds of the loop's clock)."""

    when: float
    order: int
    call: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Harmless when it has run already."""
        self.call = None


class Lag:
    """By how much timers ran late: the worst of the last minute, in seconds."""

    def __init__(self) -> None:
        self.last = 0.0
        """Of the last timer."""
        self._since = 0.0
        self._before = self._current = 0.0

    def saw(self, late: float, now: float) -> None:
        """A timer ran ``late`` seconds after its time."""
        self.last = late
        if now - self._since > WINDOW:
            self._before = self._current if now - self._since < 2 * WINDOW else 0.0
            self._since, self._current = now, 0.0
        self._current = max(self._current, late)

    @property
    def worst(self) -> float:
        return max(self._before, self._current)


class Loop:
    """Level-triggered epoll and a heap of timers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.lag = Lag()
        self._clock = clock
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._order = itertools.count()
        self._running = False

    def reader(self, fd: int, call: Callable[[], None]) -> None:
        """Call whenever ``fd`` can be read."""
        self._readers[fd] = call
        self._epoll.register(fd, select.EPOLLIN)

    def writer(self, fd: int, call: Callable[[], None] | None) -> None:
        """Call whenever ``fd``, which has a reader, can be written; None: no longer."""
        if call is None:
            self._writers.pop(fd, None)
            self._epoll.modify(fd, select.EPOLLIN)
        else:
            self._writers[fd] = call
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)

    def forget(self, fd: int) -> None:
        """Before ``fd`` is closed."""
        if self._readers.pop(fd, None) is not None:
            self._writers.pop(fd, None)
            self._epoll.unregister(fd)

    def at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call once at ``when``."""
        timer = Timer(when, next(self._order), call)
        heapq.heappush(self._timers, timer)
        return timer

    def now(self) -> float:
        """The time of the loop's clock."""
        return self._clock()

    def stop(self) -> None:
        """Return from :meth:`run` after the current call."""
        self._running = False

    def run(self) -> None:
        """Serve until :meth:`stop`. An exception of a callback ends it: nothing is swallowed."""
        self._running = True
        while self._running:
            self.once()

    def once(self) -> None:
        """Wait for the next descriptor or timer and make every call that is due. Timers first: they are the lease."""
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)  # cancelled: nothing to wake for
        timeout = max(0.0, self._timers[0].when - self._clock()) if self._timers else -1
        ready = self._epoll.poll(timeout)
        now = self._clock()
        while self._timers and self._timers[0].when <= now:
            timer = heapq.heappop(self._timers)
            if timer.call is not None:
                self.lag.saw(now - timer.when, now)
                timer.call()
        for fd, events in ready:
            if events & select.EPOLLOUT and (call := self._writers.get(fd)):
                call()
            if events & ~select.EPOLLOUT and (call := self._readers.get(fd)):
                call()
