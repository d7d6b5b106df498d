"""Between protobuf's values and ours: durations in seconds and in manifest spelling, timestamps, the timing model."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hasys.model.timing import BY_NAME, Timing, TimingRefused, profile
from hasys.v1 import objects_pb2 as pb

_UNITS = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}
"""Nanoseconds per unit."""
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_LONGEST = 315_576_000_000 * 1_000_000_000
"""Nanoseconds: the largest value that google.protobuf.Duration allows."""

TIMING_FIELDS = (
    "ttl", "heartbeat", "keepalive", "leader_fallback", "election_min", "election_max", "rtt", "fsync",
    "fence_budget", "agent_grace",
)  # fmt: skip


def seconds(value: Duration) -> float:
    """A duration in seconds."""
    return value.seconds + value.nanos / 1e9


def nanoseconds(value: Duration) -> int:
    """A duration in nanoseconds, exactly."""
    return value.seconds * 1_000_000_000 + value.nanos


def duration(value: float) -> Duration:
    """Seconds as a duration, to the nanosecond."""
    return _of_nanoseconds(round(value * 1e9))


def parse_duration(text: str) -> Duration:
    """``500ms``, ``1.5s``, ``2m``, ``1h``, ``1m30s``. Raises ValueError with what is wrong and how to mend it."""
    if not _DURATION.fullmatch(text):
        if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
            raise ValueError(f"{text!r} has no unit: write {text}s or {text}ms")
        raise ValueError(f"{text[:40]!r} is no duration: write it like 500ms, 1.5s, 2m or 1h")
    total = int(sum(Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(text)))
    if total > _LONGEST:
        raise ValueError(f"{text!r} is too long")
    return _of_nanoseconds(total)


def show_duration(value: Duration) -> str:
    """A duration in manifest spelling: ``500ms``, ``1.5s``, ``60s``, ``2m``, ``1h``. ``parse_duration`` undoes it."""
    total = nanoseconds(value)
    sign, total = ("-", -total) if total < 0 else ("", total)
    if total and total % _UNITS["h"] == 0:
        return f"{sign}{total // _UNITS['h']}h"
    if total > _UNITS["m"] and total % _UNITS["m"] == 0:
        return f"{sign}{total // _UNITS['m']}m"
    unit = "ms" if 0 < total < _UNITS["s"] else "s"
    number = format(Decimal(total) / _UNITS[unit], "f")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{sign}{number}{unit}"


def now() -> Timestamp:
    """The wall clock, for display only: never compared, never waited for."""
    stamp = Timestamp()
    stamp.FromNanoseconds(time.time_ns())
    return stamp


class Stamps:
    """The wall clock for records whose differences are read: within a burst it runs like the monotonic clock, whatever
    is done to the wall clock meanwhile. ``wall`` and ``monotonic`` give nanoseconds."""

    QUIET = 60 * 10**9
    """Nanoseconds between two stamps after which the next one follows the wall clock anew."""
    LONGEST = 3600 * 10**9
    """The same after the last time that it did: bursts without end."""

    def __init__(
        self, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset = self._last = self._begun = -self.LONGEST

    def next(self) -> Timestamp:
        """The time now."""
        now = self._monotonic()
        if now - self._last >= self.QUIET or now - self._begun >= self.LONGEST:
            self._offset, self._begun = self._wall() - now, now
        self._last = now
        made = Timestamp()
        made.FromNanoseconds(now + self._offset)
        return made


_STAMPS = Stamps()


def stamp() -> Timestamp:
    """The time for an event: of this process's :class:`Stamps`."""
    return _STAMPS.next()


def show_time(value: Timestamp) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    try:
        moment = datetime.fromtimestamp(value.seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return "0001-01-01T00:00:00Z"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{value.nanos // 1_000_000:03d}Z"


def timing_of(spec: pb.ClusterSpec) -> Timing:
    """The checked timing of a stored cluster. Raises ``TimingRefused``."""
    return profile(spec.profile or "default", _own(spec), BY_NAME)


def _own(spec: pb.ClusterSpec) -> dict[str, float]:
    return {field.name: seconds(value) for field, value in spec.timing.ListFields()}


def chosen_timing(spec: pb.ClusterSpec) -> Timing:
    """What somebody means who chooses this now: the profile of this version under his own figures. Raises
    ``TimingRefused``."""
    return profile(spec.profile or "default", _own(spec)).admit()


def settle_timing(wanted: pb.ClusterSpec, stored: pb.ClusterSpec | None) -> None:
    """Write every timing out, before it is stored: what the name of a profile stands for may change with the version,
    and members of two versions must read the same. Who changes the name alone means the new profile's timings. What
    contradicts itself is left as it is, for the validation to refuse."""
    if stored is not None and wanted.profile != stored.profile and wanted.timing == stored.timing:
        wanted.ClearField("timing")
    with suppress(TimingRefused):
        wanted.timing.CopyFrom(timing_message(chosen_timing(wanted)))


def timing_message(timing: Timing) -> pb.Timing:
    """Every value of a timing, written out."""
    return pb.Timing(**{field: duration(getattr(timing, field)) for field in TIMING_FIELDS})


def _of_nanoseconds(total: int) -> Duration:
    whole, nanos = divmod(abs(total), 1_000_000_000)
    return Duration(seconds=whole, nanos=nanos) if total >= 0 else Duration(seconds=-whole, nanos=-nanos)
