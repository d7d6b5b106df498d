"""B5: Application on a real kernel: processes, cgroups, adoption by the next agent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from hasys.resources import output, process
from hasys.resources.application import Application
from hasys.resources.cgroup import Cgroup, base_of
from hasys.resources.output import Outputs
from hasys.resources.port import Place, State, Surroundings, Temporary
from hasys.resources.records import Records
from hasys.resources.service import Home
from hasys.v1 import objects_pb2 as pb

pytestmark = [
    pytest.mark.lab,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

FAST = pb.Restart(retries=2)
FAST.start_time.FromMilliseconds(50)
FAST.backoff.FromMilliseconds(10)


async def until(condition: Callable[[], bool]) -> None:
    """Let the others work until it holds."""
    with anyio.fail_after(5):
        while not condition():
            await anyio.lowlevel.checkpoint()


class Bench:
    """Where applications of one test live. Each :meth:`agent` is a new agent's view of the same application."""

    def __init__(self, directory: Path, base: Cgroup) -> None:
        self.directory = directory
        self.base = base

    def agent(self, spec: pb.ApplicationSpec, epoch: int = 1) -> Subject:
        return Subject(self, spec, epoch)

    def sh(self, script: str, **run: object) -> pb.ApplicationSpec:
        """A foreground program."""
        return pb.ApplicationSpec(run=pb.Run(command=["sh", "-c", script], **run), restart=FAST)  # type: ignore[arg-type]


class Subject:
    """One application under test."""

    def __init__(self, bench: Bench, spec: pb.ApplicationSpec, epoch: int) -> None:
        self.place = Place("n1", "web", "app", epoch)
        self.events: list[str] = []
        self.states: list[str] = []
        self.news = anyio.Event()
        around = Surroundings(self.place, anyio.lowlevel.checkpoint, self._changed, self._record)
        self.cgroup = Cgroup(bench.base.path / "groups" / "web" / "app")
        self.records = Records(bench.directory / "resources")
        self.outputs = Outputs(bench.directory / "output")
        helpers = Cgroup(bench.base.path / "agent" / "web.app")
        self.driver = Application(around, spec, Home(self.place, self.cgroup, helpers, self.records, self.outputs))

    def _record(self, reason: str, cause: str) -> None:
        self.events.append(f"{reason}: {cause}")

    def _changed(self) -> None:
        self.states.append(self.driver.condition.state.value)
        news, self.news = self.news, anyio.Event()
        news.set()

    async def reach(self, state: State, within: float = 5) -> None:
        with anyio.fail_after(within):
            while self.driver.condition.state is not state:
                await self.news.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.driver.run)
            await self.reach(State.RUNNING)
            yield
            tasks.cancel_scope.cancel()

    def printed(self) -> str:
        file = self.outputs.file("web", "app")
        self.outputs.drain(file)
        return output.tail(file)

    @property
    def pid(self) -> int:
        record = self.records.read("web", "app")
        assert record is not None
        return int(record["pid"])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    base = Cgroup(base_of(f"test-{os.getpid()}"))
    base.create()
    yield Bench(tmp_path, base)
    base.kill()
    deadline = time.monotonic() + 5
    while base.populated() and time.monotonic() < deadline:
        os.sched_yield()
    base.remove()
    assert not base.path.exists()


async def test_a_program_runs_in_its_cgroup_with_its_environment_and_user(bench: Bench) -> None:
    script = 'echo "$A $HASYS_GROUP $(id -un) $HOME $(pwd)"; exec sleep 60'
    app = bench.agent(bench.sh(script, env={"A": "b"}, user="nobody", working_directory="/usr"))
    async with app.running():
        await until(lambda: app.printed() == "b web nobody /nonexistent /usr\n")  # once it has lived a while
        assert app.cgroup.pids() == [app.pid]


async def test_a_program_survives_its_agent_and_the_next_one_adopts_it(bench: Bench) -> None:
    spec = bench.sh("exec sleep 60")
    first = bench.agent(spec)
    async with first.running():
        pid = first.pid
    second = bench.agent(spec)
    assert await second.driver.adopt()
    async with second.running():
        assert second.pid == pid
        assert second.states == ["Running"]
        os.kill(pid, signal.SIGKILL)
        await second.reach(State.STARTING)
        await second.reach(State.RUNNING)
        assert second.pid != pid


async def test_a_program_started_from_another_spec_is_stopped_in_order_and_replaced(bench: Bench) -> None:
    first = bench.agent(bench.sh("trap 'echo bye; exit' TERM; echo first; while :; do sleep 0.01; done"))
    async with first.running():
        await until(lambda: first.printed() == "first\n")  # from here on it can be asked
        before = first.pid
    second = bench.agent(bench.sh("echo second; exec sleep 60"))
    assert not await second.driver.adopt()
    async with second.running():
        assert second.pid != before
        await until(lambda: second.printed() == "first\nbye\nsecond\n")


async def test_other_limits_do_not_interrupt_a_program(bench: Bench) -> None:
    first = bench.agent(bench.sh("exec sleep 60"))
    async with first.running():
        pid = first.pid
    changed = bench.sh("exec sleep 60")
    changed.restart.retries = 9
    second = bench.agent(changed)
    assert second.driver.continues(first.driver)
    second.driver.take_over(first.driver)
    async with second.running():
        assert second.pid == pid
        os.kill(pid, signal.SIGKILL)
        await second.reach(State.STARTING)
        assert second.driver.condition.exit_code == -signal.SIGKILL
        assert second.driver.condition.message == "killed by SIGKILL: restart 1 of 9"


async def test_a_program_of_an_older_epoch_is_not_adopted(bench: Bench) -> None:
    spec = bench.sh("exec sleep 60")
    async with bench.agent(spec).running():
        pass
    assert not await bench.agent(spec, epoch=2).driver.adopt()


async def test_a_number_that_means_another_process_now_is_not_adopted(bench: Bench) -> None:
    app = bench.agent(bench.sh("exec sleep 60"))
    async with app.running():
        pass
    record = app.records.read("web", "app")
    assert record is not None
    app.records.write("web", "app", {**record, "started": record["started"] - 1})
    assert not await bench.agent(bench.sh("exec sleep 60")).driver.adopt()


async def test_a_program_that_dies_is_restarted_at_once(bench: Bench) -> None:
    app = bench.agent(bench.sh("exec sleep 60"))
    async with app.running():
        begun = anyio.current_time()
        os.kill(app.pid, signal.SIGKILL)
        await app.reach(State.STARTING)
        await app.reach(State.RUNNING)
        assert anyio.current_time() - begun < 1 + 0.05
        assert app.events == ["ResourceRestarted: killed by SIGKILL: restart 1 of 2"]
        assert app.driver.condition.restarts == 1


async def test_after_its_retries_it_has_failed_and_says_how_it_ended_and_what_it_printed(bench: Bench) -> None:
    app = bench.agent(bench.sh("echo no disk; exit 3"))
    await app.driver.run()
    condition = app.driver.condition
    assert condition.state is State.FAILED
    assert condition.message == "exit status 3: gave up after 2 restarts"
    assert condition.exit_code == 3
    assert condition.output == "no disk\n" * 3


async def test_a_missing_command_fails_at_once_and_is_named(bench: Bench) -> None:
    app = bench.agent(pb.ApplicationSpec(run=pb.Run(command=["/no/such"]), restart=FAST))
    await app.driver.run()
    assert app.driver.condition.message == "command /no/such does not exist on this node"
    assert app.events == []


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (pb.Run(command=["true"], user="no-such-user"), "user no-such-user does not exist on this node"),
        (pb.Run(command=["true"], working_directory="/no"), "working directory /no does not exist on this node"),
        (pb.Run(command=["/etc/passwd"]), "command /etc/passwd is not executable"),
    ],
)
async def test_what_cannot_run_is_said_in_plain_words(bench: Bench, run: pb.Run, message: str) -> None:
    app = bench.agent(pb.ApplicationSpec(run=run, restart=FAST))
    await app.driver.run()
    assert app.driver.condition.message == message


async def test_it_is_stopped_by_its_signal_and_its_children_are_not_left(bench: Bench) -> None:
    script = "trap 'echo bye; exit 0' USR1; sleep 60 & echo ready; while :; do wait; done"
    app = bench.agent(bench.sh(script, stop_signal="USR1"))
    async with app.running():
        await until(lambda: app.printed() == "ready\n")
    await app.driver.stop(force=False)
    assert app.printed() == "ready\nbye\n"
    assert not app.cgroup.path.exists()


async def test_it_is_killed_when_it_does_not_stop_in_time(bench: Bench) -> None:
    spec = bench.sh("trap '' TERM; echo deaf; while :; do sleep 60; done")
    spec.run.stop_timeout.FromMilliseconds(100)
    app = bench.agent(spec)
    async with app.running():
        await until(lambda: app.printed() == "deaf\n")
    with anyio.fail_after(2):
        await app.driver.stop(force=False)
    assert not app.cgroup.populated()


async def test_a_stopped_process_is_killed_too(bench: Bench) -> None:
    app = bench.agent(bench.sh("exec sleep 60"))
    async with app.running():
        os.kill(app.pid, signal.SIGSTOP)
    with anyio.fail_after(2):
        await app.driver.stop(force=True)
    assert not app.cgroup.populated()


async def test_a_stop_right_after_the_start_leaves_nothing(bench: Bench) -> None:
    app = bench.agent(bench.sh("sleep 60 & sleep 60"))
    for _ in range(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.driver.run)
            await app.reach(State.STARTING)
            tasks.cancel_scope.cancel()
        await app.driver.stop(force=True)
        assert not app.cgroup.populated()


def scripts(directory: Path, **more: str) -> pb.ApplicationSpec:
    """A program that detaches: it leaves its number in a file."""
    pidfile = directory / "pid"
    texts = {
        "start": f"setsid sleep 60 & echo $! > {pidfile}",
        "stop": f"kill $(cat {pidfile})",
        "status": f"kill -0 $(cat {pidfile})",
        **more,
    }
    spec = pb.ApplicationSpec(restart=FAST, **{k: pb.Script(command=["sh", "-c", v]) for k, v in texts.items() if v})  # type: ignore[arg-type]
    spec.check_interval.FromMilliseconds(100)
    return spec


async def test_scripts_start_watch_and_stop_a_program_that_detaches(bench: Bench) -> None:
    app = bench.agent(scripts(bench.directory))
    async with app.running():
        pid = int((bench.directory / "pid").read_text())
        assert pid in app.cgroup.pids()
        os.kill(pid, signal.SIGKILL)
        await app.reach(State.STARTING)
        assert app.events[0].startswith("ResourceRestarted: status script: exit status 1")
        await app.reach(State.RUNNING)
    await app.driver.stop(force=False)
    assert not app.cgroup.populated()


async def test_without_a_status_script_an_emptied_cgroup_means_dead(bench: Bench) -> None:
    app = bench.agent(scripts(bench.directory, status=""))
    async with app.running():
        os.kill(int((bench.directory / "pid").read_text()), signal.SIGKILL)
        await app.reach(State.STARTING)
        assert app.events == ["ResourceRestarted: no process of it is left: restart 1 of 2"]


async def test_a_detached_program_is_adopted_without_a_second_start(bench: Bench) -> None:
    spec = scripts(bench.directory)
    async with bench.agent(spec).running():
        before = (bench.directory / "pid").read_text()
    second = bench.agent(spec)
    async with second.running():
        assert (bench.directory / "pid").read_text() == before
        assert second.states == ["Running"]
    await second.driver.stop(force=False)


async def test_a_start_script_that_takes_too_long_fails_and_leaves_nothing(bench: Bench) -> None:
    spec = scripts(bench.directory, start="sleep 60")
    spec.start.timeout.FromMilliseconds(100)
    spec.restart.retries = 0
    app = bench.agent(spec)
    await app.driver.run()
    assert app.driver.condition.message == "start script did not end within 0.1 s"
    assert not app.cgroup.populated()


async def test_a_failing_start_script_is_quoted(bench: Bench) -> None:
    spec = scripts(bench.directory, start="echo no licence >&2; exit 5")
    spec.restart.retries = 0
    app = bench.agent(spec)
    await app.driver.run()
    assert app.driver.condition.message == "start script: exit status 5: no licence"


async def test_a_stop_script_that_hangs_is_overtaken_by_force(bench: Bench) -> None:
    app = bench.agent(scripts(bench.directory, stop="sleep 60"))
    async with app.running():
        pass
    with anyio.move_on_after(0.2):
        await app.driver.stop(force=False)
    with anyio.fail_after(2):
        await app.driver.stop(force=True)
    assert not app.cgroup.populated()
    assert not Cgroup(bench.base.path / "agent" / "web.app").populated()


async def test_a_start_script_is_not_interrupted_in_order_but_killed_by_force(bench: Bench) -> None:
    app = bench.agent(scripts(bench.directory, start=f"sleep 0.3; touch {bench.directory}/done; sleep 60"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(app.driver.run)
        await app.reach(State.STARTING)
        await until(app.cgroup.populated)
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await until((bench.directory / "done").exists)  # cancelled, and still it went on
        app.driver.kill()
    await app.driver.stop(force=True)
    assert not app.cgroup.populated()


async def test_output_is_kept_within_its_bound_while_the_program_goes_on(bench: Bench) -> None:
    app = bench.agent(
        bench.sh(
            f"yes | head -c {3 * output.CUT_ABOVE}; echo middle; read x < {bench.directory}/go; echo end; sleep 60"
        )
    )
    os.mkfifo(bench.directory / "go")
    async with app.running():
        file = app.outputs.file("web", "app")
        await until(lambda: app.printed().endswith("middle\n"))
        assert file.stat().st_size <= output.CUT_ABOVE
        await anyio.to_thread.run_sync((bench.directory / "go").write_text, "\n")
        await until(lambda: app.printed().endswith("middle\nend\n"))


async def test_a_flood_fills_nothing_but_its_pipe_while_no_agent_reads(bench: Bench) -> None:
    app = bench.agent(bench.sh("exec yes"))
    async with app.running():
        directory = bench.directory / "output"
        for _ in range(50):
            app.printed()
            assert sum(f.stat().st_size for f in directory.rglob("*.log")) <= output.CUT_ABOVE
        pid = app.pid
    again = bench.agent(bench.sh("exec yes"))
    assert await again.driver.adopt()
    await until(lambda: again.printed() == "y\n" * (output.TAIL // 2))
    assert again.pid == pid
    await again.driver.stop(force=False)


async def test_a_process_that_cannot_be_killed_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    app = bench.agent(bench.sh("exec sleep 60"))
    async with app.running():
        await until(lambda: "(sleep) S" in Path(f"/proc/{app.pid}/stat").read_text())  # the shell has become it
        with monkeypatch.context() as patched:
            patched.setattr(Cgroup, "kill", lambda self: None)
            with pytest.raises(Temporary, match=rf"still there: process {app.pid} \(sleep, state S\)"):
                await app.cgroup.empty(within=0.05)
    assert process.started_at(app.pid) is not None
