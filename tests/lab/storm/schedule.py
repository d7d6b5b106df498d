"""What happens in a round, drawn from its seed beforehand: pure, so that a seed replays the schedule.

Targets are drawn as roles (``active``, ``standby``, ``witness``, ``leader``) and resolved when the fault strikes, so
that a schedule means the same whoever is Active when the round begins.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

TARGETS = ("active", "standby", "witness", "leader")
ROLES = ("agent", "store", "guard", "node")
CALM = 9.0
"""Seconds from the last strike of a round until the promises about service are judged."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault at one moment."""

    after: float
    """Seconds since the strike before it."""
    fault: str
    target: str
    detail: str = ""
    """Role of a process, name of a network, direction, or the other machine of a partition."""

    def __str__(self) -> str:
        return f"+{self.after:.2f}s {self.fault} {self.target} {self.detail}".rstrip()


_KINDS: tuple[tuple[str, int, tuple[str, ...], tuple[str, ...]], ...] = (
    # fault, weight, targets, details
    ("power off", 3, TARGETS, ()),
    ("pull cables", 2, TARGETS, ("all", "public", "heartbeat")),
    ("lose frames", 4, TARGETS, ("all both", "all in", "all out", "heartbeat both", "heartbeat in", "heartbeat out")),
    ("partition", 3, ("active",), ("standby", "witness", "leader")),
    ("partition", 1, ("standby",), ("witness", "leader")),
    ("freeze", 3, TARGETS, ("hasys", "agent", "store", "guard")),
    ("kill", 4, TARGETS, ROLES),
    ("kill all", 2, TARGETS, ()),
    ("kill application", 2, ("active",), ()),
    ("flush ruleset", 2, ("active", "standby"), ()),
    ("delete address", 1, ("active",), ()),
    ("add address", 1, ("standby",), ()),
    ("burn processor", 1, ("active", "leader"), ()),
    ("switchover", 3, ("standby",), ()),
    ("write", 3, ("active",), ()),
)


def draw(seed: int) -> list[Strike]:
    """The strikes of the round with this seed: two or three, seldom one, close together or seconds apart."""
    chance = random.Random(seed)
    kinds = chance.choices(_KINDS, weights=[k[1] for k in _KINDS], k=chance.choice((1, 2, 2, 2, 3, 3, 3)))
    strikes = []
    for number, (fault, _, targets, details) in enumerate(kinds):
        after = 0.0 if number == 0 else chance.choice((0.0, chance.uniform(0, 0.3), chance.uniform(0, 2), 4.0))
        strikes.append(Strike(after, fault, chance.choice(targets), chance.choice(details) if details else ""))
    return strikes
