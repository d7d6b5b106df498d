"""What holds for every command: exit statuses, one line of error, quick start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hasys.cli import exits
from hasys.cli.lazy import Lazy, LazyGroup
from hasys.cli.main import COMMANDS, app
from hasys.model.errors import Conflict, HasysError, NotFound, Refused, TimedOut, Unavailable, Unknown, Unreached
from tests.unit.cli.conftest import Run


class _Failing(Lazy):
    """A command that ends with an error."""

    error: BaseException

    def load(self) -> click.Command:
        @click.command()
        def fail() -> None:
            raise self.error

        return fail


def _failing(error: BaseException) -> LazyGroup:
    lazy = _Failing("", "", "", "")
    object.__setattr__(lazy, "error", error)
    return LazyGroup(table={"fail": lazy})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused("no"), 1), (Conflict("no"), 1), (NotFound("no"), 1), (Unknown("no"), 4),
        (Unavailable("no"), 1), (Unreached("no"), 3), (TimedOut("no"), 4), (ValueError("no"), 1),
        (PermissionError(13, "Permission denied", "/x"), 1),
    ],
)  # fmt: skip
def test_each_error_ends_with_the_status_of_the_contract(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _failing(error).main(["fail"], prog_name="hasys")
    assert ended.value.code == status
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err


def test_ctrl_c_ends_quietly_as_shells_count_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _failing(KeyboardInterrupt()).main(["fail"], prog_name="hasys")
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == ""


def test_wrong_usage_is_status_2(hasys: Run) -> None:
    for words in (["nonsense"], ["get"], ["get", "pods"], ["status", "--colour"], ["switchover"], ["init"]):
        result = hasys(*words)
        assert result.exit_code == exits.USAGE, words


def test_a_mistyped_command_names_the_nearest(hasys: Run) -> None:
    assert "did you mean 'switchover'?" in hasys("swichover").stderr


def test_every_command_loads_and_explains_itself(hasys: Run) -> None:
    for name in COMMANDS:
        result = hasys(name, "--help")
        assert result.exit_code == 0, (name, result.output)
        assert "Usage: hasys " + name in result.output


def test_commands_are_those_of_the_contract_and_few_more() -> None:
    contract = (
        "init node witness store agent guard install apply get describe delete status events history switchover "
        "failover resolve fence-confirm pause resume retry drain undrain doctor demo cert completion version"
    )
    additions = "member backup restore run import command-files top telemetry"
    assert set(COMMANDS) == set(contract.split()) | set(additions.split())


@pytest.mark.parametrize("words", [["version"], ["--help"], ["init", "--help"]])
def test_commands_that_need_no_cluster_import_no_grpc(words: list[str]) -> None:
    code = (
        "import sys; from hasys.cli.main import app\n"
        "try: app(sys.argv[1:], prog_name='hasys')\n"
        "except SystemExit: pass\n"
        "assert not {'grpc', 'google.protobuf'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_supervisor_imports_neither_grpc_nor_asyncio() -> None:
    code = (
        "import sys, hasys.cli.run, hasys.cli.supervisor\n"
        "assert not {'grpc', 'google.protobuf', 'asyncio', 'rich', 'cryptography'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_library_of_the_full_screen_is_loaded_by_it_alone() -> None:
    code = (
        "import sys, hasys.cli.status, hasys.cli.top.command, hasys.cli.operate, hasys.cli.get\n"
        "assert 'textual' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(hasys: Run, shell: str) -> None:
    result = hasys("completion", shell)
    assert result.exit_code == 0
    assert "_HASYS_COMPLETE" in result.output


@pytest.mark.parametrize(("typed", "word"), [("hasys sw", "switchover"), ("hasys get virt", "virtualips")])
def test_completion_knows_commands_and_kinds(typed: str, word: str) -> None:
    position = str(typed.count(" "))
    environment = {**os.environ, "_HASYS_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": position}
    command = [sys.executable, "-m", "hasys"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert word in done.stdout


def test_the_context_may_stand_before_or_after_the_command(hasys: Run, tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    for words in (["--context", missing, "status"], ["status", "--context", missing]):
        result = hasys(*words)
        assert result.exit_code == 1
        assert str(missing) in result.stderr


def test_without_settings_the_error_names_the_file_that_was_looked_for(
    hasys: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert str(tmp_path / "config" / "hasys" / "client.yaml") in hasys("status").stderr
    monkeypatch.setenv("HASYS_CONTEXT", "/nowhere/else.yaml")
    assert "/nowhere/else.yaml" in hasys("status").stderr


def test_every_error_class_has_a_status() -> None:
    statuses = {kind: exits.status_of(kind("x")) for kind in HasysError.__subclasses__()}
    of_unknown_outcome = {kind for kind, status in statuses.items() if status == exits.TIMED_OUT}
    assert of_unknown_outcome == {Unknown}
    assert set(statuses.values()) == {exits.REFUSED, exits.TIMED_OUT}  # the third is of a subclass


def test_the_root_command_is_lazy() -> None:
    assert isinstance(app, LazyGroup)
