"""Where a probe or a watcher notes each question, and later its answer.

Fixed-size records in an anonymous file in memory (no disk may delay the asker), written in place: the lab may look at
any time, and a killed writer loses nothing. Times are nanoseconds of CLOCK_MONOTONIC, which all namespaces share.
"""

from __future__ import annotations

import os
import struct
import time
from bisect import bisect_left
from dataclasses import dataclass

_RECORD = struct.Struct("<qqHHI")
_ANSWERED = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Question:
    """One question, and its answer if one came. Times in seconds of the monotonic clock."""

    sent: float
    received: float | None
    target: int = 0
    """Which of several addressees."""
    kind: int = 0
    """Which of several kinds of question."""


class Recorder:
    """The writing side: one process, one open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.count = 0

    def asked(self, sent: int, target: int = 0, kind: int = 0) -> int:
        """Note a question sent at ``sent`` (ns) and return its number."""
        number = self.count
        os.pwrite(self._fd, _RECORD.pack(sent, 0, target, kind, 0), number * _RECORD.size)
        self.count += 1
        return number

    def answered(self, number: int, received: int) -> None:
        """Note the answer to a question; of several answers the last counts, so callers pass only the first."""
        if 0 <= number < self.count:
            os.pwrite(self._fd, _ANSWERED.pack(received), number * _RECORD.size + 8)


def read(fd: int, since: float = 0.0) -> list[Question]:
    """What was asked since an instant, up to now, in the order of asking."""
    count = os.fstat(fd).st_size // _RECORD.size
    first = bisect_left(range(count), since, key=lambda i: _sent(fd, i))
    data = os.pread(fd, (count - first) * _RECORD.size, first * _RECORD.size)
    return [
        Question(sent / 1e9, received / 1e9 if received else None, target, kind)
        for sent, received, target, kind, _ in _RECORD.iter_unpack(data)
    ]


def _sent(fd: int, number: int) -> float:
    """When a question was sent; records are in that order."""
    nanoseconds: int = _RECORD.unpack(os.pread(fd, _RECORD.size, number * _RECORD.size))[0]
    return nanoseconds / 1e9


class Pacer:
    """Ticks at a fixed period without drift; after an oversleep it goes on from now instead of catching up."""

    def __init__(self, period: float) -> None:
        self._period = round(period * 1e9)
        self._next = time.monotonic_ns()

    def due(self) -> bool:
        """Is it time for the next tick? If so, that tick is used up."""
        now = time.monotonic_ns()
        if now < self._next:
            return False
        self._next += self._period
        if self._next <= now:
            self._next = now + self._period
        return True

    def remaining(self) -> float:
        """Seconds until the next tick."""
        return max(0, self._next - time.monotonic_ns()) / 1e9


def be_punctual(priority: int) -> None:
    """Real-time scheduling and locked pages where the machine allows it; else as punctual as it happens to be."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return
