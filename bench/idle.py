"""What a cluster costs while nothing happens, process by process (root).

    python -m bench.idle [--seconds 60] [--telemetry] [--json FILE]

Two nodes and a witness in a lab, one group with one virtual IP; nobody watches; with ``--telemetry`` each node exports
and its page is read every 15 s. Processor time is what /proc says of
every process (user and system), so it does not depend on what else the computer does, except for colder caches.
Proportional memory counts pages that several processes share once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.failover import machine_line, table
from hasys.lab.cluster import Cluster, address_manifest, group_manifest
from hasys.lab.lab import Lab, missing

ROLES = ("node", "witness", "store", "guard", "agent", "telemetry")
SCRAPE = 15.0
"""Seconds between two readings of the page for Prometheus."""
READ = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10).read()"
SETTLE = 10.0
"""Seconds after the cluster has come to rest: connections are tried again, caches are filled."""


@dataclass(frozen=True)
class Cost:
    """One process, over the time of the measurement."""

    machine: str
    role: str
    cpu_percent: float
    """Of one core."""
    resident_mb: float
    proportional_mb: float
    wakes_per_second: float
    """Voluntary context switches of all of its threads."""


def ticks(pid: int) -> int:
    """Processor time of a process so far, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def wakes(pid: int) -> int:
    """Voluntary context switches of a process so far."""
    return sum(
        int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def memory(pid: int) -> tuple[float, float]:
    """Resident and proportional MiB."""
    found = {
        key: int(rest.split()[0])
        for key, _, rest in (
            line.partition(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        )
    }
    return found["Rss"] / 1024, found["Pss"] / 1024


def measure(cluster: Cluster, seconds: float, read: Sequence[str] = ()) -> list[Cost]:
    """Every process of every member, while the pages of the members in ``read`` are read."""
    pids = [
        (name, role, pid) for name in cluster.members for role in ROLES for pid in cluster.machine(name).processes(role)
    ]
    before = {pid: (ticks(pid), wakes(pid)) for _, _, pid in pids}
    begun = time.monotonic()
    while (left := begun + seconds - time.monotonic()) > 0:
        for name in read:
            url = f"http://{cluster.machine(name).address()}:7414/metrics"
            cluster.lab.client.run(sys.executable, "-c", READ, url)
        time.sleep(min(left, SCRAPE))
    passed = time.monotonic() - begun
    hertz = os.sysconf("SC_CLK_TCK")
    return [
        Cost(
            name,
            role,
            100 * (ticks(pid) - before[pid][0]) / hertz / passed,
            *memory(pid),
            (wakes(pid) - before[pid][1]) / passed,
        )
        for name, role, pid in pids
    ]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="What an idle cluster costs.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--telemetry", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lack = missing()
    if lack:
        print(f"bench/idle {lack}", file=sys.stderr)
        return 1
    host = machine_line()
    with Lab() as lab:
        cluster = Cluster(lab)
        exporting = cluster.nodes if options.telemetry else ()
        for name in exporting:
            with (cluster.folder / name / "node.yaml").open("a") as file:
                file.write("telemetry: {prometheus: {}}\n")
        cluster.start()
        cluster.wait_ready()
        cluster.apply(group_manifest() + address_manifest("10.77.0.100/24"))
        active = cluster.wait_redundant("web")
        cluster.feed.close()
        time.sleep(SETTLE)
        leader = cluster.status()["cluster"]["leader"]
        costs = measure(cluster, options.seconds, exporting)
    print(f"{host}\nActive {active}, leader {leader}, {options.seconds:g} s")
    rows = []
    for name in dict.fromkeys(c.machine for c in costs):
        mine = [c for c in costs if c.machine == name]
        parts = (sum(c.cpu_percent for c in mine), sum(c.resident_mb for c in mine))
        total = Cost(
            name, "together", *parts, sum(c.proportional_mb for c in mine), sum(c.wakes_per_second for c in mine)
        )
        rows += [
            [c.machine, c.role, f"{c.cpu_percent:.2f} %", f"{c.resident_mb:.0f} MB", f"{c.proportional_mb:.0f} MB",
             f"{c.wakes_per_second:.0f}"]
            for c in (*mine, total)
        ]  # fmt: skip
    print(table(("machine", "process", "of one core", "resident", "proportional", "wakes/s"), rows))
    if options.json:
        options.json.write_text(json.dumps({"machine": host, "costs": [asdict(c) for c in costs]}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
