"""A24: three nodes vote, eight more only run groups (observers); each is a whole ``hasys node run``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hasys.lab.cluster import Cluster, address_manifest, group_manifest, group_of, runs
from hasys.lab.feed import Status
from hasys.lab.lab import Lab
from hasys.lab.shell import until
from tests.lab.stage import pause

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(600)]

VOTERS = ("n1", "n2", "n3")
OBSERVERS = tuple(f"o{i}" for i in range(1, 9))
PATIENCE = 120.0
"""Seconds for eleven nodes to start on two cores."""
MEASURED = 20.0
"""Seconds during which the leader's processor time is counted."""
MOST = 50.0
"""Percent of one core that the leader of a hundred nodes may use; eleven must do with less."""


def address(number: int) -> str:
    return f"10.77.0.{101 + number}"


def homes() -> dict[str, tuple[str, str]]:
    """Group -> the observer that it prefers, and the one beside it."""
    return {f"g{i}": (first, OBSERVERS[(i + 1) % len(OBSERVERS)]) for i, first in enumerate(OBSERVERS)}


def running(status: Status, wanted: dict[str, str]) -> bool:
    """Each of these groups runs, with all it has, on the node named."""
    return all(runs(status, name, home) for name, home in wanted.items())


def used(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def leaders_share(cluster: Cluster) -> float:
    """Percent of one core that the leader's store uses while nothing happens."""
    leader = cluster.status()["cluster"]["leader"]
    (store,) = cluster.machine(leader).processes("store")
    before, began = used(store), time.monotonic()
    pause(MEASURED)
    share = 100 * (used(store) - before) / (time.monotonic() - began)
    assert cluster.status()["cluster"]["leader"] == leader
    return share


def test_a24_groups_of_eight_observers_survive_the_loss_of_one_of_them_and_never_have_two_holders(lab: Lab) -> None:
    cluster = Cluster(lab, nodes=VOTERS, witness=None, observers=OBSERVERS)
    cluster.start()
    status = cluster.wait_ready(PATIENCE)
    assert {n["name"]: n["role"] for n in status["nodes"]} == (
        dict.fromkeys(VOTERS, "Voter") | dict.fromkeys(OBSERVERS, "Observer")
    )
    assert status["cluster"]["voters"] == len(VOTERS)
    cluster.apply("".join(
        group_manifest(name, {first: 100, second: 50}) + address_manifest(f"{address(i)}/24", f"{name}-ip", name)
        for i, (name, (first, second)) in enumerate(homes().items())
    ))  # fmt: skip
    wanted = {name: first for name, (first, _) in homes().items()}
    cluster.wait(lambda s: running(s, wanted), PATIENCE, "every group to run on its observer")
    share = leaders_share(cluster)
    print(f"\nthe leader's store uses {share:.1f} % of a core with {len(cluster.nodes)} nodes and {len(wanted)} groups")
    assert share < MOST

    watch = lab.watch([address(0), address(1)], ["o1", "o2"])
    until(lambda: watch.holders(address(0)) == ["o1"], 10, "the watcher to see o1")
    since = time.monotonic()
    lab.power_off("o1")
    wanted["g0"] = "o2"
    cluster.wait(lambda s: running(s, wanted), PATIENCE, "g0 to run on o2, and every other where it was")
    until(lambda: watch.holders(address(0)) == ["o2"], 10, "the watcher to see o2")
    lab.power_on("o1")
    status = cluster.wait_ready(PATIENCE)
    assert running(status, wanted)
    assert group_of(status, "g0")["nodes"] == {"o1": "Standby", "o2": "Active"}
    assert watch.holders(address(0)) == ["o2"]
    watch.assert_never_two(since)
