"""Keep-alives that arrive while the leader is awake for its heartbeats.

On a quiet machine a message costs the waking up: the processor's caches belong to others by then. A leader whose guards
ask just before a round of heartbeats leaves wakes up once for both. It leads them there by the period that each grant
carries, which is never longer than that of the timings, so no promise depends on it. Before and not after: after it a
grant would rest on that round or on the one before, as its answers come a little sooner or later.
"""

from __future__ import annotations

from hasys.model.timing import Timing

_NEAR = 0.9
"""Least part of a keep-alive period that the heartbeat period must be: with other timings more would be sent."""
_LEAST = 0.7
"""Least part of a period that a guard is told, while it is led to its place."""
_BEFORE, _APART = 0.003, 0.001
"""Seconds before the round for the first guard, and between two of them."""
_PLACES = 100
"""Places; with more guards some share one."""


def period(timing: Timing, since_round: float, place: int) -> float:
    """Seconds until the next keep-alive of a guard that asks ``since_round`` seconds after one of the leader's rounds.

    ``place`` is its number among the guards. At most ``timing.keepalive``.
    """
    beat = timing.heartbeat
    if not _NEAR * timing.keepalive <= beat <= timing.keepalive:
        return timing.keepalive
    wanted = -_BEFORE - _APART * (place % _PLACES)
    late = (since_round - wanted + beat / 2) % beat - beat / 2
    return min(max(beat - late, _LEAST * timing.keepalive), timing.keepalive)
