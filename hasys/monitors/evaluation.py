"""From findings to states and actions. Pure: time comes in, nothing goes out but values.

Waiting --start delay--> Ok --failures in a row--> Failed
                          ^          |               |
                          |     action Restart       |
                          |          v               |
                          +------ Restarting --retries used up--> Failed, with what follows then
                          +------------ one good look ------------+
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hasys.monitors.port import Found

STABLE = 60.0
"""Seconds of well-being (or ten start times, when longer) after which earlier restarts are forgotten."""


AGAIN = 300.0
"""Seconds after which restarts that were used up are tried again, if the group is still here: nothing is given up for
ever."""


class State(StrEnum):
    """Of a monitor on one node."""

    WAITING = "Waiting"
    OK = "Ok"
    RESTARTING = "Restarting"
    FAILED = "Failed"
    IDLE = "Idle"
    """It does not look here now."""


class Action(StrEnum):
    """What follows a failure."""

    ALERT = "Alert"
    RESTART = "Restart"
    FAILOVER = "Failover"
    STOP = "Stop"


@dataclass(frozen=True, slots=True)
class Restarts:
    """How to mend in place. Durations in seconds."""

    start_time: float = 10.0
    """Bad looks do not count for this long after a restart."""
    retries: int = 3
    backoff: float = 1.0
    """Before the second and later restarts."""
    then: Action = Action.FAILOVER

    @property
    def stable_after(self) -> float:
        return max(STABLE, 10 * self.start_time)


@dataclass(frozen=True, slots=True)
class Settings:
    """How findings are judged. Durations in seconds."""

    failures: int = 3
    start_delay: float = 0.0
    action: Action = Action.ALERT
    restarts: Restarts = Restarts()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a finding means."""

    state: State
    message: str = ""
    action: Action | None = None
    """FAILED: what follows."""
    restarts: int = 0
    restart_in: float | None = None
    """Restart now, after this many seconds; None: do not."""


class Judge:
    """Judges the findings of one monitor. Times are of one monotonic clock."""

    def __init__(self, settings: Settings, now: float) -> None:
        self._settings = settings
        self._begun = now
        self._bad = 0
        self._used = 0
        self._quiet_until = self._failed_at = 0.0
        self._well_since: float | None = None
        self.verdict = Verdict(State.WAITING, "waits for its start delay" if settings.start_delay else "")

    def waits(self, now: float) -> float:
        """Seconds of the start delay that are left."""
        return max(0.0, self._begun + self._settings.start_delay - now)

    def take(self, found: Found, now: float) -> Verdict:
        """Judge one finding; also kept as :attr:`verdict`, without the request to restart."""
        new = self._well(now) if found.ok else self._trouble(found, now)
        self.verdict = Verdict(new.state, new.message, new.action, new.restarts)
        return new

    def restarted(self, now: float) -> None:
        """A restart that was asked for is done: its start time counts from here."""
        self._quiet_until = now + self._settings.restarts.start_time

    def _well(self, now: float) -> Verdict:
        self._bad = 0
        self._quiet_until = 0.0
        if self._well_since is None:
            self._well_since = now
        elif self._used and now >= self._well_since + self._settings.restarts.stable_after:
            self._used = 0
        return Verdict(State.OK, restarts=self._used)

    def _trouble(self, found: Found, now: float) -> Verdict:
        before = self.verdict
        action = self._settings.action if found.action is None else _ACTIONS[found.action]
        if before.state is State.FAILED and (action is not Action.RESTART or now < self._failed_at + AGAIN):
            return Verdict(State.FAILED, found.trouble, self._follows(action), self._used)
        if before.state is State.RESTARTING and now < self._quiet_until:
            return before
        self._bad += 1
        # after a restart and its start time the first bad look is enough: it was given its time
        if before.state in (State.WAITING, State.OK) and self._bad < self._settings.failures:
            return before
        if before.state is State.FAILED:
            self._used = 0
        self._well_since = None
        self._bad = 0
        said = found.trouble
        if action is Action.RESTART and self._used < self._settings.restarts.retries:
            self._used += 1
            wait = 0.0 if self._used == 1 else self._settings.restarts.backoff
            self._quiet_until = now + wait + self._settings.restarts.start_time
            return Verdict(State.RESTARTING, said, None, self._used, wait)
        self._failed_at = now
        return Verdict(State.FAILED, said, self._follows(action), self._used)

    def _follows(self, action: Action) -> Action:
        return self._settings.restarts.then if action is Action.RESTART else action


_ACTIONS = (Action.ALERT, Action.RESTART, Action.FAILOVER, Action.STOP)
"""By number in ``MonitorSpec.Action``."""
