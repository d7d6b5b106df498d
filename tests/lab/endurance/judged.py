"""One load for a while, and what is judged."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.endurance.loads import LOADS, Site
from tests.lab.stage import GROUP, VIP, Act, Stage, pause

LOOK = 2.0
"""Seconds between two looks at the load."""


@dataclass(frozen=True)
class Result:
    """What one load did."""

    name: str
    seconds: float
    moves: list[str]
    others: list[str]
    longest: float
    terms: int

    @property
    def well(self) -> bool:
        return not self.moves and not self.others

    def line(self) -> str:
        """For people."""
        verdict = "no role change" if self.well else f"FAILED: {self.moves or self.others}"
        felt = f"longest time without an answer {self.longest * 1000:.0f} ms"
        return f"{self.name:<11} {self.seconds:5.0f} s  {verdict}; {felt}; elections {self.terms}"


def endure(stage: Stage, name: str, box: Path | None, seconds: float) -> Result:
    """Strike a settled stage's Active for so long. Raises ``AssertionError`` for two holders, ``LoadDied``, and
    ``TimeoutError`` when the group does not run at the end."""
    active = stage.settle()
    stage.wait_holder(active)
    with LOADS[name](Site(stage, active, box)) as alive:
        act, term = Act.begin(stage, active), stage.cluster.status()["cluster"]["term"]
        while time.monotonic() < act.since + seconds:
            pause(LOOK)
            alive()
        seen = stage.probe.outage(act.since)
        took = time.monotonic() - act.since
    others = [n for n in stage.cluster.nodes if n != active and stage.watch.last_answer(VIP, n, act.since) is not None]
    stage.watch.assert_never_two(act.since)
    stage.cluster.wait_running(GROUP, active=active)
    terms = stage.cluster.status()["cluster"]["term"] - term
    return Result(name, took, act.moves(), others, seen.felt, terms)
