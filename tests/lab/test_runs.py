"""B11: ``hasys run`` in the agent, with real processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import anyio
import pytest

from hasys.model.errors import Refused, Unavailable
from hasys.reconciler.ports import Report
from hasys.reconciler.runs import PLACE, Runs
from hasys.resources.cgroup import Cgroup, base_of
from hasys.resources.output import Outputs
from hasys.resources.records import Records
from hasys.v1 import objects_pb2 as pb

pytestmark = [
    pytest.mark.lab,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


class Bench:
    """An agent of n1, and a store that takes its reports."""

    def __init__(self, directory: Path) -> None:
        self.cgroup = Cgroup(base_of(f"test-{os.getpid()}"))
        self.records, self.outputs = Records(directory / "r"), Outputs(directory / "o")
        self.failing = 0
        self.results: list[pb.RunResult] = []

    async def report(self, report: Report) -> Sequence[str]:
        if self.failing:
            self.failing -= 1
            raise Unavailable("no leader")
        self.results += [run.result for run in report.runs]
        return ()

    def pid(self, role: str) -> int:
        return {"agent": 2, "guard": 1}.get(role, 0)

    async def restart(self, role: str) -> str:
        if role == "store":
            raise Refused("no store runs here")
        return "pid 1 ended, pid 2 took over"

    async def run(self, *operations: pb.Operation, results: int = 1) -> list[pb.RunResult]:
        """What a new agent reports when it sees these operations."""
        agent = Runs("n1", self.cgroup, self.records, self.outputs, self.report, self)

        async def told() -> AsyncIterator[pb.Operation]:
            for operation in operations:
                yield operation
            await anyio.sleep_forever()

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(agent.follow, told())
                while len(self.results) < results:  # noqa: ASYNC110  # a report is a call, not an event
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
        found, self.results = self.results, []
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.cgroup.kill()
    made.cgroup.remove()


def operation(*command: str, node: str = "n1", state: str = "Running", name: str = "run-a") -> pb.Operation:
    spec = pb.OperationSpec(type=pb.OperationSpec.Run, node=node, command=command, actor="admin")
    spec.timeout.FromMilliseconds(400)
    return pb.Operation(
        metadata=pb.Metadata(name=name), spec=spec, status=pb.OperationStatus(state=state)
    )  # fmt: skip


async def test_exit_status_and_the_end_of_the_output_are_reported_until_the_store_takes_them(bench: Bench) -> None:
    bench.failing = 1
    (result,) = await bench.run(operation("sh", "-c", "yes | head -c 9000; echo end; exit 3"))
    assert (result.outcome, result.exited, result.exit_code) == ("exit status 3", True, 3)
    assert result.output.endswith("y\nend\n")
    assert len(result.output) <= 4096
    assert not list(bench.outputs.directory.glob("*/*"))


async def test_what_takes_too_long_is_killed_with_its_children(bench: Bench) -> None:
    (result,) = await bench.run(operation("sh", "-c", "sleep 600 & sleep 600"))
    assert (result.outcome, result.exited) == ("did not end within 0.4 s", False)
    assert not bench.cgroup.populated()


async def test_only_this_nodes_begun_commands_run_and_each_once(bench: Bench, tmp_path: Path) -> None:
    mark = ("sh", "-c", f"echo x >> {tmp_path}/ran")
    await bench.run(
        operation(*mark, node="n2", name="run-b"), operation(*mark, state="Pending"), operation(*mark), operation(*mark)
    )
    (again,) = await bench.run(operation(*mark))  # an agent that restarted before the end was stored
    assert "how it ended is not known" in again.outcome
    assert (tmp_path / "ran").read_text() == "x\n"


async def test_what_has_ended_is_forgotten(bench: Bench) -> None:
    await bench.run(operation("true"))
    assert bench.records.read(PLACE, "run-a") is not None
    await bench.run(operation("true", state="Succeeded"), operation("true", name="run-c"))
    assert bench.records.read(PLACE, "run-a") is None


async def test_a_command_that_is_not_there_says_so(bench: Bench) -> None:
    (result,) = await bench.run(operation("/no/such"))
    assert (result.outcome, result.exited) == ("command /no/such does not exist on this node", False)


def restart(role: str) -> pb.Operation:
    spec = pb.OperationSpec(type=pb.OperationSpec.RestartProcess, node="n1", role=role, actor="admin")
    return pb.Operation(
        metadata=pb.Metadata(name=f"restart-{role}"), spec=spec, status=pb.OperationStatus(state="Running")
    )  # fmt: skip


async def test_the_restart_of_a_process_is_told_and_that_of_the_agent_by_the_next_one(bench: Bench) -> None:
    (guard,) = await bench.run(restart("guard"))
    assert (guard.outcome, guard.exited, guard.exit_code) == ("pid 1 ended, pid 2 took over", True, 0)
    (store,) = await bench.run(restart("store"))
    assert (store.outcome, store.exited) == ("no store runs here", False)
    bench.records.write(PLACE, "restart-agent", {"command": [], "pid": 1})  # by the agent that is gone
    (agent,) = await bench.run(restart("agent"))
    assert (agent.outcome, agent.exited, agent.exit_code) == ("pid 1 ended, pid 2 took over", True, 0)
    bench.records.forget(PLACE, "restart-guard")
    bench.records.write(PLACE, "restart-guard", {"command": [], "pid": 1})  # and the guard is still the same
    (guard,) = await bench.run(restart("guard"))
    assert (guard.outcome, guard.exited) == ("the agent ended while it ran: how it ended is not known", False)
