"""The kernel's side of an address lease: elements of two sets with timeouts, transactions that fail when an element to
be deleted has expired, a clock re-read after each.

An address speaks while its element is alive in BOTH sets. They are refreshed one after the other, each only after the
other was seen to be on time: so at least one of them is right at every instant, wherever the guard is frozen.

Each method is a generator that yields where the guard may be frozen: between reading the clock and the transaction,
and between the transaction and reading the clock again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.sim.grants.world import Clock, World

MARGIN = 0.005
"""Seconds: a timeout is this much shorter than the grant, and a transaction may take this long."""


class LeaseOver(Exception):
    """The element had expired, or the transaction came too late."""


@dataclass(slots=True)
class _Element:
    expires: float
    """True time."""
    epoch: int


class Kernel:
    """Survives the guard, not the machine. ``first`` and ``second`` are the sets of the gate."""

    def __init__(self, world: World, node: str, clock: Clock) -> None:
        self.world, self.node, self.clock = world, node, clock
        self.first: dict[str, _Element] = {}
        self.second: dict[str, _Element] = {}
        self.both = True
        """The address needs an element in both sets; else the second alone lets it speak."""

    def present(self, elements: dict[str, _Element], group: str) -> bool:
        element = elements.get(group)
        return element is not None and element.expires > self.world.now

    def speaks_until(self, group: str) -> float:
        """True time; 0: muted."""
        ends = [s[group].expires if group in s else 0.0 for s in (self.first, self.second)]
        return min(ends) if self.both else ends[1]

    def remaining(self) -> dict[str, float]:
        """What a new guard reads: group -> until when, on the machine's clock."""
        ends = {group: self.speaks_until(group) for group in self.second}
        return {group: self.clock.at(end) for group, end in ends.items() if end > self.world.now}

    def put(self, elements: dict[str, _Element], group: str, epoch: int, timeout: float) -> None:
        """Timeouts are relative: they begin when the transaction runs, not when it was computed."""
        elements[group] = _Element(self.world.now + self.clock.lasts(timeout), epoch)
        self.world.speaks(group, self.node, self.speaks_until(group), epoch)

    def delete(self, group: str) -> None:
        self.first.pop(group, None)
        self.second.pop(group, None)
        self.world.muted(group, self.node)

    def power_off(self) -> None:
        for group in [*self.first, *self.second]:
            self.delete(group)


class Gate:
    """What the guard does to its kernel. Overridden by the seeded faults."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def now(self) -> float:
        return self.kernel.clock.at(self.kernel.world.now)

    def hold(self, group: str, epoch: int, until: float) -> Iterator[None]:
        """First un-mute: the first set arms the timer and lets nothing speak; then the second."""
        k = self.kernel
        if k.present(k.second, group):
            yield from self.extend(group, epoch, until)
            return
        k.delete(group)
        yield from self.put(k.first, group, epoch, until, create=True)
        yield from self.put(k.second, group, epoch, until, create=True)

    def extend(self, group: str, epoch: int, until: float) -> Iterator[None]:
        """Refresh: in each set delete and add in one transaction. Never creates."""
        yield from self.put(self.kernel.first, group, epoch, until, create=False)
        yield from self.put(self.kernel.second, group, epoch, until, create=False)

    def put(
        self, elements: dict[str, _Element], group: str, epoch: int, until: float, *, create: bool
    ) -> Iterator[None]:
        k = self.kernel
        started = self.now()
        left = until - started - MARGIN
        if left <= 0:
            raise LeaseOver
        yield
        if not create and not k.present(elements, group):
            raise LeaseOver
        k.put(elements, group, epoch, left)
        yield
        if self.now() - started > MARGIN:
            k.delete(group)
            raise LeaseOver
