"""``hasys install``: one unit per process of a member, and one that hands over when it stops."""

from __future__ import annotations

from pathlib import Path

from hasys.cli.install import units
from hasys.config import load
from tests.unit.cli.conftest import Run


def test_the_dry_run_prints_every_unit_and_writes_nothing(hasys: Run, folders: Path, tmp_path: Path) -> None:
    unit_dir = tmp_path / "systemd"
    unit_dir.mkdir()
    result = hasys("install", "--config", folders / "n1", "--unit-dir", unit_dir)
    assert result.exit_code == 0
    for role in ("store", "guard", "agent"):
        assert f"{unit_dir}/hasys-demo-n1-{role}.service" in result.stdout
    assert list(unit_dir.iterdir()) == []


def test_apply_writes_what_the_dry_run_printed(hasys: Run, folders: Path, tmp_path: Path) -> None:
    unit_dir = tmp_path / "systemd"
    unit_dir.mkdir()
    assert hasys("install", "--config", folders / "n1", "--unit-dir", unit_dir, "--apply").exit_code == 0
    written = {path.name: path.read_text() for path in unit_dir.iterdir()}
    assert written == units(load(folders / "n1"))


def test_a_witness_has_only_a_store_and_hands_nothing_over(folders: Path) -> None:
    made = units(load(folders / "w"))
    assert set(made) == {"hasys-demo-w-store.service", "hasys-demo-w.service"}
    assert "hand-over" not in made["hasys-demo-w.service"]


def test_stopping_the_node_unit_hands_over_before_any_process_stops(folders: Path) -> None:
    whole = units(load(folders / "n1"))["hasys-demo-n1.service"]
    assert "ExecStop=" in whole
    assert "node hand-over" in whole
    after = next(line for line in whole.splitlines() if line.startswith("After="))
    for role in ("store", "guard", "agent"):  # systemd stops in the reverse of After
        assert f"hasys-demo-n1-{role}.service" in after


def test_the_guard_is_there_before_the_network(folders: Path) -> None:
    assert "Before=network-pre.target" in units(load(folders / "n1"))["hasys-demo-n1-guard.service"]


def test_stopping_the_agent_leaves_what_it_runs(folders: Path) -> None:
    assert "KillMode=process" in units(load(folders / "n1"))["hasys-demo-n1-agent.service"]
