"""How long a report was under way, so that what it tells is dated as it was and not as it arrived.

Sender and receiver have no common clock. But the difference between the receiver's clock at the receipt and the
sender's at the sending is their offset plus the time under way, which is never negative: the least difference of the
last minute is the offset, to within the fastest message of that minute. What a report takes longer than that one is its
delay, whatever held it up: a busy machine, repetitions, an election.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

WINDOW = 60.0
"""Seconds for which a difference counts: clocks drift, and those of a paused machine jump."""
SLICE = 5.0
"""Seconds of which the least difference is kept."""
ROUNDED = 0.2
"""Seconds by which what is left of a deadline may be told too large: gRPC sends it in round figures, at each hop."""


class Delays:
    """One per server. ``clock`` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._of: dict[str, tuple[str, deque[tuple[float, float]]]] = {}
        """Node -> session of its reporter, and (beginning of a slice, least difference in it)."""

    def of(self, node: str, session: str, sent: float, spent: float) -> float:
        """Seconds that a report of the node was under way. ``sent``: its sender's clock; ``spent``: what is missing of
        its deadline, which bounds the answer when a machine was paused."""
        now = self._clock()
        known, slices = self._of.get(node, ("", deque()))
        if known != session:
            slices = deque()
        self._of[node] = session, slices
        while slices and slices[0][0] < now - WINDOW:
            slices.popleft()
        difference = now - sent
        if slices and now < slices[-1][0] + SLICE:
            slices[-1] = slices[-1][0], min(slices[-1][1], difference)
        else:
            slices.append((now, difference))
        least = min(found for _, found in slices)
        return min(difference - least, max(0.0, spent) + ROUNDED)
