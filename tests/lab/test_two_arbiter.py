"""Two nodes without a third voter, policy arbiter, on real kernels: the rows of docs/two-nodes.md.

The shared disk is a loop device that both machines open: one block layer for both, past the page cache."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.stage import GROUP, VIP, lab_or_skip, pause
from tests.lab.two import ALONE, LEASE_OVER, Two

pytestmark = pytest.mark.lab


@contextmanager
def disk(image: Path) -> Iterator[str]:
    """A block device of zeros."""
    image.write_bytes(bytes(1 << 20))
    made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True)
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with lab_or_skip() as lab, disk(tmp_path_factory.mktemp("arbiter") / "image") as device:
        yield Two(lab, "--policy", "arbiter", "--arbiter", device)


@pytest.fixture
def two(staged: Two) -> Iterator[Two]:
    yield from staged.watched()


def test_a_cut_link_moves_nothing_for_who_has_the_lock_goes_on(two: Two) -> None:
    assert two.cluster.status()["cluster"]["policy"] == "arbiter"
    server, struck = two.servers("n1"), time.monotonic()
    two.lab.partition(["n1"], ["n2"])
    pause(3 * LEASE_OVER)
    assert two.watch.holders(VIP) == ["n1"]
    two.lab.heal()
    two.cluster.wait_running(GROUP, active="n1")
    assert two.servers("n1") == server
    assert not two.servers("n2")
    assert two.web.outage(struck).longest < LEASE_OVER, "no lease ended, nothing was started again"


def test_a_lost_active_is_taken_over_and_returns_as_standby(two: Two) -> None:
    two.lose("n1")
    two.wait_holder(["n2"], ALONE)
    two.web.wait_answer(10, since=time.monotonic())
    assert "policy arbiter" in two.alone_on("n2")["reason"]
    server = two.servers("n2")
    two.lab.power_on("n1")
    two.cluster.wait_running(GROUP, active="n2")
    two.wait_standby("n1")
    assert two.servers("n2") == server, "it goes on under the leader's epoch, without a stop"


@pytest.mark.long
def test_a_lost_standby_moves_nothing(two: Two) -> None:
    server = two.servers("n1")
    two.lose("n2")
    pause(ALONE)
    assert two.watch.holders(VIP) == ["n1"]
    assert two.servers("n1") == server


@pytest.mark.long
def test_after_a_cold_start_only_the_last_active_starts_alone(two: Two) -> None:
    two.assert_only_the_last_active_starts_alone()


@pytest.mark.long
def test_who_was_replaced_does_not_start_alone_and_who_replaced_it_does(two: Two) -> None:
    """Where the policy safe warns, the disk knows."""
    two.lose("n1")
    two.wait_holder(["n2"], ALONE)
    pause(2)
    two.lose("n2")
    two.lab.power_on("n1")
    pause(ALONE)
    assert two.watch.holders(VIP) == []
    two.lose("n1")
    two.lab.power_on("n2")
    two.wait_holder(["n2"], ALONE)
    two.lab.power_on("n1")
    two.cluster.wait_running(GROUP, active="n2")


@pytest.mark.long
def test_a_standby_that_serves_nobody_stays_out(two: Two) -> None:
    two.lab.machines["n2"].cable(plugged=False)
    two.lab.machines["n1"].cable(plugged=False)
    pause(2 * LEASE_OVER)
    assert not two.servers("n2")
    assert two.watch.holders(VIP) == []
    two.lab.machines["n1"].cable(plugged=True)
    two.wait_holder(["n1"], ALONE)


@pytest.mark.long
def test_both_that_boot_at_once_end_in_the_last_active(two: Two) -> None:
    two.assert_both_that_boot_end_in_the_last_active()
