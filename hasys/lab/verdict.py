"""Pure judgement over recorded questions: how long was a service away, and did two machines ever hold one address?

**Outage.** The longest time between two consecutive answers *received* by the client, over the window looked at; the
last answer before and the first after the window's ends count. In quiet times it equals the probe period (5 ms), so
an outage is overstated by at most one period. ``blind`` is the longest pause of the probe itself between two
questions (a busy machine): an outage of that length cannot be told from it.

**Two holders.** Every machine is asked, by MAC address, every few milliseconds. An answered question proves that the
machine held the address at some instant between asking and answer. Answers that follow each other within
``CONTINUOUS`` are one *hold*: it lasts at least from the first answer's arrival to the sending of the last answered
question. Two machines held the address at once if such holds of theirs intersect.

- No false alarm: a hold is wrong only if a machine lost the address and had it back within ``CONTINUOUS``; an
  intersecting hold of another machine would then take two changes of hands in 20 ms.
- No miss: an overlap of at least twice the asking period plus the answer time (together below 10 ms) contains two
  answered questions of both machines, and these holds intersect. Only times when the watcher itself paused are dark;
  :func:`pauses` lists them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hasys.lab.records import Question

CONTINUOUS = 0.020
"""Seconds between two answers of one machine that still count as one hold."""


@dataclass(frozen=True, slots=True)
class Outage:
    """What a client saw in a window of time; seconds, monotonic."""

    longest: float
    begin: float
    """Arrival of the last answer before the longest silence."""
    end: float
    """Arrival of the first answer after it (or the window's end when none came)."""
    recovered: bool
    """An answer came after the longest silence."""
    asked: int
    lost: int
    """Questions never answered."""
    blind: float
    """Longest pause of the probe itself."""

    @property
    def felt(self) -> float:
        """The longest silence without the probe's own longest pause: what the product is to blame for at least."""
        return max(0.0, self.longest - self.blind)


def outage(questions: Sequence[Question], start: float, end: float) -> Outage:
    """Judge the window [start, end] of a probe's record. Raises :class:`ValueError` without an answer before."""
    arrivals = sorted(q.received for q in questions if q.received is not None)
    before = [t for t in arrivals if t <= start]
    if not before:
        raise ValueError("no answer before the window: the service did not run yet")
    inside = [t for t in arrivals if start < t <= end]
    after = [t for t in arrivals if t > end]
    edge = after[0] if after else end
    instants = [before[-1], *inside, edge]
    begin, until = max(itertools.pairwise(instants), key=lambda p: p[1] - p[0])
    asked = [q for q in questions if start <= q.sent <= end]
    return Outage(
        longest=until - begin,
        begin=begin,
        end=until,
        recovered=bool(after) or until < edge,
        asked=len(asked),
        lost=sum(q.received is None for q in asked),
        blind=max((b.sent - a.sent for a, b in itertools.pairwise(asked)), default=0.0),
    )


@dataclass(frozen=True, slots=True)
class Hold:
    """A machine held the address at least from ``start`` to ``end``."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two machines held the address at once, at least from ``start`` to ``end``."""

    first: str
    second: str
    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.first} and {self.second} both for at least {(self.end - self.start) * 1000:.1f} ms"


def holds(questions: Iterable[Question]) -> list[Hold]:
    """One machine's holds, from its answered questions (of one kind or of all kinds)."""
    answered = sorted(((q.sent, q.received) for q in questions if q.received is not None), key=lambda p: p[1])
    found: list[Hold] = []
    last_arrival = 0.0
    for sent, received in answered:
        if found and received - last_arrival <= CONTINUOUS:
            found[-1] = Hold(found[-1].start, max(found[-1].end, sent))
        else:
            found.append(Hold(received, received))
        last_arrival = received
    return found


def overlaps(questions: Mapping[str, Sequence[Question]]) -> list[Overlap]:
    """Every time two machines held the address at once, by machine name."""
    held = {name: holds(asked) for name, asked in questions.items()}
    found = [
        Overlap(a, b, max(x.start, y.start), min(x.end, y.end))
        for a, b in itertools.combinations(sorted(held), 2)
        for x, y in _intersecting(held[a], held[b])
    ]
    return sorted(found, key=lambda o: o.start)


def _intersecting(left: Sequence[Hold], right: Sequence[Hold]) -> Iterable[tuple[Hold, Hold]]:
    """Pairs that share more than an instant; both lists are in order and free of overlaps among themselves."""
    i = j = 0
    while i < len(left) and j < len(right):
        if max(left[i].start, right[j].start) < min(left[i].end, right[j].end):
            yield left[i], right[j]
        if left[i].end < right[j].end:
            i += 1
        else:
            j += 1


def pauses(questions: Sequence[Question], longer_than: float) -> list[tuple[float, float]]:
    """When the asking itself paused for more than ``longer_than`` seconds: nothing is known of those times."""
    return [(a.sent, b.sent) for a, b in itertools.pairwise(questions) if b.sent - a.sent > longer_than]
