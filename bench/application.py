"""An application that dies: how soon it is started again, and how soon elsewhere once it cannot run here (root).

    python -m bench.application [--runs 20] [--json FILE]

``again``: from SIGKILL until the new process exists (its start time as the kernel has it, to 10 ms). ``elsewhere``:
from SIGKILL on a machine where every further start fails until the other node's process exists; default restart policy:
three restarts in place, the first at once, 0.5 s between the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from bench.failover import machine_line, quantile, table
from hasys.lab.cluster import Cluster, address_manifest, application_manifest, group_manifest
from hasys.lab.lab import Lab, missing
from hasys.lab.registry import start_time
from hasys.lab.shell import until

SLEEPER = "sleep 86399"
PROGRAM = ("sh", "-c", f"test ! -e /run/broken && exec {SLEEPER}")
BREAKS = 3
"""How often the way to the other node is measured for each run in place: it takes a few seconds."""


def born(pid: int) -> float:
    """When a process was started, on the monotonic clock."""
    ticks = start_time(pid)
    assert ticks is not None, "it runs"
    suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return ticks / os.sysconf("SC_CLK_TCK") - suspended


def strike(cluster: Cluster, victim: str, where: str) -> float:
    """Kill the program on one machine; seconds until it exists on another (or the same) one."""
    machine, target = cluster.machine(victim), cluster.machine(where)
    before = set(target.processes("86399"))
    struck = time.monotonic()
    machine.kill("86399")
    until(lambda: set(target.processes("86399")) - before, 60, f"the program on {where}")
    return born(min(set(target.processes("86399")) - before)) - struck


def again(cluster: Cluster, runs: int) -> list[float]:
    """Restarts in place, each the first one of its assignment: later ones wait, and too many are a failover."""
    found = []
    for _ in range(runs):
        active = cluster.wait_redundant("web")
        found.append(strike(cluster, active, active))
        cluster.wait_running("web", active=active)
        cluster.hasys("switchover", "web")
    return found


def elsewhere(cluster: Cluster, runs: int) -> list[float]:
    """Failovers after all restarts in place."""
    found = []
    for _ in range(runs):
        active = cluster.wait_redundant("web")
        standby = "n2" if active == "n1" else "n1"
        cluster.machine(active).run("touch", "/run/broken")
        found.append(strike(cluster, active, standby))
        cluster.machine(active).run("rm", "/run/broken")
        cluster.wait_running("web", active=standby)
        cluster.hasys("retry", "web")
        cluster.hasys("switchover", "web", "--to", active)  # forgets the failure
        cluster.wait_running("web", active=active)
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="How soon an application that died runs again.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lack = missing()
    if lack:
        print(f"bench/application {lack}", file=sys.stderr)
        return 1
    host = machine_line()
    with Lab() as lab:
        cluster = Cluster(lab)
        cluster.start()
        cluster.wait_ready()
        cluster.apply(group_manifest() + address_manifest("10.77.0.100/24") + application_manifest(PROGRAM))
        found = {"again": again(cluster, options.runs), "elsewhere": elsewhere(cluster, options.runs // BREAKS)}
    print(host)
    rows = []
    for name, times in found.items():
        figures = (statistics.median(times), quantile(times, 0.95), max(times))
        rows.append([name, "", str(len(times)), *(f"{t * 1000:.0f} ms" for t in figures)])
    print(table(("what", "", "runs", "median", "p95", "worst"), rows))
    if options.json:
        options.json.write_text(json.dumps({"machine": host, **found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
