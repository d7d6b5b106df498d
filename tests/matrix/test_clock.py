"""Row 24 of the failover matrix: the wall clock decides nothing."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from hasys.lab.cluster import Cluster
from hasys.lab.lab import Lab
from tests.lab.stage import GROUP, MANIFEST, VIP, pause
from tests.matrix.clocks import build

pytestmark = [pytest.mark.lab, pytest.mark.long]

HOURS = 5 * 3600


def jump(cluster: Cluster, seconds: dict[str, int]) -> None:
    for name, by in seconds.items():
        (cluster.machine(name).root / "run/clock").write_text(f"{by}\n")


def now_on(cluster: Cluster, library: Path, name: str) -> float:
    """The machine's wall clock as its processes read it."""
    program = ("env", f"LD_PRELOAD={library}", "date", "+%s")
    return float(cluster.machine(name).run(*program))


def test_row_24_a_wall_clock_that_jumps_by_hours_moves_nothing(lab: Lab, tmp_path: Path) -> None:
    library = build(tmp_path)
    if library is None:
        pytest.skip("needs a C compiler, to give each machine a wall clock of its own")
    cluster = Cluster(lab)
    cluster.start(prefix=("env", f"LD_PRELOAD={library}"))
    cluster.wait_ready()
    cluster.apply(MANIFEST)
    active = cluster.wait_redundant(GROUP)
    epoch = cluster.group(GROUP)["epoch"]
    watch, probe = lab.watch([VIP], cluster.nodes), lab.probe(VIP)
    probe.wait_answer(10)
    struck = time.monotonic()
    for forward, back in (("n1", "n2"), ("n2", "w"), ("w", "n1")):
        jump(cluster, {forward: HOURS, back: -HOURS})
        assert abs(now_on(cluster, library, forward) - time.time() - HOURS) < 5
        pause(3)
    jump(cluster, dict.fromkeys(cluster.members, 0))
    pause(3)
    assert cluster.wait_redundant(GROUP) == active
    assert cluster.group(GROUP)["epoch"] == epoch
    seen = probe.outage(struck)
    assert seen.felt <= 0.1
    watch.assert_never_two(struck)
    cluster.hasys("switchover", GROUP)  # with a stamp of now, and everything works
    status = cluster.status()
    assert abs(datetime.fromisoformat(status["cluster"]["time"]).timestamp() - time.time()) < 30
