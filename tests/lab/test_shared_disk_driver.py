"""SharedDisk on a real kernel: a loop device, real users of the mount, the guard's way to unmount."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
import pytest

from hasys.guard import unmount
from hasys.guard.fence import LinuxMachine
from hasys.guard.netlink import Route
from hasys.guard.protocol import MountEntry
from hasys.lab.disks import SharedDisk as Loop
from hasys.resources.cgroup import Cgroup, base_of
from hasys.resources.mounts import KernelMounts
from hasys.resources.output import Outputs
from hasys.resources.port import MountTrace, Place, State, Surroundings, Temporary
from hasys.resources.records import Records
from hasys.resources.service import Home
from hasys.resources.shared_disk import SharedDisk
from hasys.v1 import objects_pb2 as pb

pytestmark = [
    pytest.mark.lab,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


class Bench:
    """A disk, a place to mount it, and drivers for it."""

    def __init__(self, directory: Path) -> None:
        self.loop = Loop(directory / "disk.img")
        self.device = self.loop.device
        self.point = str(directory / "mnt")
        self.base = Cgroup(base_of(f"test-{os.getpid()}"))
        self.outputs = Outputs(directory / "output")
        self.records = Records(directory / "resources")
        self.events: list[str] = []
        self.permit = anyio.Event()
        self.permit.set()
        self.users: list[subprocess.Popen[bytes]] = []

    def driver(self, **changes: object) -> SharedDisk:
        spec = pb.SharedDiskSpec(device=self.device, mount_point=self.point, **changes)  # type: ignore[arg-type]
        place = Place("n1", "web", "disk", 1)
        around = Surroundings(place, self._permitted, lambda: None, lambda r, c: self.events.append(f"{r}: {c}"))
        helpers = Cgroup(self.base.path / "agent" / "web.disk")
        home = Home(place, Cgroup(self.base.path / "groups/web/disk"), helpers, self.records, self.outputs)
        return SharedDisk(around, spec, home, KernelMounts())

    async def _permitted(self) -> None:
        await self.permit.wait()

    @property
    def mounted(self) -> bool:
        return unmount.mounted(self.device, self.point)

    @asynccontextmanager
    async def running(self, driver: SharedDisk) -> AsyncIterator[SharedDisk]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(driver.run)
            await until(lambda: driver.condition.state in (State.RUNNING, State.FAILED))
            yield driver
            tasks.cancel_scope.cancel()

    def user(self) -> subprocess.Popen[bytes]:
        """A process outside of every cgroup of hasys that has a file open on the mount."""
        with Path(self.point, "held").open("wb") as held:
            self.users.append(subprocess.Popen(["sleep", "600"], stdout=held))  # returns when that is what it runs
        return self.users[-1]

    def options(self) -> str:
        return next(line for line in Path("/proc/self/mounts").read_text().splitlines() if self.point in line)

    def bystander(self) -> subprocess.Popen[bytes]:
        """A process whose directory is next to the mount."""
        self.users.append(subprocess.Popen(["sleep", "600"], cwd=Path(self.point).parent))
        return self.users[-1]

    def close(self) -> None:
        for user in self.users:
            user.kill()
            user.wait()
        wait_for(lambda: not unmount.unmount(self.device, self.point, kill=False))
        self.loop.close()
        self.base.kill()
        self.base.remove()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110  # the kernel tells nobody
            await anyio.sleep(0.005)


def sh(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


async def test_it_is_mounted_only_when_permitted_and_gone_after_a_stop(bench: Bench) -> None:
    bench.permit = anyio.Event()
    driver = bench.driver(options=["noatime"])
    assert driver.traces() == (MountTrace(bench.device, bench.point),)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run)
        await until(lambda: driver.condition.state is State.STARTING)
        assert not bench.mounted
        bench.permit.set()
        await until(lambda: driver.condition.state is State.RUNNING)
        tasks.cancel_scope.cancel()
    assert bench.mounted
    assert "noatime" in bench.options()
    await driver.stop(force=False)
    assert not bench.mounted
    assert not KernelMounts().in_use(bench.device)


async def test_a_new_agent_finds_what_is_mounted(bench: Bench) -> None:
    async with bench.running(bench.driver()):
        pass
    again = bench.driver()
    assert await again.adopt()
    await again.stop(force=False)
    assert not await again.adopt()


async def test_who_uses_it_is_named_and_killed_only_after_the_grace_time(bench: Bench) -> None:
    driver = bench.driver()
    driver._kill_after = 600.0  # longer than the first attempt takes on any machine
    async with bench.running(driver):
        pass
    user, bystander = bench.user(), bench.bystander()
    with pytest.raises(Temporary, match=rf"is used by process {user.pid} \(sleep\)"):
        await driver.stop(force=False)
    assert user.poll() is None
    driver._kill_after = 0.0
    await driver.stop(force=False)
    assert not bench.mounted
    assert user.wait() == -9
    assert bystander.poll() is None
    assert bench.events == [f"MountUsersKilled: {bench.point} is used by process {user.pid} (sleep)"]


async def test_a_stop_with_force_does_not_wait_for_users(bench: Bench) -> None:
    driver = bench.driver()
    async with bench.running(driver):
        pass
    user = bench.user()
    await driver.stop(force=True)
    assert not bench.mounted
    assert user.wait() == -9


async def test_a_second_mount_is_refused(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    sh("mount", bench.device, str(elsewhere))
    try:
        driver = bench.driver()
        driver._spec.mount_timeout.FromMilliseconds(300)
        async with bench.running(driver):
            assert driver.condition.state is State.FAILED
            assert f"in use on this machine (mounted on {elsewhere}): a second mount is refused" in (
                driver.condition.message
            )
            assert not bench.mounted
    finally:
        sh("umount", str(elsewhere))


async def test_a_mount_that_was_taken_away_by_hand_is_made_again(bench: Bench) -> None:
    async with bench.running(bench.driver()) as driver:
        sh("umount", bench.point)
        await until(lambda: bench.events != [])
        await until(lambda: bench.mounted and driver.condition.state is State.RUNNING)
    assert bench.events == [f"DriftRepaired: {bench.device} was unmounted from {bench.point}"]


async def test_a_file_system_that_became_read_only_has_failed(bench: Bench) -> None:
    async with bench.running(bench.driver()) as driver:
        sh("mount", "-o", "remount,ro", bench.point)
        await until(lambda: driver.condition.state is State.FAILED)
        assert "became read-only" in driver.condition.message


async def test_a_damaged_file_system_is_not_mounted_and_what_fsck_said_is_kept(bench: Bench) -> None:
    sh("dd", "if=/dev/zero", f"of={bench.device}", "bs=64k", "count=1")
    async with bench.running(bench.driver()) as driver:
        assert driver.condition.state is State.FAILED
        assert driver.condition.message.startswith("fsck.ext4 exit status 8")
        assert "superblock" in driver.condition.output
        assert not bench.mounted


async def test_the_guard_unmounts_though_somebody_uses_it_and_without_waiting_for_it(bench: Bench) -> None:
    async with bench.running(bench.driver()):
        pass
    user = bench.user()
    entry = MountEntry(bench.device, bench.point, "disk")
    machine = LinuxMachine(cast(Route, None))  # no address is looked at
    assert machine.mounted(entry)
    machine.unmount(entry)
    await until(lambda: not machine.mounted(entry))
    assert user.wait() == -9
