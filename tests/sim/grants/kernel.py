"""The kernel's side of an address lease, as hasys/guard/gate.py uses it: elements with relative timeouts, and
transactions that fail as a whole when an element that they delete has expired (docs/decisions/0004: the fuse).

Each method is a generator that yields where the guard may be frozen: around every reading of the clock and every
transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.sim.grants.world import Clock, World

FUSE = 0.02
"""Seconds: a transaction is done this long after the clock was read, or not at all."""
MARGIN = FUSE
"""Seconds: a timeout is this much shorter than the grant."""
ATTEMPTS = 5


class LeaseOver(Exception):
    """The element had expired, or there was not enough time left."""


@dataclass(slots=True)
class _Element:
    expires: float
    """True time."""
    epoch: int


class Kernel:
    """Survives the guard, not the machine."""

    def __init__(self, world: World, node: str, clock: Clock) -> None:
        self.world, self.node, self.clock = world, node, clock
        self.live: dict[str, _Element] = {}
        self.fuse = 0.0
        """True time when it has burnt down."""

    def alive(self, group: str) -> bool:
        element = self.live.get(group)
        return element is not None and element.expires > self.world.now

    def remaining(self) -> dict[str, float]:
        """What a new guard reads: group -> until when, on the machine's clock."""
        return {g: self.clock.at(e.expires) for g, e in self.live.items() if e.expires > self.world.now}

    def light(self, seconds: float) -> None:
        self.fuse = self.world.now + self.clock.lasts(seconds)

    def put(self, group: str, epoch: int, timeout: float) -> None:
        """Timeouts are relative: they begin when the transaction runs, not when it was computed."""
        expires = self.world.now + self.clock.lasts(timeout)
        self.live[group] = _Element(expires, epoch)
        self.world.speaks(group, self.node, expires, epoch)

    def delete(self, group: str) -> None:
        self.live.pop(group, None)
        self.world.muted(group, self.node)

    def power_off(self) -> None:
        for group in [*self.live]:
            self.delete(group)


class Gate:
    """What the guard does to its kernel. Overridden by the seeded faults."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def now(self) -> float:
        return self.kernel.clock.at(self.kernel.world.now)

    def hold(self, group: str, epoch: int, until: float) -> Iterator[None]:
        """First un-mute."""
        yield from self.put(group, epoch, until, create=True)

    def extend(self, group: str, epoch: int, until: float) -> Iterator[None]:
        """Refresh: delete and add in one transaction. Never creates."""
        yield from self.put(group, epoch, until, create=False)

    def put(self, group: str, epoch: int, until: float, *, create: bool) -> Iterator[None]:
        k = self.kernel
        for _ in range(ATTEMPTS):
            k.light(FUSE)
            yield
            left = until - self.now() - MARGIN
            if left <= 0:
                break
            yield
            if k.fuse > k.world.now:
                if not create and not k.alive(group):
                    break
                k.put(group, epoch, left)
                return
        k.delete(group)
        raise LeaseOver
