"""What a node does before it stops: it gives its groups away, and it stops all the same when it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hasys.cli.handover import hand_over
from hasys.config import CommonStart, load
from hasys.model.errors import ConfigRefused, Unreached
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


def with_settings(folder: Path, text: str) -> Path:
    (folder / "node.yaml").write_text((folder / "node.yaml").read_text() + text)
    return folder


def test_a22_the_common_stop_runs_after_the_groups_have_gone_and_its_end_is_told(
    own: FakeCluster, folders: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own.changes = [ended("Succeeded", "n1 has no groups")]
    mark = tmp_path / "stopped"
    hand_over(load(with_settings(folders / "n1", f"commonStop: {{command: [sh, -c, 'echo x >{mark}; exit 3']}}\n")))
    assert mark.read_text() == "x\n"
    said = capfd.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["hand-over", "common stop"]
    assert said[1] == "common stop: exit status 3"


def test_a_common_stop_that_takes_too_long_or_is_missing_does_not_hold_the_node_up(
    own: FakeCluster, folders: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own.fails = Unreached("no server reached")
    hand_over(load(with_settings(folders / "n1", "commonStop: {command: [sleep, '600'], timeout: 100ms}\n")))
    assert "common stop: did not end within 0.1 s" in capfd.readouterr().err
    hand_over(load(with_settings(folders / "n2", "commonStop: {command: [/no/such]}\n")))
    assert "common stop: /no/such: No such file or directory" in capfd.readouterr().err


def test_the_common_start_of_node_yaml_is_read_with_its_defaults(folders: Path) -> None:
    text = "commonStart: {command: [/opt/prepare, now], timeout: 2m, wait: 1.5s, onFailure: Continue}\n"
    assert load(with_settings(folders / "n1", text)).common_start == CommonStart(
        ("/opt/prepare", "now"), 120.0, 1.5, go_on=True
    )
    assert load(with_settings(folders / "n2", "commonStart: {command: [x]}\n")).common_start == CommonStart(("x",))
    assert load(folders / "w").common_start is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("commonStart: x", "commonStart: expected a mapping with command, timeout, wait, onFailure"),
        ("commonStart: {}", "commonStart.command: expected a list of words: the program and its arguments"),
        ("commonStart: {command: [x], timeout: soon}", "commonStart.timeout: 'soon' is no duration: write it like"),
        ("commonStart: {command: [x], wait: 25h}", "commonStart.wait: 25h is too long: at most 24h"),
        ("commonStart: {command: [x], onFailure: Retry}", "commonStart.onFailure: 'Retry': use Stop or Continue"),
        ("commonStop: {command: [x], wait: 1s}", "commonStop.wait: unknown field; known are command, timeout"),
    ],
)
def test_a_wrong_common_start_or_stop_is_refused_with_its_field(folders: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigRefused, match=re.escape(fault)):
        load(with_settings(folders / "n1", f"{text}\n"))
