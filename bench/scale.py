"""Many groups at once: how long from ``hasys apply`` until every resource of every group runs (root).

    python -m bench.scale [--groups 32] [--json FILE]

Each group has a virtual IP, an application (a process of its own) that starts after it, and a delay of nothing after
that. The time counts from the start of the command, the command's own start included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from bench.failover import machine_line
from hasys.lab.cluster import Cluster, address_manifest, application_manifest, group_manifest
from hasys.lab.feed import Status
from hasys.lab.lab import Lab, missing

PATIENCE = 120.0
"""Seconds after which the measurement is given up."""


def manifest(groups: int) -> str:
    """Groups on alternating nodes, three resources each."""
    parts = []
    for i in range(groups):
        name = f"g{i}"
        first, second = ("n1", "n2") if i % 2 == 0 else ("n2", "n1")
        parts += [
            group_manifest(name, {first: 100, second: 50}),
            address_manifest(f"10.77.0.{100 + i}/24", f"{name}-ip", name),
            application_manifest(["sleep", "100000"], f"{name}-app", name),
            f"---\napiVersion: hasys/v1\nkind: Delay\nmetadata: {{name: {name}-wait, group: {name}}}\n"
            f"spec: {{duration: 1ms, after: [{name}-app]}}\n",
        ]
    return "".join(parts)


def running(status: Status) -> int:
    """Groups that run, with all their resources."""
    return sum(
        group["phase"] == "Running" and all(r["state"] == "Running" for r in group["resources"])
        for group in status["groups"]
    )


def measure(cluster: Cluster, groups: int) -> dict[str, float]:
    """Seconds until applied, and until everything runs."""
    cluster.wait_ready()
    text = manifest(groups)
    begun = time.monotonic()
    cluster.apply(text)
    applied = time.monotonic() - begun
    cluster.wait(lambda s: running(s) == groups, PATIENCE, f"{groups} groups to run")
    return {"groups": groups, "applied": applied, "running": time.monotonic() - begun}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="How long until many groups run.")
    parser.add_argument("--groups", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lack = missing()
    if lack:
        print(f"bench/scale {lack}", file=sys.stderr)
        return 1
    host = machine_line()
    with Lab() as lab:
        cluster = Cluster(lab)
        cluster.start()
        found = measure(cluster, options.groups)
    print(
        f"{host}\n{options.groups} groups of 3 resources: applied after {found['applied']:.1f} s,"
        f" all running after {found['running']:.1f} s"
    )
    if options.json:
        options.json.write_text(json.dumps({"machine": host, **found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
