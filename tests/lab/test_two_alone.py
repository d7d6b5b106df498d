"""Two nodes without a third voter, policy alone-allowed, on real kernels: the rows of docs/two-nodes.md.

Both may serve while the link is cut, so only the rows in which it is whole watch for two holders."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import yaml

from hasys.lab.shell import until
from tests.lab.stage import GROUP, VIP, lab_or_skip, pause
from tests.lab.two import ALONE, LEASE_OVER, Two

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def staged() -> Iterator[Two]:
    with lab_or_skip() as lab:
        yield Two(lab, "--policy", "alone-allowed")


@pytest.fixture
def two(staged: Two) -> Two:
    staged.settle()
    return staged


def test_a_cut_link_lets_both_serve_and_on_healing_one_stops_at_once_and_keeps_aside_what_it_did(two: Two) -> None:
    assert two.cluster.status()["cluster"]["policy"] == "alone-allowed"
    server, struck = two.servers("n1"), time.monotonic()
    two.lab.partition(["n1"], ["n2"])
    two.wait_holder(["n1", "n2"], ALONE)
    assert time.monotonic() - struck > 5.0, "ten TTLs are waited for a sign of the peer"
    until(lambda: two.servers("n2"), 10, "the program to run on n2 too")
    assert "policy alone-allowed" in two.alone_on("n2")["reason"]
    two.lab.heal()
    two.wait_holder(["n1"], 5)
    until(lambda: not two.servers("n2"), 5, "the loser's program to be gone")
    two.cluster.wait_running(GROUP, active="n1")
    assert two.servers("n1") == server, "the winner is not touched"
    aside = two.cluster.folder / "n2" / "data" / "aside"
    until(lambda: aside.exists() and [*aside.glob("web-*.yaml")], 10, "the loser's history to be kept aside")
    kept = yaml.safe_load(next(aside.glob("web-*.yaml")).read_text())
    assert (kept["group"], kept["node"]) == ("web", "n2")
    assert "nothing was heard" in kept["cause"]
    assert "revoked" in kept["end"]
    assert {obj["kind"] for obj in kept["objects"]} == {"Group", "VirtualIP", "Application"}
    until(lambda: str(aside) in two.cluster.hasys("events"), 10, "an event to say where it lies")


@pytest.mark.long
def test_a_lost_active_is_taken_over_and_returns_as_standby(two: Two) -> None:
    began = time.monotonic()
    two.assert_a_lost_active_is_taken_over_and_returns_as_standby("policy alone-allowed")
    two.watch.assert_never_two(began)


@pytest.mark.long
def test_after_a_cold_start_only_the_last_active_starts_alone_also_when_it_was_alone_before(two: Two) -> None:
    began = time.monotonic()
    two.lose("n1")
    two.wait_holder(["n2"], ALONE)
    pause(2)
    two.lose("n2")
    two.lab.power_on("n2")
    two.wait_holder(["n2"], ALONE)
    two.lab.power_on("n1")
    two.cluster.wait_running(GROUP, active="n2")
    two.wait_standby("n1")
    pause(2)
    two.lose("n2")
    two.lose("n1")
    two.lab.power_on("n1")
    pause(ALONE)
    assert two.watch.holders(VIP) == [], "it was Standby, and has not seen its peer since it was started"
    two.lab.power_on("n2")
    two.cluster.wait_running(GROUP, active="n2")
    two.watch.assert_never_two(began)


@pytest.mark.long
def test_both_that_boot_at_once_end_in_the_last_active(two: Two) -> None:
    began = time.monotonic()
    two.assert_both_that_boot_end_in_the_last_active()
    two.watch.assert_never_two(began)


@pytest.mark.long
def test_a_standby_that_serves_nobody_stays_out(two: Two) -> None:
    """Its own cable is out: what it does not hear proves nothing about the peer."""
    began = time.monotonic()
    server = two.servers("n1")
    two.lab.machines["n2"].cable(plugged=False)
    pause(ALONE)
    assert two.watch.holders(VIP) == ["n1"]
    assert not two.servers("n2")
    two.lab.machines["n2"].cable(plugged=True)
    two.cluster.wait_running(GROUP, active="n1")
    pause(LEASE_OVER)
    assert two.servers("n1") == server
    two.watch.assert_never_two(began)
