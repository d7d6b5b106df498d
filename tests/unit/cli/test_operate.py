"""The commands that ask for something: what they ask, and how they end."""

from __future__ import annotations

import pytest

from hasys.api.errors import Fault, Invalid
from hasys.api.kinds import Ref
from hasys.model.errors import HasysError, NoMajority, TimedOut, Unavailable, Unknown, Unreached
from hasys.v1 import objects_pb2 as pb
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake import FakeCluster, ended

T = pb.OperationSpec


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        ("switchover web", T(type=T.Switchover, group="web")),
        ("switchover web --to n2 --reason patch", T(type=T.Switchover, group="web", node="n2", reason="patch")),
        ("failover web --force --to n2", T(type=T.Failover, group="web", node="n2", force=True)),
        ("resolve web --node n1 --role active", T(type=T.Resolve, group="web", node="n1", role="active")),
        ("fence-confirm n1 --yes", T(type=T.FenceConfirm, node="n1")),
        ("pause web", T(type=T.Pause, group="web")),
        ("resume web", T(type=T.Resume, group="web")),
        ("retry web", T(type=T.Retry, group="web")),
        ("retry web web-app", T(type=T.Retry, group="web", step="web-app")),
        ("drain n1", T(type=T.Drain, node="n1")),
        ("node restart-process n1 guard", T(type=T.RestartProcess, node="n1", role="guard")),
        ("undrain n1", T(type=T.Undrain, node="n1")),
    ],
)
def test_each_command_asks_for_its_operation(hasys: Run, cluster: FakeCluster, words: str, spec: T) -> None:
    cluster.changes = [ended("Running"), ended("Succeeded", milliseconds=140)]
    result = hasys(*words.split())
    assert result.exit_code == 0, result.output
    assert cluster.asked == [spec]
    assert "done in 140ms" in result.stdout


def test_a_failed_operation_is_status_1_with_its_reason(hasys: Run, cluster: FakeCluster) -> None:
    cluster.changes = [ended("Failed", "n2 is not ready")]
    result = hasys("switchover", "web", "--to", "n2")
    assert result.exit_code == 1
    assert result.stderr == "hasys: switchover of web to n2 failed: n2 is not ready\n"


def test_a_timeout_is_status_4_and_says_what_is_still_under_way(hasys: Run, cluster: FakeCluster) -> None:
    cluster.changes = [ended("Running", "web-app stops on n1")]
    result = hasys("switchover", "web", "--timeout", "50ms")
    assert result.exit_code == 4
    assert "switchover of web is still Running (web-app stops on n1); operation op-1" in result.stderr


def test_a_refused_operation_says_what_is_wrong_with_it(hasys: Run, cluster: FakeCluster) -> None:
    cluster.fails = Invalid([Fault(Ref("Operation", "", "drain-1"), "spec.node", "node 'n9' does not exist")])
    assert hasys("drain", "n9").stderr == "hasys: drain of n9 is refused: node 'n9' does not exist\n"


def test_without_a_majority_the_refusal_says_so(hasys: Run, cluster: FakeCluster) -> None:
    cluster.fails = Unavailable("n1 and n2 do not answer")
    result = hasys("failover", "web", "--force", "--to", "n2")
    assert result.exit_code == 1
    assert result.stderr == "hasys: no majority: failover of web to n2 needs one: n1 and n2 do not answer\n"


def test_a_forced_failover_wants_the_word_force(hasys: Run, cluster: FakeCluster) -> None:
    result = hasys("failover", "web", "--to", "n2")
    assert result.exit_code == 2
    assert "hasys switchover web --to n2" in result.stderr
    assert cluster.asked == []


def test_fence_confirm_asks_first_and_a_no_changes_nothing(hasys: Run, cluster: FakeCluster) -> None:
    result = hasys("fence-confirm", "n1", text="n\n")
    assert result.exit_code == 1
    assert cluster.asked == []
    assert "switched off" in result.stderr
    assert result.stderr.endswith("hasys: not confirmed: nothing was done\n")


@pytest.mark.parametrize("timeout", ["10", "soon", "-1s"])
def test_a_duration_without_unit_is_wrong_usage(hasys: Run, cluster: FakeCluster, timeout: str) -> None:
    assert hasys("pause", "web", "--timeout", timeout).exit_code == 2


def test_a_timeout_names_what_the_group_waits_for(hasys: Run, cluster: FakeCluster) -> None:
    cluster.changes = [ended("Running")]
    web = cluster.view.groups.add(name="web", phase="Stopping", reason="n1 stops it, then n2 starts it")
    web.resources.add(kind="Application", name="web-app", node="n1", state="Stopping", message="ignores SIGTERM")
    web.resources.add(kind="VirtualIP", name="web-ip", node="n1", state="Running")
    result = hasys("switchover", "web", "--timeout", "50ms")
    assert result.exit_code == 4
    blocker = "n1 stops it, then n2 starts it; Application/web-app is Stopping on n1: ignores SIGTERM"
    assert f"switchover of web is still Running ({blocker}); operation op-1" in result.stderr


def test_resolve_says_which_role_the_node_gets(hasys: Run, cluster: FakeCluster) -> None:
    cluster.changes = [ended("Succeeded", "web is Running on n2", milliseconds=140)]
    result = hasys("resolve", "web", "--node", "n1", "--role", "standby")
    assert result.stdout == "resolve of web with n1 as standby done in 140ms: web is Running on n2\n"


def test_fence_confirm_without_an_answer_ends_its_question_with_a_line_of_its_own(
    hasys: Run, cluster: FakeCluster
) -> None:
    result = hasys("fence-confirm", "n1", text="")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "hasys: not confirmed: nothing was done"
    assert cluster.asked == []


SILENCE = [
    NoMajority("no majority: 1 of 3 voters"),
    Unreached("no server reached"),
    Unavailable("there is no leader"),
    Unknown("connection reset"),
    TimedOut("no answer within 5 s"),
]


@pytest.mark.parametrize("silence", SILENCE)
def test_a_stored_operation_whose_end_cannot_be_seen_is_status_4_and_named(
    hasys: Run, cluster: FakeCluster, silence: HasysError
) -> None:
    cluster.watch_fails = silence
    result = hasys("switchover", "web", "--to", "n2")
    assert len(cluster.asked) == 1
    assert result.exit_code == 4
    stored = "switchover of web to n2 is stored as op-1, Pending; its end cannot be seen"
    assert result.stderr == f"hasys: {stored}: {silence}; look with: hasys get operation op-1\n"


def test_the_last_state_that_was_seen_of_a_stored_operation_is_told(hasys: Run, cluster: FakeCluster) -> None:
    cluster.changes, cluster.watch_fails = [ended("Running")], Unknown("connection reset")
    assert "is stored as op-1, Running; its end cannot be seen" in hasys("drain", "n1").stderr


def test_the_command_that_a_stored_operation_is_to_be_looked_at_with_exists(hasys: Run, cluster: FakeCluster) -> None:
    operation = pb.Operation(spec=T(type=T.Drain, node="n1"))
    operation.metadata.name = "op-1"
    cluster.put(operation)
    result = hasys("get", "operation", "op-1")
    assert result.exit_code == 0, result.output
    assert "op-1" in result.stdout


def test_a_run_that_is_stored_and_whose_end_cannot_be_seen_is_status_4_and_named(
    hasys: Run, cluster: FakeCluster
) -> None:
    cluster.watch_fails = Unreached("no server reached")
    result = hasys("run", "n1", "--", "true")
    assert result.exit_code == 4
    assert "run of n1 is stored as op-1, Pending; its end cannot be seen: no server reached" in result.stderr
