"""A24 with as many groups as are promised: 256 of one address each on three nodes."""

from __future__ import annotations

import time

import pytest

from hasys.lab.cluster import Cluster, address_manifest, group_manifest, runs
from hasys.lab.feed import Status
from hasys.lab.lab import Lab
from hasys.lab.shell import until

pytestmark = [pytest.mark.lab, pytest.mark.long]

GROUPS = 256
MORE = 2.0
"""Seconds that all of them may take beyond the bound of a single group."""
PATIENCE = 120.0


def address(number: int) -> str:
    return f"10.79.{number // 200}.{number % 200 + 1}"


def manifest() -> str:
    """Half of the groups prefer n1, half n2; n3 is every group's second node."""
    return "".join(
        group_manifest(f"g{i}", {("n1", "n2")[i % 2]: 100, "n3": 50})
        + address_manifest(f"{address(i)}/32", f"g{i}-ip", f"g{i}")
        for i in range(GROUPS)
    )


def running(status: Status, node: str) -> int:
    """Groups that run on a node, with their addresses."""
    return sum(runs(status, group["name"], node) for group in status["groups"])


def test_a24_a_node_that_has_128_of_256_groups_is_lost_and_all_of_them_run_elsewhere(lab: Lab) -> None:
    cluster = Cluster(lab, nodes=("n1", "n2", "n3"), witness=None)
    cluster.start()
    cluster.wait_ready()
    cluster.apply(manifest())
    half = GROUPS // 2
    cluster.wait(lambda s: running(s, "n1") == running(s, "n2") == half, PATIENCE, "every group to run where it should")
    seen = [address(i) for i in (0, 1, GROUPS - 2, GROUPS - 1)]
    watch = lab.watch(seen, cluster.nodes)
    until(lambda: [watch.holders(one) for one in seen] == [["n1"], ["n2"]] * 2, 10, "four of the addresses to answer")
    bound = max(float(group["failoverBound"].removesuffix("s")) for group in cluster.status()["groups"])
    struck = time.monotonic()
    lab.power_off("n1")
    status = cluster.wait(lambda s: running(s, "n3") == half, PATIENCE, f"{half} groups to run on n3")
    took = time.monotonic() - struck
    assert took <= bound + MORE
    assert running(status, "n2") == half, "the others stay where they are"
    until(lambda: [watch.holders(one) for one in seen] == [["n3"], ["n2"]] * 2, 10, "the four addresses to answer")
    watch.assert_never_two(struck)
