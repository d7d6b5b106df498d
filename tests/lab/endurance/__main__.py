"""Minutes of each load, and no role may change: ``python -m tests.lab.endurance [--minutes 10] [--only disk,store]``.

One cluster of two nodes and a witness; the load strikes the Active. Judged: no other node answers for the address, no
event tells of another epoch. Told besides: the longest time without an answer, and how often another member became
Raft's leader (which nobody notices)."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from hasys.lab.cluster import Cluster
from hasys.lab.lab import Lab, missing
from hasys.lab.shell import LabError
from tests.lab.endurance.judged import endure
from tests.lab.endurance.loads import LOADS, leave, memory_box
from tests.lab.stage import GROUP, MANIFEST, PORT, VIP, VIP6, Stage
from tests.matrix.clocks import build


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Overload, and nothing may move.")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each load")
    parser.add_argument("--only", default=",".join(LOADS), help="loads, with commas between")
    parser.add_argument("--profile", default="default", choices=("default", "fast"))
    parser.add_argument("--timing", action="append", default=[], metavar="FIGURE=TIME", help="as ttl=400ms; repeatable")
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
        if options.timing:
            cluster.retime(dict(one.split("=", 1) for one in options.timing))
        cluster.apply(MANIFEST)
        cluster.wait_running(GROUP)
        stage = Stage(cluster, lab.watch([VIP, VIP6], cluster.nodes), lab.probe(VIP), lab.http_probe(VIP, PORT))
        try:
            result = endure(stage, name, box, options.minutes * 60)
        except (LabError, TimeoutError) as e:
            _say(f"{name:<11} FAILED: {e}")
            return False
        _say(result.line())
        return result.well


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
