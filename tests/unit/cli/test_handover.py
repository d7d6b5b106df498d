"""What a node does before it stops: it gives its groups away, and it stops all the same when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasys.cli.handover import hand_over
from hasys.config import load
from hasys.model.errors import Unreached
from hasys.v1 import objects_pb2 as pb
from tests.unit.cli.fake import FakeCluster, ended, web_group


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr("hasys.cli.handover._own_cluster", lambda _config: fake)
    return fake


def test_it_drains_the_node_for_the_shutdown_and_waits_for_the_end(
    own: FakeCluster, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.put(web_group())
    own.changes = [ended("Running"), ended("Succeeded", "n1 has no groups")]
    hand_over(load(folders / "n1"))
    assert own.asked == [pb.OperationSpec(type=pb.OperationSpec.Drain, node="n1", reason="shutdown")]
    assert capsys.readouterr().err == "hand-over: web: n1 has no groups\n"


def test_a_group_that_is_just_leaving_counts_as_here(
    own: FakeCluster, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = web_group()
    group.status.assignment.node, group.status.assignment.previous_node = "n2", "n1"
    own.put(group)
    own.changes = [ended("Succeeded")]
    hand_over(load(folders / "n1"))
    assert "web: Succeeded" in capsys.readouterr().err


def test_a_node_that_runs_nothing_says_so_and_is_drained_too(
    own: FakeCluster, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.put(web_group())
    own.changes = [ended("Succeeded")]
    hand_over(load(folders / "n2"))
    assert len(own.asked) == 1
    assert "no group runs here" in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["no server reached", "there is no majority"])
def test_without_a_cluster_it_gives_up_and_lets_the_node_stop(
    own: FakeCluster, folders: Path, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    own.fails = Unreached(reason)
    hand_over(load(folders / "n1"))
    assert f"given up, stopping all the same: {reason}" in capsys.readouterr().err


def test_an_operation_that_fails_is_said_with_its_reason(
    own: FakeCluster, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.put(web_group())
    own.changes = [ended("Failed", "no other node can take web")]
    hand_over(load(folders / "n1"))
    assert "web: no other node can take web" in capsys.readouterr().err


def test_the_wait_is_bounded_by_the_stop_time_of_the_groups(
    own: FakeCluster, folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasys.cli.handover._SLACK", 0.0)
    group = web_group()
    group.spec.failover.stop_timeout.FromMilliseconds(20)
    own.put(group)
    hand_over(load(folders / "n1"))
    assert "timed out after 0.02s: drain of n1 is still Pending" in capsys.readouterr().err
