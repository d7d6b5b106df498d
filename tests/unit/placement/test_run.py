"""``hasys run`` as an operation: begun when its node is there, ended by what the node says or by its deadline."""

from __future__ import annotations

from dataclasses import replace

from hasys.model.view import OperationInfo, OperationType, View
from hasys.placement import operations
from hasys.placement.draft import Draft
from hasys.placement.effects import Effect, FinishOperation, Record, StartOperation
from tests.unit.placement.test_policy import NOW, node, view

RUN = OperationInfo("run-x", OperationType.RUN, node="n1", command="uptime", timeout=10.0, since=NOW)


def begun(op: OperationInfo, picture: View) -> list[Effect]:
    draft = Draft(picture, NOW)
    operations.begin(draft, op)
    return [effect for batch in draft.decision().batches for effect in batch.effects]


def watched(op: OperationInfo, now: float) -> list[Effect]:
    draft = Draft(view(node("n1", heard=now, confirmed=now)), now)
    operations.watch(draft, replace(op, running=True))
    return [effect for batch in draft.decision().batches for effect in batch.effects]


def test_it_begins_on_a_node_that_is_there() -> None:
    assert begun(RUN, view(node("n1"))) == [StartOperation("run-x", "", "n1", 0)]


def test_a_lost_or_unknown_node_or_one_without_an_agent_is_refused() -> None:
    for picture in (view(node("n2")), view(node("n1", heard=None)), view(node("n1", agent_alive=False))):
        finished = begun(RUN, picture)[0]
        assert isinstance(finished, FinishOperation)
        assert not finished.succeeded
        assert "n1" in finished.message


def test_what_the_node_says_is_the_end_and_the_history_names_command_and_actor() -> None:
    finished, event = watched(replace(RUN, outcome="exit status 3", actor="kim"), NOW + 1)
    assert isinstance(finished, FinishOperation)
    assert (finished.succeeded, finished.message) == (False, "uptime on n1: exit status 3")
    assert isinstance(event, Record)
    assert event.actor == "kim"
    assert "uptime on n1: exit status 3" in event.message


def test_the_restart_of_a_process_is_begun_and_ended_like_a_command() -> None:
    restart = replace(RUN, type=OperationType.RESTART_PROCESS, role="guard", command="restart of the guard")
    assert begun(restart, view(node("n1"))) == [StartOperation("run-x", "", "n1", 0)]
    finished = watched(replace(restart, outcome="pid 1 ended, pid 2 took over", succeeded=True), NOW + 1)[0]
    assert isinstance(finished, FinishOperation)
    assert (finished.succeeded, finished.message) == (
        True, "restart of the guard on n1: pid 1 ended, pid 2 took over",
    )  # fmt: skip


def test_without_word_it_ends_after_its_time_and_says_that_it_may_have_run() -> None:
    assert watched(RUN, NOW + 10.0 + operations.RUN_ALLOWANCE - 0.1) == []
    finished = watched(RUN, NOW + 10.0 + operations.RUN_ALLOWANCE)[0]
    assert isinstance(finished, FinishOperation)
    assert "may have run" in finished.message
