"""What a node may say about ``hasys run``: its own commands, once, while they run, within bounds."""

from __future__ import annotations

import pytest

from hasys.api.auth import NODE, Caller
from hasys.api.server.reports import OUTPUT, plan_report
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb
from hasys.v1.store_pb2 import Mutation
from tests.unit.store.build import Log


def log_with(state: str, **spec: object) -> Log:
    """A store with the operation run-x of n1."""
    log, obj = Log(), pb.Object()
    obj.operation.metadata.name = "run-x"
    wanted = {"type": pb.OperationSpec.Run, "node": "n1", "command": ["true"], **spec}
    obj.operation.spec.CopyFrom(pb.OperationSpec(**wanted))  # type: ignore[arg-type]
    log.must(obj)
    obj.operation.status.state = state
    assert log.apply(Mutation(put_status=obj)).done
    return log


def report(log: Log, node: str = "n1", name: str = "run-x", output: str = "hi\n") -> tuple[list[str], list[Mutation]]:
    result = pb.RunResult(outcome="exit status 3\nx", exited=True, exit_code=3, output=output)
    request = api_pb2.ReportRequest(node=node, runs=[api_pb2.RunReport(operation=name, result=result)])
    return plan_report(request, Caller(NODE, node), log.machine)


def test_the_end_of_a_running_command_is_stored_in_bounds_and_leaves_its_state_to_the_controllers() -> None:
    refused, (mutation,) = report(log_with("Running"), output="x" * 9000)
    status = mutation.put_status.operation.status
    assert refused == []
    assert status.state == "Running"
    assert "\n" not in status.run.outcome
    assert (status.run.exit_code, status.run.exited, len(status.run.output)) == (3, True, OUTPUT)


@pytest.mark.parametrize(
    ("log", "node", "name", "why"),
    [
        (log_with("Running"), "n2", "run-x", "is nothing that n2 runs"),
        (log_with("Running", type=pb.OperationSpec.Drain), "n1", "run-x", "is nothing that n1 runs"),
        (log_with("Pending"), "n1", "run-x", "does not run"),
        (log_with("Succeeded"), "n1", "run-x", "does not run"),
        (log_with("Running"), "n1", "run-y", "does not exist"),
    ],
)
def test_another_nodes_command_or_one_that_does_not_run_is_refused(log: Log, node: str, name: str, why: str) -> None:
    assert report(log, node, name) == ([f"Operation/{name}: {why}"], [])
