"""The latest figures that each node told: in the memory of the leader alone, never in the log. Gone with a leader;
the nodes tell them to the next one within seconds."""

from __future__ import annotations

from collections.abc import Callable

from hasys.v1 import monitors_pb2 as mpb

FRESH = 30.0
"""Seconds after which figures are not shown any more: several times the period in which agents tell them."""
ENTRIES = 4_000
"""Most interfaces, and most monitors, of one node."""


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
        for name in sorted(kept.traffic)[ENTRIES:]:
            del kept.traffic[name]
        self._of[node] = self._clock(), kept

    def of(self, node: str) -> mpb.NodeFigures | None:
        """What the node told lately; None: nothing. Do not change it."""
        told, figures = self._of.get(node, (0.0, None))
        return figures if figures is not None and self._clock() < told + FRESH else None
