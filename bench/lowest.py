"""How short can the timings of the profile ``fast`` be on this machine before something moves for nothing (root)?

    python -m bench.lowest [--factors 1,0.8,0.6,0.5,0.4] [--runs 10] [--seconds 60] [--loads processors,disk]

Every time of the profile is multiplied by a factor, but for what networks and disks need (``rtt``, ``fsync``). For
each factor a cluster of its own: what it costs at rest, the outage of power losses, then minutes of overload, in
which no role may change (``tests/lab/endurance``).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import fields

from bench.failover import machine_line, table
from hasys.lab.cluster import Cluster, CommandFailed
from hasys.lab.lab import Lab, missing
from hasys.lab.shell import LabError
from hasys.model.timing import PROFILES, Timing, figures
from tests.lab.endurance.judged import endure
from tests.lab.stage import GROUP, MANIFEST, PORT, VIP, VIP6, Stage

FIXED = ("rtt", "fsync", "agent_grace")
REST = 10.0
"""Seconds over which the cost at rest is taken."""


def scaled(factor: float) -> Timing:
    """The profile with every time that is free to choose multiplied; whole microseconds."""
    base = PROFILES["fast"]
    values = {f.name: getattr(base, f.name) for f in fields(base)}
    return Timing(**{name: value if name in FIXED else round(value * factor, 6) for name, value in values.items()})


def spelled(timing: Timing) -> dict[str, str]:
    """As in a manifest."""
    return {key: f"{value * 1000:g}ms" for key, (_, value) in figures(timing).items()}


def measure(factor: float, options: argparse.Namespace) -> list[str]:
    """One row."""
    timing = scaled(factor)
    name = f"x {factor:g} (ttl {timing.ttl * 1000:.0f} ms)"
    with Lab() as lab:
        cluster = Cluster(lab, profile="fast")
        cluster.start()
        cluster.wait_ready()
        try:
            cluster.retime(spelled(timing))
        except CommandFailed as e:
            return [name, f"refused: {e.said.strip()}"]
        cluster.apply(MANIFEST)
        cluster.wait_running(GROUP)
        stage = Stage(cluster, lab.watch([VIP, VIP6], cluster.nodes), lab.probe(VIP), lab.http_probe(VIP, PORT))
        row = [name, f"{timing.failover_bound * 1000:.0f} ms", _rest(stage), _lost(stage, options.runs)]
        row += [_loaded(stage, load, options.seconds) for load in options.loads.split(",")]
        return row


def _rest(stage: Stage) -> str:
    active = stage.machine(stage.settle())
    before = active.usage().cpu
    time.sleep(REST)
    return f"{100 * (active.usage().cpu - before) / REST:.1f} %"


def _lost(stage: Stage, runs: int) -> str:
    """Power losses of the Active: median and worst outage."""
    outages = []
    for _ in range(runs):
        active = stage.settle()
        struck = time.monotonic()
        stage.lab.power_off(active)
        stage.probe.wait_answer(60, since=time.monotonic())
        outages.append(stage.probe.outage(struck).longest)
        stage.watch.assert_never_two(struck)
    return f"{statistics.median(outages) * 1000:.0f}, {max(outages) * 1000:.0f} ms" if outages else "-"


def _loaded(stage: Stage, load: str, seconds: float) -> str:
    try:
        result = endure(stage, load, None, seconds)
    except (LabError, TimeoutError, AssertionError) as e:
        return f"FAILED: {str(e).splitlines()[0]}"
    moved = f"moved {len(result.moves)} times" if not result.well else "nothing moved"
    return f"{moved}, elections {result.terms}, longest {result.longest * 1000:.0f} ms"


def main() -> int:
    """Print a row for each factor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factors", default="1,0.8,0.6,0.5,0.4")
    parser.add_argument("--runs", type=int, default=10, help="power losses for each factor")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    parser.add_argument("--loads", default="processors,disk")
    options = parser.parse_args()
    if lack := missing():
        print(f"bench/lowest {lack}", file=sys.stderr)
        return 1
    print(machine_line())
    head = ("timings", "bound", "Active at rest", "power loss: median, worst", *options.loads.split(","))
    rows = []
    for factor in options.factors.split(","):
        rows.append(measure(float(factor), options))
        print("; ".join(rows[-1]), flush=True)
    print("\n" + table(head, [row + [""] * (len(head) - len(row)) for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
