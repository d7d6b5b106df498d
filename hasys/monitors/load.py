"""Use of the processors and of memory, in percent."""

from __future__ import annotations

import psutil

from hasys.monitors.port import Check, Found
from hasys.v1 import monitors_pb2 as mpb


class Processors:
    """The use of all processors together between two readings. psutil reads /proc/stat, which never blocks."""

    def __init__(self) -> None:
        self._last = _busy()

    def read(self) -> float | None:
        """Percent since the last reading; None when no time has passed."""
        total, busy = _busy()
        before_total, before_busy = self._last
        if total <= before_total:
            return None
        self._last = total, busy
        return min(100.0, max(0.0, 100.0 * (busy - before_busy) / (total - before_total)))


def _busy() -> tuple[float, float]:
    """Seconds of all processors: in total, and not idle."""
    times = psutil.cpu_times()
    total = sum(times[:8])  # guest time is contained in user time
    return total, total - times.idle - times.iowait


def memory() -> float:
    """Percent of memory that could not be given to a program that asks for it."""
    return float(psutil.virtual_memory().percent)


class CpuCheck(Check):
    """Over the limit since the last look."""

    def __init__(self, spec: mpb.LoadMonitor) -> None:
        self._limit = spec.limit
        self._processors = Processors()

    async def look(self) -> Found:
        return _judge(self._processors.read(), self._limit, "processor use")


class MemoryCheck(Check):
    """Over the limit now."""

    def __init__(self, spec: mpb.LoadMonitor) -> None:
        self._limit = spec.limit

    async def look(self) -> Found:
        return _judge(memory(), self._limit, "memory use")


def _judge(percent: float | None, limit: int, what: str) -> Found:
    if percent is None:
        return Found()
    over = percent >= limit
    return Found(f"{what} is at or over {limit} %" if over else "", f"{percent:.0f} %", percent, "%")
