"""True time, drifting clocks, a hostile network, and the one invariant that must hold at every step."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hasys.model.timing import RHO


class Violation(AssertionError):
    """A promise was broken; the text names promise, time and nodes."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A machine's monotonic clock. Only the world knows true time."""

    rate: float
    offset: float

    def at(self, true: float) -> float:
        return self.offset + true * self.rate

    def lasts(self, seconds: float) -> float:
        """True duration of ``seconds`` of this clock."""
        return seconds / self.rate


@dataclass(slots=True)
class Weather:
    """What the network does to one datagram."""

    loss: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    """Probability of a delay up to ``latest`` true seconds instead of a millisecond."""
    latest: float = 0.0


@dataclass
class World:
    """Events in true time. Nothing is random but ``rng``: a seed replays exactly."""

    seed: int
    now: float = 0.0
    weather: Weather = field(default_factory=Weather)
    cuts: set[tuple[str, str]] = field(default_factory=set)
    """(from, to) machines between which nothing arrives."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.trace: list[str] = []
        self.tracing = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.live: dict[str, dict[str, tuple[float, int]]] = {}
        """Group -> node -> (true time until which its kernel lets the address speak, epoch)."""

    # ------------------------------------------------------------------ time

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), call))

    def run(self, until: float) -> None:
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, call = heapq.heappop(events)
            call()
        self.now = until

    def drifting_clock(self) -> Clock:
        rate = self.rng.choice((1 - RHO, 1 + RHO, 1.0, 1 + self.rng.uniform(-RHO, RHO)))
        return Clock(rate, self.rng.uniform(0.0, 1000.0))

    def say(self, text: str) -> None:
        if self.tracing:
            self.trace.append(f"{self.now:8.4f} {text}")

    # ------------------------------------------------------------------ network

    def send(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        """One datagram: may be lost, doubled, late, out of order. Within a machine it only takes a moment."""
        rng, w = self.rng, self.weather
        if source == target:
            self.at(self.now + 0.0001, deliver)
            return
        if (source, target) in self.cuts or rng.random() < w.loss:
            return
        copies = 2 if rng.random() < w.duplicate else 1
        for _ in range(copies):
            delay = rng.uniform(0.0, w.latest) if rng.random() < w.late else rng.uniform(0.0002, 0.002)
            self.at(self.now + delay, deliver)

    # ------------------------------------------------------------------ S1a

    def speaks(self, group: str, node: str, until: float, epoch: int) -> None:
        """From now until ``until`` (true) the kernel of ``node`` lets the address of ``group`` speak."""
        holders = self.live.setdefault(group, {})
        for other, (end, other_epoch) in holders.items():
            if other != node and end > self.now and until > self.now:
                raise Violation(
                    f"S1a: {group} speaks on {node} (epoch {epoch}) at {self.now:.6f} and on {other} "
                    f"(epoch {other_epoch}) until {end:.6f}"
                )
        holders[node] = (until, epoch)

    def muted(self, group: str, node: str) -> None:
        self.live.setdefault(group, {}).pop(node, None)

    def holder(self, group: str) -> str | None:
        """Who speaks now."""
        return next((node for node, (end, _) in self.live.get(group, {}).items() if end > self.now), None)
