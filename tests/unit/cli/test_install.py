"""``hasys install``: one unit per process of a member, and one that hands over when it stops."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.cli.install import units
from hasys.config import CommonStop, load
from tests.unit.cli.conftest import Run
from tests.unit.cli.systemctl import FakeSystemctl


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["n1", "w"])
def test_systemd_finds_nothing_wrong_with_the_units(hasys: Run, folders: Path, tmp_path: Path, name: str) -> None:
    words = ["--command-files", tmp_path / "in"] if name == "n1" else []
    context = ["--context", folders / "client" / "client.yaml"]
    unit_dir = tmp_path / "systemd"
    unit_dir.mkdir()
    made = hasys(*context, "install", "--config", folders / name, "--unit-dir", unit_dir, "--apply", *words)
    assert made.exit_code == 0, made.output
    paths = sorted(str(path) for path in unit_dir.iterdir())
    assert len(paths) == (5 if name == "n1" else 2)
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", "--recursive-errors=no", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "hasys-demo" in line]) == (0, [])


def test_each_process_tells_systemd_when_it_is_ready_and_that_it_lives(folders: Path) -> None:
    made = units(load(folders / "n1"))
    silences = {}
    for role in ("store", "guard", "agent"):
        unit = made[f"hasys-demo-n1-{role}.service"].splitlines()
        assert {"Type=notify", "Restart=always", "WatchdogSignal=SIGKILL"} <= set(unit)
        silences[role] = next(line for line in unit if line.startswith("WatchdogSec="))
    assert silences == {"store": "WatchdogSec=30s", "guard": "WatchdogSec=10s", "agent": "WatchdogSec=5s"}


def test_a_guard_that_was_killed_is_started_without_a_pause_and_one_that_failed_is_not(folders: Path) -> None:
    guard = units(load(folders / "n1"))["hasys-demo-n1-guard.service"].splitlines()
    assert "RestartSec=0" in guard
    [post] = [shlex.split(line.partition("=")[2]) for line in guard if line.startswith("ExecStopPost=")]
    command = [word.replace("$$", "$") for word in post]

    def pauses(status: str) -> bool:
        """With a ``sleep`` that only tells that it was called, as systemd.exec(5) gives the end of the process."""
        script, env = f"sleep() {{ echo slept; }}; {command[2]}", {"EXIT_STATUS": status, "PATH": "/nowhere"}
        done = subprocess.run([*command[:2], script], env=env, capture_output=True, check=True)
        return done.stdout == b"slept\n"

    assert {status: pauses(status) for status in ("0", "KILL", "1", "2", "3", "SEGV", "ABRT")} == {
        "0": False, "KILL": False, "1": True, "2": True, "3": True, "SEGV": True, "ABRT": True,
    }  # fmt: skip


def test_a_stop_waits_for_the_longest_hand_over_and_the_common_stop(folders: Path) -> None:
    config = load(folders / "n1")
    assert "TimeoutStopSec=3700s" in units(config)["hasys-demo-n1.service"]
    longer = replace(config, common_stop=CommonStop(("/bin/true",), 120.0))
    assert "TimeoutStopSec=3820s" in units(longer)["hasys-demo-n1.service"]


def test_command_files_get_a_unit_of_their_own_and_a_directory_for_few(
    hasys: Run, folders: Path, tmp_path: Path
) -> None:
    unit_dir, inbox = tmp_path / "systemd", tmp_path / "in"
    unit_dir.mkdir()
    words = ["install", "--config", folders / "n1", "--unit-dir", unit_dir, "--apply", "--command-files", inbox]
    assert hasys("--context", folders / "client" / "client.yaml", *words).exit_code == 0
    unit = (unit_dir / "hasys-demo-n1-command-files.service").read_text()
    assert f"command-files --directory {inbox} --node n1" in unit
    assert f"--context {folders}/client/client.yaml" in unit
    assert "hasys-demo-n1-command-files.service" in (unit_dir / "hasys-demo-n1.service").read_text()
    assert inbox.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("name", "context", "why"),
    [("n1", "none.yaml", "no client settings there: name them with --context FILE"), ("w", "x", "w is a witness")],
)
def test_command_files_that_could_not_work_are_refused(
    hasys: Run, folders: Path, tmp_path: Path, name: str, context: str, why: str
) -> None:
    words = ["install", "--config", folders / name, "--command-files", tmp_path / "in"]
    result = hasys("--context", tmp_path / context, *words)
    assert (result.exit_code, why in result.stderr) == (1, True), result.output


def test_start_ends_in_a_service_that_runs_now_and_at_each_boot(
    hasys: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = FakeSystemctl(tmp_path, monkeypatch)
    result = hasys("install", "--config", folders / "n1", "--unit-dir", tmp_path, "--start")
    assert result.exit_code == 0, result.output
    assert "hasys-demo-n1.service runs" in result.stdout
    assert systemctl.asked == [
        "daemon-reload", "enable --now hasys-demo-n1.service", "is-active --quiet hasys-demo-n1.service",
    ]  # fmt: skip
    assert (tmp_path / "hasys-demo-n1-guard.service").exists()


def test_a_service_that_does_not_start_is_told_in_systemd_s_words(
    hasys: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeSystemctl(tmp_path, monkeypatch).fails_at("enable")
    result = hasys("install", "--config", folders / "n1", "--unit-dir", tmp_path, "--start")
    assert result.exit_code == 1
    assert "systemctl enable --now hasys-demo-n1.service failed: no way; look at: " in result.stderr


def test_without_systemd_start_says_what_else_to_do(
    hasys: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasys.cli.systemd.BOOTED", tmp_path / "none")
    result = hasys("install", "--config", folders / "n1", "--unit-dir", tmp_path / "x", "--start")
    assert (result.exit_code, "hasys node run" in result.stderr) == (1, True)


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
