"""Without a majority: who may swear, where, and what is said before."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasys.model.errors import HasysError, NoMajority, Unreached
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake import FakeCluster

SILENCE = NoMajority("no majority: 1 of 3 voters see each other (this one)")


@pytest.fixture
def alone_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folders: Path, cluster: FakeCluster) -> Path:
    """No majority, on the very node, as root; returns the run directory."""
    cluster.fails = SILENCE
    (tmp_path / "guard.sock").touch()
    monkeypatch.setenv("HASYS_CONTEXT", str(folders / "client"))
    monkeypatch.setenv("HASYS_RUN", str(tmp_path))
    monkeypatch.setattr("hasys.cli.alone.os.geteuid", lambda: 0)
    return tmp_path


RESOLVE = ("resolve", "web", "--node", "n1", "--role", "active")


def test_on_another_machine_it_says_where_to_type_it(hasys: Run, alone_here: Path) -> None:
    (alone_here / "guard.sock").unlink()
    result = hasys("failover", "web", "--force", "--to", "n1", "--yes")
    assert result.exit_code == 1
    assert "can only be moved on n1 itself" in result.stderr


def test_no_server_at_all_stays_status_3_away_from_the_node(hasys: Run, alone_here: Path, cluster: FakeCluster) -> None:
    (alone_here / "guard.sock").unlink()
    cluster.fails = Unreached("no server reached")
    assert hasys(*RESOLVE, "--yes").exit_code == 3


def test_only_root_may(hasys: Run, alone_here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasys.cli.alone.os.geteuid", lambda: 1000)
    result = hasys(*RESOLVE, "--yes")
    assert result.exit_code == 1
    assert "works as root only" in result.stderr


def test_without_a_terminal_it_wants_a_yes_and_names_the_risk(hasys: Run, alone_here: Path) -> None:
    result = hasys(*RESOLVE)
    assert result.exit_code == 1
    assert "WARNING: there is no majority" in result.stderr
    assert "both sides serve the same address" in result.stderr
    assert "nothing was done" in result.stderr


def test_a_guard_that_does_not_answer_is_named(hasys: Run, alone_here: Path) -> None:
    result = hasys(*RESOLVE, "--yes")
    assert result.exit_code == 1
    assert "is 'hasys guard run' running?" in result.stderr


@pytest.mark.parametrize("words", ["pause web", "switchover web", "drain n1", "apply -f -"])
def test_everything_else_is_refused_with_one_line(hasys: Run, alone_here: Path, words: str) -> None:
    group = "apiVersion: hasys/v1\nkind: Group\nmetadata: {name: web}\nspec: {nodes: [{name: n1}]}\n"
    result = hasys(*words.split(), text=group)
    assert result.exit_code == 1
    assert result.stderr.startswith("hasys: no majority: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("silence", [SILENCE, Unreached("no server reached")])
@pytest.mark.parametrize("words", [RESOLVE, ("failover", "web", "--force", "--to", "n1")])
def test_an_operation_that_is_stored_is_not_done_alone_as_well(
    hasys: Run,
    alone_here: Path,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    silence: HasysError,
) -> None:
    alone: list[object] = []
    monkeypatch.setattr("hasys.cli.alone.act_alone", lambda wanted, _: alone.append(wanted))
    cluster.fails, cluster.watch_fails = None, silence
    result = hasys(*words, "--yes")
    assert len(cluster.asked) == 1
    assert result.exit_code == 4
    assert not alone
    cluster.fails = silence
    hasys(*words, "--yes")
    assert len(cluster.asked) == len(alone) == 1, "one that could not be stored is"
