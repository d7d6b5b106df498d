"""The stage of the failover tests: one cluster, one group (two addresses, one web server), every instrument running."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from hasys.lab.cluster import Cluster, address_manifest, application_manifest, group_manifest
from hasys.lab.instruments import Probe, Watch
from hasys.lab.lab import Lab, missing
from hasys.lab.machine import Machine
from hasys.lab.shell import until

VIP, VIP6, PORT = "10.77.0.100", "fd77::100", 8080
GROUP = "web"

WORST = 3.0
"""Seconds: no single failover may take the address away from the client for longer."""
UNFELT = 0.1
"""Seconds: what must not be felt may cost no more than this, the probe's own pauses aside."""

_SERVE = f"python3 -m http.server {PORT} --directory /proc/sys/kernel/random"
WEB_SERVER = ("sh", "-c", f"test ! -e /run/broken && exec {_SERVE}")
"""Dies at once on a machine where /run/broken exists."""

MANIFEST = (
    group_manifest(GROUP)
    + address_manifest(f"{VIP}/24")
    + address_manifest(f"{VIP6}/64", name="web-ip6")
    + application_manifest(WEB_SERVER, extra={"restart": {"retries": 2, "startTime": "500ms", "backoff": "200ms"}})
)


@dataclass
class Stage:
    """A settled cluster and what watches it."""

    cluster: Cluster
    watch: Watch
    probe: Probe
    web: Probe

    @property
    def lab(self) -> Lab:
        return self.cluster.lab

    def settle(self) -> str:
        """Undo the last fault, wait until the group could survive the next one; returns its Active."""
        active = self.cluster.settle(GROUP)
        self.web.wait_answer(10)
        return active

    def other(self, node: str) -> str:
        return next(n for n in self.cluster.nodes if n != node)

    def machine(self, name: str) -> Machine:
        return self.lab.machines[name]

    def wait_holder(self, node: str | None, timeout: float = 10.0) -> None:
        """Wait until exactly ``node`` (None: nobody) holds the addresses, IPv4 and IPv6."""
        expected = [node] if node else []
        until(
            lambda: all(self.watch.holders(address) == expected for address in (VIP, VIP6)),
            timeout,
            f"{node or 'nobody'} to hold {VIP} and {VIP6}",
        )

    def make_leader(self, wanted: str) -> None:
        """``wanted`` leads, and the group is settled."""
        self.cluster.make_leader(wanted, GROUP)
        self.web.wait_answer(10)

    def assert_felt_at_most(self, since: float, seconds: float) -> None:
        """The client is served, and missed the address for no longer than that, the probe's own pauses aside."""
        self.probe.wait_answer(10)
        felt = self.probe.outage(since).felt
        assert felt <= seconds, f"away for {felt * 1000:.0f} ms"

    def assert_stayed(self, node: str, since: float) -> None:
        """Nobody but ``node`` answered for the address since then, and the client felt nothing."""
        for name in self.cluster.nodes:
            if name != node:
                assert self.watch.last_answer(VIP, name, since) is None, f"{name} answered"
        self.assert_felt_at_most(since, UNFELT)


MOVES = frozenset({"GroupAssigned", "FailoverStarted", "MoveStarted", "RestartOnNode", "GroupUnassigned"})
"""Reasons of events that tell of another epoch."""


@dataclass(frozen=True)
class Act:
    """One test's view of the stage."""

    stage: Stage
    active: str
    standby: str
    since: float
    """When the stage was settled; never-two is asserted from here to the test's end."""
    began: datetime
    """The same by the wall clock, which events carry."""

    @classmethod
    def begin(cls, stage: Stage, active: str) -> Act:
        return cls(stage, active, stage.other(active), time.monotonic(), datetime.now(UTC))

    def events(self) -> list[dict[str, Any]]:
        """What was recorded since the stage was settled, oldest first."""
        found = json.loads(self.stage.cluster.hasys("events", "--limit", "300", "-o", "json"))
        return [e for e in found if datetime.fromisoformat(e["time"]) >= self.began]

    def told(self, reason: str, *words: str, within: float = 10.0) -> str:
        """Wait until an event of that reason with all these words in it is recorded; returns its text."""

        def message() -> str:
            texts = [e["message"] for e in self.events() if e["reason"] == reason]
            return next((text for text in texts if all(word in text for word in words)), "")

        return until(message, within, f"an event {reason} that says {', '.join(words)}", every=0.2)

    def moves(self) -> list[str]:
        """Events of the group that tell of another epoch, since the stage was settled."""
        return [e["message"] for e in self.events() if e["reason"] in MOVES and e["regarding"]["name"] == GROUP]

    def assert_unmoved(self, struck: float) -> None:
        """Nobody but the Active answered, nothing was felt, and no event tells of another epoch."""
        self.stage.assert_stayed(self.active, struck)
        assert self.moves() == []


@contextmanager
def lab_or_skip() -> Iterator[Lab]:
    """An empty lab (switch, client, observer); where there can be none the test is skipped, and says why."""
    lack = missing()
    if lack:
        pytest.skip(lack)
    with Lab() as made:
        yield made


def raise_stage() -> Iterator[Stage]:
    """Build everything; take it down when resumed."""
    with lab_or_skip() as lab:
        cluster = Cluster(lab)
        cluster.start()
        cluster.wait_ready()
        cluster.apply(MANIFEST)
        cluster.wait_running(GROUP)
        yield Stage(cluster, lab.watch([VIP, VIP6], cluster.nodes), lab.probe(VIP), lab.http_probe(VIP, PORT))


def pause(seconds: float) -> None:
    """Let real time pass while the instruments record: for claims that something does *not* happen."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, seconds + 5, "time to pass")
