"""A fence from outside, as it is written, seen and reported."""

from __future__ import annotations

import pytest

from hasys.api.auth import NODE, Caller
from hasys.api.kinds import Ref
from hasys.api.server.reports import plan_report
from hasys.lease.facts import NodeFacts
from hasys.placement.effects import AskFence, Batch, EndFence
from hasys.store.picture import fencing_info, node_info, operation_info
from hasys.store.writing import command_of
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb
from hasys.v1.store_pb2 import Mutation
from tests.unit.store.build import Log

ASK = Batch("Node", "n1", (AskFence("n1", "n2", "n2 with fence_dummy: no keep-alive"),))


@pytest.fixture
def log() -> Log:
    log, node, fencing = Log(), pb.Object(), pb.Object()
    node.node.metadata.name = fencing.fencing.metadata.name = "n1"
    fencing.fencing.spec.agent = "fence_dummy"
    fencing.fencing.spec.timeout.FromSeconds(7)
    log.must(node, fencing)
    return log


def apply(log: Log, batch: Batch) -> bool:
    command = command_of(batch, log.machine)
    return command is not None and log.apply(*command.mutations).done


def fencing(log: Log) -> pb.Fencing:
    return log.stored(Ref("Fencing", "", "n1")).fencing


def operation(log: Log) -> pb.Operation:
    (obj,) = log.machine.list("Operation")
    return obj.operation


def test_it_is_an_operation_that_carries_how_it_is_done(log: Log) -> None:
    assert apply(log, ASK)
    asked = operation(log)
    assert fencing(log).status.operation == asked.metadata.name
    seen = operation_info(asked, 0.0)
    assert (seen.type.value, seen.node, seen.by, seen.timeout, seen.running) == ("Fence", "n1", "n2", 7.0, False)
    assert asked.spec.fencing.agent == "fence_dummy"
    assert asked.status.state == "Pending"


def test_two_decisions_of_the_same_picture_ask_for_it_once(log: Log) -> None:
    first, second = command_of(ASK, log.machine), command_of(ASK, log.machine)
    assert first is not None
    assert second is not None
    assert log.apply(*first.mutations).done
    assert not log.apply(*second.mutations).done


def test_its_end_is_remembered_with_the_reason_until_the_next(log: Log) -> None:
    apply(log, ASK)
    apply(log, Batch("Node", "n1", (EndFence("n1", "no route"),)))
    assert (fencing(log).status.operation, fencing(log).status.failed) == ("", "no route")
    info = fencing_info(fencing(log))
    assert (info.agent, info.delay, info.failed) == ("fence_dummy", 5.0, "no route")
    assert node_info(pb.Node(), NodeFacts(0.0), connected=True).fencing is None


def test_the_node_that_does_it_reports_and_nobody_else(log: Log) -> None:
    apply(log, ASK)
    running = pb.Object(operation=operation(log))
    running.operation.status.state = "Running"
    assert log.apply(Mutation(put_status=running)).done
    result = pb.RunResult(outcome="fence_dummy: reboot 0.4 s", exited=True)
    for node, welcome in (("n1", False), ("n3", False), ("n2", True)):
        report = api_pb2.ReportRequest(
            node=node, runs=[api_pb2.RunReport(operation=operation(log).metadata.name, result=result)]
        )
        refused, mutations = plan_report(report, Caller(NODE, node), log.machine)
        assert bool(mutations) is welcome
        assert bool(refused) is not welcome
