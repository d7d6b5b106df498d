"""``hasys init`` on a terminal: the same checks, one answer at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasys import config as node_config
from tests.unit.cli.conftest import Run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasys.cli.init._on_terminal", lambda: True)


@pytest.mark.usefixtures("terminal")
def test_two_servers_are_asked_for_a_witness_and_the_folders_load(hasys: Run, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    answers = [
        "shop",
        "2",
        "n1",
        "10.0.0.1,10.1.0.1",
        "n2",
        "10.0.0.2,10.1.0.2",
        "y",
        "w",
        "10.0.0.3",
        "fast",
        str(out),
        "y",
    ]
    result = hasys("init", text="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    config = node_config.load(out / "n1")
    assert (config.cluster, config.profile) == ("shop", "fast")
    assert [(m.name, m.role) for m in config.members] == [("n1", "Voter"), ("n2", "Voter"), ("w", "Witness")]


@pytest.mark.usefixtures("terminal")
def test_two_servers_without_a_witness_get_the_policy_safe(hasys: Run, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    answers = ["shop", "2", "n1", "10.0.0.1", "n2", "10.0.0.2", "n", "default", str(out), "y"]
    result = hasys("init", text="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    assert node_config.load(out / "n2").policy == "safe"


@pytest.mark.usefixtures("terminal")
def test_a_wrong_answer_is_explained_and_asked_again(hasys: Run, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    answers = ["Shop!", "shop", "1", "n1", "server.example", "10.0.0.1", "default", str(out), "y"]
    result = hasys("init", text="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    assert "'Shop!' is no DNS label" in result.stdout
    assert "'server.example' is no IP address" in result.stdout
    assert node_config.load(out / "n1").me.addresses == ("10.0.0.1",)


@pytest.mark.usefixtures("terminal")
def test_a_no_at_the_end_writes_nothing(hasys: Run, tmp_path: Path) -> None:
    out = tmp_path / "shop"
    result = hasys("init", text="\n".join(["shop", "1", "n1", "10.0.0.1", "default", str(out), "n"]) + "\n")
    assert result.exit_code != 0
    assert not out.exists()


def test_without_a_terminal_nothing_is_asked(hasys: Run) -> None:
    result = hasys("init", text="shop\n")
    assert result.exit_code == 2
    assert "--cluster, --node and --out are needed" in result.stderr
