"""The witness program refuses, in one line, what it cannot run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hasys.cli.init import write_cluster
from hasys.cli.seed import parse_member, plan
from witness.__main__ import USAGE, main


def test_a_node_that_is_no_witness_is_sent_to_node_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [parse_member("n1=10.0.0.1", "Voter"), parse_member("n2=10.0.0.2", "Voter")]
    write_cluster(plan("demo", [*members, parse_member("w=10.0.0.3", "Witness")], "default"), tmp_path / "out")
    node = tmp_path / "out" / "n1" / "node.yaml"
    monkeypatch.setattr(sys, "argv", ["hasys-witness", "--config", str(node)])

    assert main() == 1

    assert capsys.readouterr().err == f"hasys-witness: {node}: n1 is no witness: use 'hasys node run'\n"


@pytest.mark.parametrize("arguments", [[], ["--config"], ["run"], ["--config", "a", "b"]])
def test_wrong_usage_shows_the_usage_and_exits_with_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hasys-witness", *arguments])

    assert main() == 2

    assert capsys.readouterr().err == USAGE + "\n"
