"""Two nodes without a third voter, policy safe, on real kernels: the rows of docs/two-nodes.md.

The last test lets two nodes serve, and leaves clients that learnt the wrong one: nothing may come after it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from hasys.lab.cluster import group_of
from hasys.lab.shell import until
from tests.lab.stage import GROUP, VIP, lab_or_skip, pause
from tests.lab.two import ALONE, LEASE_OVER, Two

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def staged() -> Iterator[Two]:
    with lab_or_skip() as lab:
        yield Two(lab)


@pytest.fixture
def two(staged: Two) -> Iterator[Two]:
    yield from staged.watched()


def test_a_cut_link_stops_nothing_and_starts_nothing_and_status_names_the_policy(two: Two) -> None:
    status = two.cluster.status()
    assert status["cluster"]["policy"] == "safe"
    assert (status["cluster"]["failoverBound"], group_of(status, GROUP)["failoverBound"]) == ("", "")
    server, struck = two.servers("n1"), time.monotonic()
    two.lab.partition(["n1"], ["n2"])
    pause(2 * LEASE_OVER)
    assert two.watch.holders(VIP) == ["n1"]
    two.lab.heal()
    two.cluster.wait_running(GROUP, active="n1")
    pause(1)
    assert two.servers("n1") == server
    assert not two.servers("n2")
    assert two.web.outage(struck).felt < 0.3


def test_a_lost_standby_stops_nothing_while_agent_store_and_guard_restart(two: Two) -> None:
    server = two.servers("n1")
    two.lose("n2")
    pause(LEASE_OVER)
    struck = time.monotonic()
    node = two.lab.machines["n1"]
    for role in ("store", "agent", "guard"):
        gone = set(node.kill(role))
        until(lambda r=role, g=gone: set(node.processes(r)) - g, 10, f"{role} to be started again")  # type: ignore[misc]
        pause(LEASE_OVER)
        assert two.watch.holders(VIP) == ["n1"]
    assert two.servers("n1") == server
    assert two.web.outage(struck).felt < 1.5, "more than a guard's restart"


def test_a_lost_active_is_taken_over_on_an_operators_word_alone_and_returns_as_standby(two: Two) -> None:
    two.lose("n1")
    pause(2 * LEASE_OVER)
    assert two.watch.holders(VIP) == []
    unconfirmed = two.cluster.on_node("n2", "failover", GROUP, "--force", "--to", "n2")
    assert unconfirmed.returncode == 1
    assert "n1" in unconfirmed.stderr
    done = two.cluster.on_node("n2", "failover", GROUP, "--force", "--to", "n2", "--yes", "--reason", "n1 burnt")
    assert done.returncode == 0, done.stderr
    two.wait_holder(["n2"], 5)
    two.web.wait_answer(5)  # the program behind the address starts after it
    back = time.monotonic()
    two.lab.power_on("n1")
    two.cluster.wait_running(GROUP, active="n2")
    two.wait_standby("n1")
    assert two.watch.holders(VIP) == ["n2"]
    assert two.web.outage(back).felt < 0.5


def test_after_a_cold_start_only_the_last_active_starts_alone(two: Two) -> None:
    two.assert_only_the_last_active_starts_alone()


def test_both_that_boot_at_once_end_in_the_last_active(two: Two) -> None:
    two.assert_both_that_boot_end_in_the_last_active()


def test_a_switchover_works_and_an_active_that_slept_alone_goes_on(two: Two) -> None:
    struck = time.monotonic()
    two.cluster.hasys("switchover", GROUP, "--to", "n2")
    assert two.cluster.wait_running(GROUP) == "n2"
    two.web.wait_answer(5)
    assert two.web.outage(struck).felt < 1.0
    two.lose("n1")
    pause(1)
    node = two.lab.machines["n2"]
    frozen = node.freeze()
    pause(LEASE_OVER)
    assert two.watch.holders(VIP) == []
    node.thaw(frozen)
    two.wait_holder(["n2"], ALONE)
    seen = json.loads(two.cluster.on_node("n2", "status", "-o", "json").stdout)
    assert group_of(seen, GROUP)["active"] == "n2"


def test_when_the_operators_word_was_wrong_the_token_wins_at_once(staged: Two) -> None:
    """Two served: that is what the warning says."""
    staged.settle()
    server = staged.servers("n1")
    staged.lab.partition(["n1"], ["n2"])
    pause(LEASE_OVER)
    done = staged.cluster.on_node("n2", "failover", GROUP, "--force", "--to", "n2", "--yes")
    assert done.returncode == 0, done.stderr
    staged.wait_holder(["n1", "n2"], 10)
    staged.lab.heal()
    staged.wait_holder(["n1"], 5)
    until(lambda: not staged.servers("n2"), 5, "the other program to be gone")
    assert staged.servers("n1") == server
