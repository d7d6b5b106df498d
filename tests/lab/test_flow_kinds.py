"""B10: Database, Command, SystemdUnit on a real kernel; SystemdUnit beside a stand-in of systemctl and systemd."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from hasys.resources.cgroup import Cgroup, base_of
from hasys.resources.command import Command
from hasys.resources.database import Database
from hasys.resources.output import Outputs
from hasys.resources.port import CgroupTrace, Driver, Place, State, Surroundings, Temporary
from hasys.resources.records import Records
from hasys.resources.service import Home
from hasys.resources.systemd_unit import RealSystemctl, SystemdUnit
from hasys.v1 import objects_pb2 as pb
from tests.lab import fake_systemctl
from tests.lab.booted import boot, wait_booted
from tests.lab.stage import lab_or_skip

pytestmark = [
    pytest.mark.lab,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

FAST = pb.Restart(retries=1)
FAST.start_time.FromMilliseconds(20)
FAST.backoff.FromMilliseconds(10)


class Bench:
    """Where the resources of one test live."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base = Cgroup(base_of(f"test-{os.getpid()}"))
        self.base.create()
        self.outputs, self.records = Outputs(directory / "output"), Records(directory / "resources")
        self.events: list[str] = []

    def around(self, epoch: int = 1) -> tuple[Surroundings, Home]:
        place = Place("n1", "web", "step", epoch)
        around = Surroundings(
            place, anyio.lowlevel.checkpoint, lambda: None, lambda r, c: self.events.append(f"{r}: {c}")
        )
        helpers = Cgroup(self.base.path / "agent" / "web.step")
        return around, Home(place, Cgroup(self.base.path / "groups/web/step"), helpers, self.records, self.outputs)

    def said(self, name: str = "said") -> str:
        file = self.directory / name
        return file.read_text() if file.exists() else ""

    def close(self) -> None:
        self.base.kill()
        deadline = time.monotonic() + 5
        while self.base.populated() and time.monotonic() < deadline:
            os.sched_yield()
        self.base.remove()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110  # other processes tell nobody
            await anyio.sleep(0.005)


@asynccontextmanager
async def running(driver: Driver, *states: State) -> AsyncIterator[None]:
    """Run it until it is in one of these states, and then as long as the caller likes."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.run)
        await until(lambda: driver.condition.state in (states or (State.RUNNING, State.FAILED)))
        yield
        tasks.cancel_scope.cancel()


# ---------------------------------------------------------------- Command


def command(bench: Bench, run: str, undo: str = "", epoch: int = 1, *, tolerant: bool = False) -> Command:
    spec = pb.CommandSpec(run=pb.Script(command=["sh", "-c", run], working_directory=str(bench.directory)))
    if undo:
        spec.undo.CopyFrom(pb.Script(command=["sh", "-c", undo], working_directory=str(bench.directory)))
    spec.on_start_failure = pb.Continue if tolerant else pb.Stop
    around, home = bench.around(epoch)
    return Command(around, spec, home)


async def test_a_command_runs_once_per_start_though_the_agent_restarts(bench: Bench) -> None:
    for _ in range(2):
        driver = command(bench, "echo ran >>said; echo done")
        async with running(driver):
            assert driver.condition.state is State.RUNNING
    assert bench.said() == "ran\n"
    async with running(command(bench, "echo ran >>said", epoch=2)):
        assert bench.said() == "ran\nran\n"


async def test_exit_status_and_output_of_a_command_are_kept_when_it_succeeds_and_when_it_fails(bench: Bench) -> None:
    driver = command(bench, "echo all well")
    async with running(driver):
        assert (driver.condition.exit_code, driver.condition.output) == (0, "all well\n")
    await driver.stop(force=False)
    driver = command(bench, "echo no such volume; exit 7")
    async with running(driver):
        assert driver.condition.state is State.FAILED
        assert driver.condition.message == "command exit status 7: no such volume"
        assert (driver.condition.exit_code, driver.condition.output.splitlines()[-1]) == (7, "no such volume")


async def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(bench: Bench) -> None:
    driver = command(bench, "sleep 600 & sleep 600")
    driver._spec.run.timeout.FromMilliseconds(200)
    async with running(driver):
        assert driver.condition.message == "command did not end within 0.2 s"
        assert not driver._home.cgroup.populated()


async def test_the_undo_runs_at_the_stop_also_after_a_command_that_failed(bench: Bench) -> None:
    driver = command(bench, "false", undo="echo undone >>said")
    async with running(driver):
        pass
    await driver.stop(force=False)
    assert bench.said() == "undone\n"
    await driver.stop(force=False)
    assert bench.said() == "undone\n"


async def test_a_failed_undo_holds_the_stop_up_unless_the_command_is_tolerant(bench: Bench) -> None:
    driver = command(bench, "true", undo="echo busy; exit 1")
    async with running(driver):
        pass
    with pytest.raises(Temporary, match="undo exit status 1: busy"):
        await driver.stop(force=False)
    assert bench.events == ["UndoFailed: undo exit status 1: busy"]
    await command(bench, "true", undo="echo busy; exit 1", tolerant=True).stop(force=False)
    assert not await driver.adopt()


async def test_a_stop_with_force_does_not_ask_the_undo(bench: Bench) -> None:
    driver = command(bench, "sleep 600 &", undo="echo undone >>said")
    async with running(driver):
        assert driver._home.cgroup.populated()
    driver.kill()
    await driver.stop(force=True)
    assert bench.said() == ""
    assert not driver._home.cgroup.populated()


# ---------------------------------------------------------------- Database


def database(bench: Bench, status: str = "") -> Database:
    """Detaches, writes who it is, and stops when asked."""
    folder = bench.directory
    folder.chmod(0o777)
    serve = "trap 'echo clean >>said; exit' TERM; touch serving; while :; do sleep 0.01; done"
    (folder / "serve").write_text(serve)
    spec = pb.DatabaseSpec(
        start=["sh", "-c", "id -un >>said; sh ./serve & echo $! >pid"],
        stop=["sh", "-c", "kill $(cat pid); while [ -e /proc/$(cat pid) ]; do sleep 0.01; done"],
        status=["sh", "-c", status] if status else [],
        user="nobody", working_directory=str(folder), restart=FAST,
    )  # fmt: skip
    spec.check_interval.FromMilliseconds(100)
    around, home = bench.around()
    return Database(around, spec, home)


async def test_a_database_is_started_as_its_user_and_asked_to_stop(bench: Bench) -> None:
    driver = database(bench)
    assert driver.traces() == (CgroupTrace(str(bench.base.path / "groups/web/step")),)
    async with running(driver):
        assert driver.condition.state is State.RUNNING
        await until(lambda: bench.said() == "nobody\n")
        await until((bench.directory / "serving").exists)  # from here on it can be asked
    await driver.stop(force=False)
    await until(lambda: bench.said() == "nobody\nclean\n")
    assert not Cgroup(bench.base.path / "groups/web/step").populated()


async def test_a_database_that_does_not_answer_is_restarted_in_place_and_then_has_failed(bench: Bench) -> None:
    driver = database(bench, status="test ! -e broken || { echo no connection; exit 2; }")
    async with running(driver):
        (bench.directory / "broken").touch()
        await until(lambda: driver.condition.state is State.FAILED)
    assert driver.condition.exit_code == 2
    assert "status script: exit status 2: no connection" in driver.condition.message
    assert bench.events == ["ResourceRestarted: status script: exit status 2: no connection: restart 1 of 1"]


# ---------------------------------------------------------------- SystemdUnit


class Systemd:
    """A systemd, and a unit of ours in it."""

    def __init__(
        self, bench: Bench, systemctl: RealSystemctl, units: Path, cgroups: Path, *, real: bool = False
    ) -> None:
        self.bench, self.systemctl, self.units, self.cgroups, self.real = bench, systemctl, units, cgroups, real

    def unit(self, name: str = "demo-test.service", command: str = "exec sleep 600") -> SystemdUnit:
        text = f"[Service]\nExecStart=/bin/sh -c '{command}'\n" if self.real else f"{command}\n"
        (self.units / name).write_text(text)
        if self.real:
            subprocess.run([self.systemctl.program, "daemon-reload"], check=True)
        spec = pb.SystemdUnitSpec(unit=name, restart=FAST)
        spec.check_interval.FromMilliseconds(50)
        spec.stop_timeout.FromMilliseconds(500)
        around, home = self.bench.around()
        return SystemdUnit(around, spec, home, self.cgroups, self.systemctl)

    def alive(self, name: str = "demo-test.service") -> bool:
        return Cgroup(self.cgroups / "system.slice" / name).populated()


@pytest.fixture(params=["stand-in", "real"])
def systemd(request: pytest.FixtureRequest, bench: Bench) -> Iterator[Systemd]:
    if request.param == "stand-in":
        program = fake_systemctl.make(bench.directory / "units", bench.base.path)
        (bench.directory / "runtime").mkdir()
        fake = RealSystemctl(str(program), bench.directory / "runtime")
        yield Systemd(bench, fake, bench.directory / "units", bench.base.path)
        return
    with lab_or_skip() as lab:
        machine = lab.machine("n1", 1, boot(str(lab.record.data)), pid1=True)
        wait_booted(machine)
        program = bench.directory / "systemctl"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(machine.command("systemctl"))} "$@"\n')
        program.chmod(0o755)
        runtime = machine.root / "run/systemd/system"
        yield Systemd(bench, RealSystemctl(str(program), runtime), runtime, machine.cgroup, real=True)


async def test_a_unit_is_started_found_again_and_stopped(systemd: Systemd) -> None:
    driver = systemd.unit()
    async with running(driver):
        assert driver.condition.state is State.RUNNING
        assert systemd.alive()
    assert await systemd.unit().adopt()
    await driver.stop(force=False)
    assert not systemd.alive()
    assert not await systemd.unit().adopt()


async def test_the_cgroup_that_the_guard_would_kill_is_where_the_unit_runs_and_systemd_does_not_restart_it(
    systemd: Systemd,
) -> None:
    driver = systemd.unit()
    (trace,) = driver.traces()
    assert isinstance(trace, CgroupTrace)
    async with running(driver):
        Cgroup(Path(trace.path)).kill()
        await until(lambda: bool(systemd.bench.events))
        assert "restart 1 of 1" in systemd.bench.events[0]  # by hasys: systemd left it as it was
        await until(lambda: driver.condition.state is State.RUNNING)
    text = (systemd.systemctl.runtime / "demo-test.service.d/50-hasys.conf").read_text()
    assert "Restart=no" in text
    assert "Slice=system.slice" in text


async def test_a_unit_that_is_not_installed_has_failed_and_says_so(systemd: Systemd) -> None:
    driver = systemd.unit()
    (systemd.units / "demo-test.service").unlink()
    if systemd.real:
        await anyio.run_process([systemd.systemctl.program, "daemon-reload"])
    async with running(driver):
        assert driver.condition.message == "demo-test.service is not-found on this node: install it there"


async def test_a_unit_that_would_start_at_boot_is_refused(bench: Bench) -> None:
    program = fake_systemctl.make(bench.directory / "units", bench.base.path)
    systemd = Systemd(bench, RealSystemctl(str(program), bench.directory), bench.directory / "units", bench.base.path)
    driver = systemd.unit()
    (systemd.units / "demo-test.service.state").write_text("enabled")
    async with running(driver):
        assert driver.condition.message.endswith("systemctl disable demo-test.service")
        assert not systemd.alive()


async def test_a_unit_that_does_not_stop_is_killed_and_one_that_fails_to_start_says_why(bench: Bench) -> None:
    program = fake_systemctl.make(bench.directory / "units", bench.base.path)
    systemd = Systemd(bench, RealSystemctl(str(program), bench.directory), bench.directory / "units", bench.base.path)
    driver = systemd.unit(command="sleep 600 # stubborn")
    async with running(driver):
        assert systemd.alive()
    await driver.stop(force=False)
    assert not systemd.alive()
    assert bench.events == ["StopFailed: demo-test.service did not stop within 0.5 s: killed"]
    driver = systemd.unit(command="fails")
    async with running(driver, State.FAILED):
        assert (
            driver.condition.message == "demo-test.service: Job for demo-test.service failed.: gave up after 1 restart"
        )


async def test_without_systemd_the_reason_is_named(bench: Bench) -> None:
    around, home = bench.around()
    nowhere = RealSystemctl(runtime=bench.directory / "none")
    driver = SystemdUnit(around, pb.SystemdUnitSpec(unit="nginx.service"), home, bench.base.path, nowhere)
    async with running(driver):
        assert driver.condition.message.startswith("systemd is not process 1 on this node")
    await driver.stop(force=False)
