"""The stage of two nodes without a third voter, whatever the policy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hasys.lab.cluster import Cluster, address_manifest, application_manifest, group_manifest, group_of
from hasys.lab.instruments import Probe, Watch
from hasys.lab.lab import Lab
from hasys.lab.shell import until
from tests.lab.stage import GROUP, PORT, VIP, WEB_SERVER, pause

MANIFEST = group_manifest(GROUP) + address_manifest(f"{VIP}/24") + application_manifest(WEB_SERVER)
LEASE_OVER = 1.5
"""Seconds after which whatever held by time would have ended (TTL 0.5 s, and the fence)."""
ALONE = 15.0
"""Seconds within which a node that boots alone serves what it had last: it listens for ten TTLs first, here 5 s."""


class Two:
    """Two nodes; ``web`` runs on n1."""

    def __init__(self, lab: Lab, *options: str, made: Callable[[Cluster], None] = lambda _: None) -> None:
        """``options`` of ``hasys init``; ``made``: what an operator does between that and the first start."""
        self.lab = lab
        self.cluster = Cluster(lab, witness=None, profile="fast", options=options)
        made(self.cluster)
        self.cluster.start()
        self.cluster.wait_ready()
        self.cluster.apply(MANIFEST)
        assert self.cluster.wait_running(GROUP) == "n1"
        self.watch: Watch = lab.watch([VIP], self.cluster.nodes)
        self.web: Probe = lab.http_probe(VIP, PORT)
        self.web.wait_answer(10)

    def settle(self) -> float:
        """Both see each other, ``web`` runs on n1 and could go to n2; what is to be remembered lies on disks."""
        if self.cluster.settle(GROUP, redundant=False) != "n1":
            self.cluster.hasys("switchover", GROUP, "--to", "n1")
            self.cluster.wait_running(GROUP, active="n1")
        self.web.wait_answer(10, since=time.monotonic())
        pause(2)
        return time.monotonic()

    def watched(self) -> Iterator[Two]:
        """For a fixture: settled; when the test is over, never were there two holders of the address."""
        began = self.settle()
        yield self
        self.watch.assert_never_two(began)
        assert self.watch.asked(VIP, began), "the watcher did not watch"

    def servers(self, name: str) -> set[int]:
        return set(self.lab.machines[name].processes("http.server"))

    def lose(self, name: str) -> None:
        self.lab.power_off(name)

    def wait_holder(self, holders: list[str], timeout: float) -> None:
        until(lambda: self.watch.holders(VIP) == holders, timeout, f"the address to be on {holders or 'nobody'}")

    def wait_standby(self, name: str) -> None:
        self.cluster.wait(lambda s: group_of(s, GROUP)["nodes"][name] == "Standby", 20, f"{name} to be Standby")

    def alone_on(self, name: str) -> Mapping[str, Any]:
        """The group as ``hasys status`` shows it on a node without a majority."""
        return group_of(json.loads(self.cluster.on_node(name, "status", "-o", "json").stdout), GROUP)

    def assert_a_lost_active_is_taken_over_and_returns_as_standby(self, why: str) -> None:
        """``why``: what status says on the node that has it then."""
        self.cluster.wait_redundant(GROUP)
        self.lose("n1")
        self.wait_holder(["n2"], ALONE)
        self.web.wait_answer(10, since=time.monotonic())
        assert why in self.alone_on("n2")["reason"]
        server = self.servers("n2")
        self.lab.power_on("n1")
        self.cluster.wait_running(GROUP, active="n2")
        self.wait_standby("n1")
        assert self.servers("n2") == server, "it goes on under the leader's epoch, without a stop"
        self.cluster.wait_redundant(GROUP)

    def assert_only_the_last_active_starts_alone(self) -> None:
        """Both lose their power, n1 last; each returns alone."""
        self.lose("n2")
        self.lose("n1")
        self.lab.power_on("n2")
        pause(ALONE)
        assert self.watch.holders(VIP) == []
        self.lose("n2")
        self.lab.power_on("n1")
        self.wait_holder(["n1"], ALONE)
        until(lambda: self.servers("n1"), 10, "the program to run")
        server = self.servers("n1")
        self.lab.power_on("n2")
        self.cluster.wait_running(GROUP, active="n1")
        assert self.servers("n1") == server

    def assert_both_that_boot_end_in_the_last_active(self) -> None:
        """Both lose their power, and return at once."""
        for name in ("n1", "n2"):
            self.lose(name)
        for name in ("n2", "n1"):
            self.lab.power_on(name)
        assert self.cluster.wait_running(GROUP) == "n1"
