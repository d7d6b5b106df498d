"""Bytes per second through an interface, in and out together."""

from __future__ import annotations

import anyio
import psutil

from hasys.monitors.port import Check, Found
from hasys.v1 import monitors_pb2 as mpb


def counters() -> dict[str, tuple[int, int]]:
    """Interface -> bytes received and sent since it exists, of this network namespace (/proc/net/dev)."""
    return {name: (one.bytes_recv, one.bytes_sent) for name, one in psutil.net_io_counters(pernic=True).items()}


class Rates:
    """Bytes per second between two readings."""

    def __init__(self) -> None:
        self._at = anyio.current_time()
        self._last = counters()

    def take(self) -> dict[str, tuple[float, float]]:
        """Received and sent, of each interface that was there both times. A counter that went back was reset."""
        now, counted = anyio.current_time(), counters()
        passed = now - self._at
        rates = {}
        for name, (received, sent) in counted.items():
            before = self._last.get(name)
            if before is not None and passed > 0:
                rates[name] = max(0, received - before[0]) / passed, max(0, sent - before[1]) / passed
        self._at, self._last = now, counted
        return rates


class TrafficCheck(Check):
    """See the module."""

    def __init__(self, spec: mpb.TrafficMonitor) -> None:
        self._spec = spec
        self._rates = Rates()

    async def look(self) -> Found:
        name = self._spec.interface
        rates = self._rates.take().get(name)
        if rates is None:
            return Found(f"interface {name} does not exist")
        rate = sum(rates)
        trouble = ""
        if self._spec.HasField("minimum") and rate < self._spec.minimum:
            trouble = f"less than {self._spec.minimum} B/s through {name}"
        elif self._spec.HasField("maximum") and rate > self._spec.maximum:
            trouble = f"more than {self._spec.maximum} B/s through {name}"
        return Found(trouble, f"{rate:.0f} B/s", rate, "B/s")
