"""Many groups at once: how long until all run, and how long until half of them run elsewhere (root).

    python -m bench.scale [--groups 32] [--json FILE]
    python -m bench.scale --failover [--groups 256] [--runs 3]

Without ``--failover`` each group has a virtual IP, an application (a process of its own) that starts after it, and a
delay of nothing after that. The time counts from the start of the command, the command's own start included.

With it: three nodes that vote; the groups, of one virtual IP each, are Active half on n1 and half on n2, n3 is every
group's second node. n1 loses its power. The time counts until ``hasys status`` shows every group Running on a living
node, and beside it until the first did; the bound is the one that status computes for a single group.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime
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


def addresses(groups: int) -> str:
    """Groups of one address each: half prefer n1, half n2, all go to n3."""
    parts = []
    for i in range(groups):
        name, first = f"g{i}", "n1" if i % 2 == 0 else "n2"
        parts += [
            group_manifest(name, {first: 100, "n3": 50}),
            address_manifest(f"10.79.{i // 200}.{i % 200 + 1}/32", f"{name}-ip", name),
        ]
    return "".join(parts)


def failover(cluster: Cluster, groups: int) -> dict[str, float]:
    """Seconds from the power loss of n1 until the first and until every group of it runs on n3."""
    wanted = {f"g{i}" for i in range(0, groups, 2)}

    def moved(status: Status) -> int:
        return sum(g["active"] == "n3" and g["phase"] == "Running" for g in status["groups"] if g["name"] in wanted)

    bound = max(float(g["failoverBound"].removesuffix("s")) for g in cluster.wait_ready()["groups"])
    begun = time.monotonic()
    cluster.machine("n1").power_off()
    cluster.wait(lambda s: moved(s) > 0, PATIENCE, "the first group to run on n3")
    first = time.monotonic() - begun
    cluster.wait(lambda s: moved(s) == len(wanted), PATIENCE, f"{len(wanted)} groups to run on n3")
    return {"groups": len(wanted), "bound": bound, "first": first, "all": time.monotonic() - begun}


def stages(cluster: Cluster) -> str:
    """When each kind of event of the last failover was first and last recorded, from the first of them on."""
    said = json.loads(cluster.hasys("events", "--limit", "2000", "-o", "json"))
    events = said["events"] if isinstance(said, dict) else said
    lost = max(i for i, event in enumerate(events) if event["reason"] == "NodeLost")
    times: dict[str, list[float]] = {}
    for event in events[lost:]:
        at = datetime.fromisoformat(event["time"]).timestamp()
        times.setdefault(event["reason"], []).append(at)
    zero = times["NodeLost"][0]
    return "\n".join(
        f"  {reason}: {len(at)} from {min(at) - zero:.2f} s to {max(at) - zero:.2f} s" for reason, at in times.items()
    )


def failovers(options: argparse.Namespace) -> list[dict[str, float]]:
    """Several in a row: afterwards the node comes back and gets its groups again."""
    found = []
    with Lab() as lab:
        cluster = Cluster(lab, nodes=("n1", "n2", "n3"), witness=None)
        cluster.start()
        cluster.wait_ready()
        begun = time.monotonic()
        cluster.apply(addresses(options.groups))
        cluster.wait(lambda s: running(s) == options.groups, PATIENCE, f"{options.groups} groups to run")
        print(f"{options.groups} groups applied and running after {time.monotonic() - begun:.1f} s", flush=True)
        for run in range(options.runs):
            if run:
                cluster.machine("n1").power_on()
                cluster.wait_ready()
                cluster.hasys("drain", "n3")
                cluster.wait(lambda s: running(s) == options.groups, PATIENCE, "every group to run again")
                cluster.hasys("undrain", "n3")
            found.append(failover(cluster, options.groups))
            print("  ".join(f"{name} {value:.2f}" for name, value in found[-1].items()), flush=True)
            print(stages(cluster), flush=True)
    return found


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
    parser.add_argument("--groups", type=int)
    parser.add_argument("--failover", action="store_true", help="instead: a node that has half of the groups is lost")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lack = missing()
    if lack:
        print(f"bench/scale {lack}", file=sys.stderr)
        return 1
    host = machine_line()
    print(host, flush=True)
    result: dict[str, object]
    options.groups = options.groups or (256 if options.failover else 32)
    if options.failover:
        result = {"failovers": failovers(options)}
    else:
        with Lab() as lab:
            cluster = Cluster(lab)
            cluster.start()
            found = measure(cluster, options.groups)
        result = dict(found)
        print(
            f"{options.groups} groups of 3 resources: applied after {found['applied']:.1f} s,"
            f" all running after {found['running']:.1f} s"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": host, **result}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
