"""Two nodes without a third voter, policy arbiter, on real kernels: the rows of docs/two-nodes.md.

The shared disk is an image with a loop device for each machine, which does without when that machine lost it: both
devices work on the same pages of the image, past a page cache of their own."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hasys.lab.cluster import Cluster, group_of
from hasys.lab.feed import Status
from hasys.lab.lab import missing
from tests.lab.stage import GROUP, VIP, lab_or_skip, pause
from tests.lab.two import ALONE, LEASE_OVER, Two

pytestmark = pytest.mark.lab

LIFE_OVER = 5.0
"""Seconds after which a lock that nobody renews is over (five TTLs of 0.5 s), the fence and a late round included."""
_GET, _SET = 0x4C05, 0x4C04  # LOOP_GET_STATUS64, LOOP_SET_STATUS64: loop(4)
_STATUS, _OFFSET = 232, 24  # struct loop_info64: its size, and where lo_offset lies
IMAGE = 1 << 20
"""Bytes."""


class Disk:
    """What both machines open, each by a device of its own."""

    def __init__(self, image: Path) -> None:
        image.write_bytes(bytes(IMAGE))
        self.device = {name: _loop(image) for name in ("n1", "n2")}

    def name_it(self, cluster: Cluster) -> None:
        """Each node's settings name its own device."""
        for name, device in self.device.items():
            settings = cluster.folder / name / "node.yaml"
            settings.write_text(settings.read_text("utf-8").replace(self.device["n1"], device), "utf-8")

    def lose(self, *names: str) -> None:
        """From now on every read and write of theirs fails."""
        for name in names:
            self._begin_at(name, IMAGE)

    def give_back(self) -> None:
        for name in self.device:
            self._begin_at(name, 0)

    def close(self) -> None:
        for device in self.device.values():
            subprocess.run(["losetup", "--detach", device], check=True)

    def _begin_at(self, name: str, offset: int) -> None:
        """At the end of the image nothing is left of the device."""
        fd = os.open(self.device[name], os.O_RDWR | os.O_CLOEXEC)
        try:
            status = bytearray(_STATUS)
            fcntl.ioctl(fd, _GET, status)
            struct.pack_into("Q", status, _OFFSET, offset)
            fcntl.ioctl(fd, _SET, bytes(status))
        finally:
            os.close(fd)


def _loop(image: Path) -> str:
    made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True)
    return made.stdout.strip()


@contextmanager
def shared_disk(image: Path) -> Iterator[Disk]:
    """A block device of zeros."""
    disk = Disk(image)
    try:
        yield disk
    finally:
        disk.close()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    if lack := missing():
        pytest.skip(lack)
    with shared_disk(tmp_path_factory.mktemp("arbiter") / "image") as made:
        yield made


@pytest.fixture(scope="module")
def staged(disk: Disk) -> Iterator[Two]:
    with lab_or_skip() as lab:
        yield Two(lab, "--policy", "arbiter", "--arbiter", disk.device["n1"], made=disk.name_it)


@pytest.fixture
def two(staged: Two, disk: Disk) -> Iterator[Two]:
    disk.give_back()
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
    two.assert_a_lost_active_is_taken_over_and_returns_as_standby("policy arbiter")


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


def _wait_told(two: Two, nodes: set[str]) -> None:
    """Until status says of these nodes, and no others, that the disk decides nothing."""

    def told(status: Status) -> bool:
        return {n["name"] for n in status["nodes"] if "arbiter: " in n["message"]} == nodes

    two.cluster.wait(told, 20, f"status to name {nodes or 'nobody'}")


@pytest.mark.long
def test_a_lost_disk_moves_nothing_while_both_see_each_other_and_status_says_it(two: Two, disk: Disk) -> None:
    server = two.servers("n1")
    for lost in ({"n1"}, {"n1", "n2"}):
        disk.lose(*lost)
        _wait_told(two, lost)
        pause(LIFE_OVER)
        assert two.watch.holders(VIP) == ["n1"]
        assert group_of(two.cluster.status(), GROUP)["redundant"] is ("n2" not in lost)
    disk.give_back()
    _wait_told(two, set())
    two.cluster.wait_redundant(GROUP)
    assert two.servers("n1") == server
    assert not two.servers("n2")


@pytest.mark.long
def test_who_sees_neither_the_disk_nor_the_peer_stops_and_the_other_takes_over(two: Two, disk: Disk) -> None:
    disk.lose("n1")
    two.lab.partition(["n1"], ["n2"])
    two.wait_holder(["n2"], ALONE)
    two.web.wait_answer(10, since=time.monotonic())
    assert not two.servers("n1")
    server = two.servers("n2")
    disk.give_back()
    pause(LIFE_OVER)
    assert two.watch.holders(VIP) == ["n2"], "who lost its lock stays out, the link is still cut"
    two.lab.heal()
    two.cluster.wait_running(GROUP, active="n2")
    two.wait_standby("n1")
    assert two.servers("n2") == server


@pytest.mark.long
def test_without_link_and_disk_nobody_serves_and_the_link_mends_it(two: Two, disk: Disk) -> None:
    disk.lose("n1", "n2")
    two.lab.partition(["n1"], ["n2"])
    two.wait_holder([], ALONE)
    pause(ALONE)
    assert two.watch.holders(VIP) == []
    assert not two.servers("n1") | two.servers("n2")
    two.lab.heal()
    two.wait_holder(["n1"], ALONE)
    two.cluster.wait_running(GROUP, active="n1")
    two.web.wait_answer(10, since=time.monotonic())


@pytest.mark.long
def test_who_was_cut_off_while_the_active_went_on_does_not_take_over_what_it_does_not_know(two: Two) -> None:
    two.lab.partition(["n1"], ["n2"])
    pause(LIFE_OVER)
    assert two.watch.holders(VIP) == ["n1"]
    two.lose("n1")
    pause(ALONE)
    assert two.watch.holders(VIP) == []
    two.lab.power_on("n1")
    two.wait_holder(["n1"], ALONE)
    two.lab.heal()
    two.cluster.wait_running(GROUP, active="n1")
    assert not two.servers("n2")
