"""One round: strike as drawn, wait until the storm is over, judge, repair, judge again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hasys.lab.cluster import Cluster, address_manifest, application_manifest, group_manifest
from hasys.lab.lab import Lab
from hasys.lab.shell import until
from tests.lab.stage import GROUP, PORT, VIP, VIP6, Stage
from tests.lab.storm import app, judge
from tests.lab.storm.damage import Damage
from tests.lab.storm.schedule import CALM, Strike
from tests.lab.storm.strikes import NOTES, Storm

HEALED = 45.0
"""Seconds from the repair until every group runs with a Standby behind it (L4)."""

Say = Callable[[str], None]


@contextmanager
def stage_for_storms(profile: str = "default") -> Iterator[tuple[Stage, Path]]:
    """A cluster with one group of two addresses and an application that writes down when it runs."""
    with Lab() as lab:
        marks = lab.record.data / "marks"
        marks.mkdir()
        cluster = Cluster(lab, profile=profile)
        cluster.start()
        cluster.wait_ready()
        command = (sys.executable, str(Path(app.__file__)), str(marks))
        cluster.apply(
            group_manifest(GROUP)
            + address_manifest(f"{VIP}/24")
            + address_manifest(f"{VIP6}/64", name="web-ip6")
            + application_manifest(command, extra={"restart": {"retries": 5, "startTime": "200ms", "backoff": "200ms"}})
            + group_manifest(NOTES)
        )
        cluster.wait_running(GROUP)
        stage = Stage(cluster, lab.watch([VIP, VIP6], cluster.nodes), lab.probe(VIP), lab.http_probe(VIP, PORT))
        stage.wait_holder(cluster.wait_redundant(GROUP))
        stage.probe.wait_answer(10)
        yield stage, marks


def play(stage: Stage, marks: Path, strikes: list[Strike], say: Say) -> float:
    """Raises :class:`tests.lab.storm.judge.Violation`, or :class:`TimeoutError` when a repaired cluster does not
    recover (L4). Returns the client's longest time without an answer, in seconds."""
    since = time.monotonic()
    storm = Storm(stage, Damage(stage.cluster.members, stage.cluster.nodes))
    try:
        for strike in strikes:
            _wait(strike.after)
            say(f"  {time.monotonic() - since:6.2f} s  {storm.strike(strike)}")
        _wait(CALM)
        judge.never_two(stage, marks, since, guarded=not storm.damage.unguarded)
        if storm.damage.must_serve() and not judge.served(stage, since):
            raise judge.Violation(f"L1: not served {CALM:g} s after the last fault: {judge.told(stage)}")
        if not judge.served(stage, since):
            say(f"          not served, as may be; status: {judge.told(stage)}")
    finally:
        storm.repair()
    active = stage.cluster.wait_redundant(GROUP, HEALED)
    stage.wait_holder(active)
    stage.probe.wait_answer(10)
    judge.never_two(stage, marks, since, guarded=not storm.damage.unguarded)
    judge.nothing_lost(stage, storm.acknowledged)
    stage.cluster.wait_running(NOTES, timeout=HEALED)
    for name in storm.acknowledged:
        stage.cluster.hasys("delete", "delay", name, "-g", NOTES)
    return stage.probe.outage(since).longest


def _wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, seconds + 5, "time to pass")
