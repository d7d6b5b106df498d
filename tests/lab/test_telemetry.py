"""A failover on real nodes as it is told afterwards: its timeline, and the metrics of a node that is left."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hasys.api.convert import nanoseconds, parse_duration
from hasys.lab.cluster import Cluster, address_manifest, group_manifest
from hasys.lab.lab import Lab
from hasys.lab.shell import until

pytestmark = pytest.mark.lab

READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


def scraped(cluster: Cluster, node: str) -> dict[tuple[str, ...], float]:
    """The page of a node as the client machine reads it."""
    page = cluster.lab.client.run(sys.executable, "-c", READ, f"http://{cluster.machine(node).address()}:7414/metrics")
    return {
        (s.name, *sorted(s.labels.values())): s.value for f in text_string_to_metric_families(page) for s in f.samples
    }


def story(cluster: Cluster, group: str, what: str) -> dict[str, Any]:
    """The timeline of the one change of that kind."""
    rows = json.loads(cluster.hasys("history", group, "-o", "json"))
    (found,) = [row["timeline"] for row in rows if row.get("timeline", {}).get("what") == what]
    assert isinstance(found, dict)
    return found


def test_i6_a_failover_is_told_part_by_part_and_counted_by_the_node_that_is_left(lab: Lab) -> None:
    cluster = Cluster(lab)
    for node in cluster.nodes:
        with (cluster.folder / node / "node.yaml").open("a") as file:
            file.write("telemetry: {prometheus: {}}\n")
    cluster.start()
    cluster.wait_ready()
    cluster.apply(group_manifest() + address_manifest("10.77.0.100/24"))
    active = cluster.wait_redundant("web")
    (standby,) = set(cluster.nodes) - {active}
    before = scraped(cluster, standby)
    assert (before["hasys_up",], before["hasys_group_active", active, "web"]) == (1, 1)

    lab.power_off(active)
    cluster.wait_running("web", standby)

    line = story(cluster, "web", "failover")
    at = {mark["reason"]: nanoseconds(parse_duration(mark["end"])) for mark in line["marks"]}
    leaders = [at[reason] for reason in ("FailoverStarted", "GroupGranted", "GroupRunning")]
    assert leaders == sorted(leaders), line
    for reported in ("GroupPermitted", "ResourceStarted"):  # never dated before it was, nor after it was heard
        assert at["GroupGranted"] <= at[reported] <= at["GroupRunning"], line
    assert line["marks"][0]["reason"] == "Detected"
    assert (line["from"], line["to"], line["served"]) == (active, standby, True)
    assert f"the lease of {active} is over" in json.dumps(line)

    def counted() -> bool:
        page = scraped(cluster, standby)
        moved = (page.get(("hasys_group_active", active, "web")), page.get(("hasys_group_active", standby, "web")))
        return (page.get(("hasys_events_total", "FailoverStarted", "Warning")), moved) == (1, (0, 1))

    until(counted, 20, "the failover to be counted by the node that is left")
