"""Is one interface well? From its link, from who answers on it, and from how long ago it was lost. Pure.

Nobody is suspected for one lost answer, and what comes back is not trusted before it has been well for a while, longer
each time it was lost again (in the manner of route flap damping, RFC 2439): a bouncing link moves nothing to and fro.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hasys.model.networks import Fault, Trouble

MISSES = 4
"""Questions in a row without an answer after which a neighbour counts as silent."""
STEADY_FIRST, STEADY_MOST = 1.0, 60.0
"""Seconds that an interface must be well before it counts as well again: doubled with each loss, bounded."""
CALM = 30.0
"""Seconds of being well after which earlier losses are forgotten."""


@dataclass(frozen=True, slots=True, order=True)
class Neighbour:
    """Somebody who should answer on an interface."""

    address: str
    member: str = ""
    """Name of the member of the cluster; empty: it is a gateway."""


@dataclass(slots=True)
class Steadiness:
    """How long it has been well, and how often it was lost."""

    well: bool = False
    since: float = 0.0
    losses: int = 0

    def seen(self, well: bool, now: float) -> bool:
        """Note how it is; returns whether it is well and has been for long enough. The first sight is trusted."""
        if self.well and not well:
            self.losses = 1 if now - self.since >= CALM else self.losses + 1
        if well and not self.well:
            self.since = now
        self.well = well
        return well and now >= self.since + self._wait

    @property
    def _wait(self) -> float:
        return float(min(STEADY_MOST, STEADY_FIRST * 2 ** (min(self.losses, 16) - 1))) if self.losses else 0.0


class Health:
    """One interface."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._steadiness = Steadiness()
        self._missed: dict[Neighbour, int] = {}
        """Questions without an answer, the one just asked included."""

    def asked(self, neighbour: Neighbour) -> None:
        """A question to it left."""
        self._missed[neighbour] = self._missed.get(neighbour, 0) + 1

    def answered(self, address: str) -> None:
        """It answered, or spoke by itself."""
        self._missed |= {n: 0 for n in self._missed if n.address == address}

    @property
    def doubtful(self) -> bool:
        """Somebody owed an answer when it was asked again, and is not silent yet: worth asking sooner."""
        return any(1 < times <= MISSES for times in self._missed.values())

    def look(self, link: str, neighbours: Sequence[Neighbour], now: float) -> Trouble | None:
        """What is wrong; ``link`` says what is wrong with the link ("": nothing)."""
        if link:
            self._missed.clear()  # when it is back everybody gets the time to answer
        self._missed = {n: times for n, times in self._missed.items() if n in neighbours}
        trouble = Trouble(self.interface, Fault.LINK, link) if link else self._heard(neighbours)
        if self._steadiness.seen(trouble is None, now) or trouble is not None:
            return trouble
        return Trouble(self.interface, Fault.UNSTEADY, f"{self.interface} came back a moment ago")

    def _heard(self, neighbours: Sequence[Neighbour]) -> Trouble | None:
        gateways = [n for n in neighbours if not n.member]
        members = [n for n in neighbours if n.member]
        if not neighbours or (gateways and not self._all_silent(gateways)):
            return None
        if not self._all_silent(members):
            addresses = ", ".join(n.address for n in gateways)
            text = f"gateway {addresses} does not answer on {self.interface}"
            return Trouble(self.interface, Fault.GATEWAY, text) if gateways else None
        asked = ", ".join([*(f"gateway {n.address}" for n in gateways), *(n.member for n in members)])
        text = f"nobody answers on {self.interface}, asked were {asked}"
        names = tuple(sorted({n.member for n in members}))
        return Trouble(self.interface, Fault.SILENT, text, names, bool(gateways))

    def _all_silent(self, neighbours: Iterable[Neighbour]) -> bool:
        return all(self._silent(n) for n in neighbours)

    def _silent(self, neighbour: Neighbour) -> bool:
        return self._missed.get(neighbour, 0) > MISSES
