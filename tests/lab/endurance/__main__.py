"""Minutes of each load, and no role may change: ``python -m tests.lab.endurance [--minutes 10] [--only disk,store]``.

One cluster of two nodes and a witness; the load strikes the Active. Judged: no other node answers for the address, no
event tells of another epoch. Told besides: the longest time without an answer, and how often another member became
Raft's leader (which nobody notices)."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hasys.lab.cluster import Cluster
from hasys.lab.lab import Lab, missing
from hasys.lab.shell import LabError
from tests.lab.endurance.loads import LOADS, Site, leave, memory_box
from tests.lab.stage import GROUP, MANIFEST, PORT, VIP, VIP6, Act, Stage, pause
from tests.matrix.clocks import build

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


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Overload, and nothing may move.")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each load")
    parser.add_argument("--only", default=",".join(LOADS), help="loads, with commas between")
    parser.add_argument("--profile", default="default", choices=("default", "fast"))
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = [name for name in wanted if name not in LOADS]
    if unknown:
        parser.error(f"no load {unknown[0]}: there are {', '.join(LOADS)}")
    lack = missing()
    if lack:
        parser.error(lack)
    with tempfile.TemporaryDirectory() as folder:
        results = [_one(name, options, Path(folder)) for name in wanted]
    return 0 if all(results) else 1


def _one(name: str, options: argparse.Namespace, folder: Path) -> bool:
    """A cluster of its own for each load; True: well, or not possible here."""
    library = build(folder)
    if name == "clock" and library is None:
        _say(f"{name:<11} left out: needs a C compiler, to give each machine a wall clock of its own")
        return True
    with memory_box() as box, Lab() as lab:
        if name == "memory" and box is None:
            _say(f"{name:<11} left out: no memory controller of cgroup v1 on this machine")
            return True
        cluster = Cluster(lab, profile=options.profile)
        cluster.start(prefix=("env", f"LD_PRELOAD={library}") if name == "clock" else ())
        leave(box)
        cluster.wait_ready()
        cluster.apply(MANIFEST)
        cluster.wait_running(GROUP)
        stage = Stage(cluster, lab.watch([VIP, VIP6], cluster.nodes), lab.probe(VIP), lab.http_probe(VIP, PORT))
        try:
            result = _endure(stage, name, box, options.minutes * 60)
        except (LabError, TimeoutError) as e:
            _say(f"{name:<11} FAILED: {e}")
            return False
        _say(result.line())
        return result.well


def _endure(stage: Stage, name: str, box: Path | None, seconds: float) -> Result:
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


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
