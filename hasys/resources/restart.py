"""When to restart a program in place, and when to give up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STABLE_RUN = 60.0
"""A run of at least this many seconds (or ten start times, when longer) forgets earlier failures: the retries are meant
for a program that does not come up, not for one that dies once a week."""


@dataclass(slots=True)
class RestartPolicy:
    """Counts failures in a row. Durations in seconds."""

    retries: int
    start_time: float
    backoff: float
    used: int = 0

    @property
    def stable_after(self) -> float:
        return max(STABLE_RUN, 10 * self.start_time)

    @property
    def told(self) -> str:
        """How many restarts were used, for people."""
        return f"{self.used} restart{'' if self.used == 1 else 's'}"

    def failed(self, ran_for: float) -> float | None:
        """A run ended by itself after ``ran_for``: the wait before the next start, or None when retries are used up.

        The first restart is at once, each further one after ``backoff``.
        """
        if ran_for >= self.stable_after:
            self.used = 0
        if self.used >= self.retries:
            return None
        self.used += 1
        return 0.0 if self.used == 1 else self.backoff
