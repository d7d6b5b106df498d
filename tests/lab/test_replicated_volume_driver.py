"""B2: ReplicatedVolume on a real kernel and a real file system; DRBD is a stand-in, whose device is a loop device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from hasys.resources.drbd import Drbd
from hasys.resources.mounts import KernelMounts
from hasys.resources.port import MountTrace, State, Temporary
from hasys.resources.replicated_volume import ReplicatedVolume
from hasys.v1 import objects_pb2 as pb
from tests.lab.fake_drbd import FakeDrbd
from tests.lab.test_shared_disk_driver import Bench, sh, until

pytestmark = [
    pytest.mark.lab,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


class VolumeBench(Bench):
    """The same disk, replicated."""

    def __init__(self, directory: Path, version: int) -> None:
        super().__init__(directory)
        self.drbd = FakeDrbd(directory / "drbd", version, self.device)

    def driver(self, **changes: object) -> ReplicatedVolume:
        plain = super().driver()
        spec = pb.ReplicatedVolumeSpec(
            drbd_resource="r0", device=self.device, mount_point=self.point, **changes  # type: ignore[arg-type]
        )  # fmt: skip
        if not spec.HasField("promote_timeout"):
            spec.promote_timeout.FromSeconds(10)
        return ReplicatedVolume(plain.around, spec, plain._home, KernelMounts(), Drbd(self.drbd.kernel))


@pytest.fixture(params=[8, 9])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[VolumeBench]:
    made = VolumeBench(tmp_path, request.param)
    yield made
    made.close()


async def test_b2_it_is_promoted_before_it_is_mounted_and_demoted_after_it_is_unmounted(bench: VolumeBench) -> None:
    bench.permit = anyio.Event()
    driver = bench.driver()
    assert driver.traces() == (MountTrace(bench.device, bench.point),)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run)
        await until(lambda: driver.condition.state is State.STARTING)
        assert bench.drbd.calls == []
        bench.permit.set()
        await until(lambda: driver.condition.state is State.RUNNING)
        tasks.cancel_scope.cancel()
    assert (bench.mounted, bench.drbd.role) == (True, "Primary")
    assert await bench.driver().adopt()
    await driver.stop(force=False)  # a mounted one does not step back: the stand-in looks
    assert (bench.mounted, bench.drbd.role) == (False, "Secondary")
    assert bench.drbd.calls == ["primary r0", "secondary r0"]


async def test_b2_it_waits_for_another_primary_and_for_its_data_and_then_starts(bench: VolumeBench) -> None:
    bench.drbd.set(peer_role="Primary")
    driver = bench.driver()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run)
        await until(lambda: "is Primary" in driver.condition.message)
        bench.drbd.set(peer_role="Secondary", disk="Inconsistent", state="SyncTarget")
        await until(lambda: "the local disk is Inconsistent, not UpToDate" in driver.condition.message)
        assert (bench.drbd.calls, driver.condition.state) == ([], State.STARTING)
        bench.drbd.set(disk="UpToDate", state="Connected")
        await until(lambda: driver.condition.state is State.RUNNING)
        tasks.cancel_scope.cancel()
    await driver.stop(force=True)
    assert bench.drbd.role == "Secondary"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"disk": "Outdated"}, "r0 is not promoted: the local disk is Outdated, not UpToDate (for 0.1 s)"),
        ({"disk": "Diskless"}, "r0 is not promoted: the local disk is Diskless, not UpToDate"),
        ({"state": "StandAlone", "peer_disk": "DUnknown"}, "r0 is not promoted: StandAlone: DRBD gave the connection"),
        ({"up": False}, "r0 is not up on this node: drbdadm up r0"),
    ],
)
async def test_b2_without_the_latest_data_nothing_is_promoted_and_the_reason_is_said(
    bench: VolumeBench, changes: dict[str, object], reason: str
) -> None:
    bench.drbd.set(**changes)
    driver = bench.driver()
    driver._limit = 0.1
    async with bench.running(driver):
        assert driver.condition.state is State.FAILED
        assert driver.condition.message.startswith(reason)
    assert (bench.mounted, bench.drbd.calls) == (False, [])
    await driver.stop(force=False)
    assert bench.drbd.calls == []


async def test_b2_what_does_not_step_back_holds_the_stop_up_and_is_named(bench: VolumeBench) -> None:
    async with bench.running(bench.driver()) as driver:
        assert driver.condition.state is State.RUNNING
    bench.drbd.set(held=True)
    with pytest.raises(Temporary, match="Device is held open by someone"):
        await driver.stop(force=False)
    assert not bench.mounted
    bench.drbd.set(held=False)
    await driver.stop(force=False)
    assert bench.drbd.role == "Secondary"


async def test_b2_a_split_brain_is_a_state_of_what_runs_and_nobody_resolves_it(
    bench: VolumeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasys.resources.replicated_volume.WATCH_PERIOD", 0.01)
    async with bench.running(bench.driver()) as driver:
        assert driver.condition.message == ""
        bench.drbd.set(state="StandAlone", peer_disk="DUnknown", peer_role="Unknown")
        await until(lambda: driver.condition.message.startswith("StandAlone: DRBD gave the connection to"))
        assert driver.condition.state is State.RUNNING
        sh("umount", bench.point)
        await until(lambda: driver.condition.state is not State.RUNNING)
    assert bench.drbd.calls == ["primary r0"]
