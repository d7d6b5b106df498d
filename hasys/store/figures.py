"""How long writes took, and the latest figures that each node told: in the memory of the leader alone, never in the
log. Gone with a leader; the nodes tell theirs to the next one within seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from google.protobuf.duration_pb2 import Duration

from hasys.api.convert import duration
from hasys.v1 import api_pb2 as api
from hasys.v1 import monitors_pb2 as mpb

FRESH = 30.0
"""Seconds after which figures are not shown any more: several times the period in which agents tell them."""
ENTRIES = 4_000
"""Most interfaces, and most monitors, of one node."""
OWN = 16
"""Most of hasys's own processes on one node."""
LAST = 512
"""Writes of which the quantiles are told."""


class Commits:
    """How long writes took. In this process's memory alone."""

    def __init__(self) -> None:
        self._count = 0
        self._last: deque[float] = deque(maxlen=LAST)

    def note(self, seconds: float) -> None:
        """One write was committed and applied."""
        self._count += 1
        self._last.append(seconds)

    def view(self) -> api.CommitView:
        """For the status; absent parts: nothing was written yet."""
        ordered = sorted(self._last)
        if not ordered:
            return api.CommitView()

        def at(share: float) -> Duration:
            return duration(round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 6))

        return api.CommitView(count=self._count, median=at(0.5), p90=at(0.9), p99=at(0.99), longest=at(1))


class Figures:
    """One per store process. ``clock`` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._of: dict[str, tuple[float, mpb.NodeFigures]] = {}

    def put(self, node: str, figures: mpb.NodeFigures) -> None:
        """Take what a member told; the newest counts. The caller has checked who speaks."""
        kept = mpb.NodeFigures()
        kept.CopyFrom(figures)
        del kept.monitors[ENTRIES:]
        del kept.own[OWN:]
        for name in sorted(kept.traffic)[ENTRIES:]:
            del kept.traffic[name]
        self._of[node] = self._clock(), kept

    def of(self, node: str) -> mpb.NodeFigures | None:
        """What the node told lately; None: nothing. Do not change it."""
        told, figures = self._of.get(node, (0.0, None))
        return figures if figures is not None and self._clock() < told + FRESH else None
