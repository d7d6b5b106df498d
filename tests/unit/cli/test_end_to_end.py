"""The commands against a real server on loopback, with the folders that ``hasys init`` wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api.cluster import free_port
from tests.unit.cli.conftest import Run
from tests.unit.cli.pty import Terminal
from tests.unit.cli.test_objects import WEB

pytestmark = pytest.mark.slow

_COLOUR = re.compile(rb"\x1b\[(\d+;)*([34][0-8]|9\d|10\d)[;m]")


@pytest.fixture
def context(hasys: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Client settings of a server that runs."""
    out = tmp_path / "c"
    node = f"n1=127.0.0.1:{free_port('127.0.0.1')}"
    assert hasys("init", "--cluster", "demo", "--node", node, "--out", out).exit_code == 0
    command = [sys.executable, "-m", "tests.unit.cli.serving", str(out / "n1")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"serving\n"
        monkeypatch.setenv("HASYS_CONTEXT", str(out / "client" / "client.yaml"))
        yield out / "client" / "client.yaml"
        server.kill()


def test_apply_get_change_and_delete(hasys: Run, context: Path) -> None:
    created = hasys("apply", "-f", "-", text=WEB)
    assert created.stdout == "Group/web created\nVirtualIP/web-ip created\n", created.stderr
    assert hasys("apply", "-f", "-", text=WEB).stdout == "Group/web unchanged\nVirtualIP/web-ip unchanged\n"

    changed = WEB.replace("priority: 50", "priority: 60")
    dry = hasys("apply", "-f", "-", "--dry-run", text=changed).stdout
    assert "Group/web configured (dry run)" in dry
    marked = [line.strip() for line in dry.splitlines() if line.startswith(("  +", "  -"))]
    assert marked == ["-    priority: 50", "+    priority: 60"]  # defaults and identity are no difference
    assert hasys("apply", "-f", "-", text=WEB).stdout.startswith("Group/web unchanged")

    shown = json.loads(hasys("get", "vip/web-ip", "-o", "json").stdout)
    assert shown["spec"] == {
        "address": "10.77.0.100/24", "interface": "eth0", "onStartFailure": "Stop", "announceInterval": "30s",
    }  # fmt: skip
    assert hasys("delete", "group", "web").stdout == "Group/web deleted\n"
    assert hasys("get", "vip").stdout == ""


def test_prune_removes_what_the_input_no_longer_names(hasys: Run, context: Path) -> None:
    hasys("apply", "-f", "-", text=WEB)
    pruned = hasys("apply", "-f", "-", "--prune", text=WEB.split("---\n")[0])
    assert pruned.stdout == "Group/web unchanged\nVirtualIP/web-ip pruned\n"


def test_faults_of_the_whole_are_told_with_file_and_line_and_change_nothing(
    hasys: Run, context: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(WEB.replace("name: n2", "name: n9"))
    result = hasys("apply", "-f", path)
    assert result.exit_code == 1
    assert f"{path}:4: spec.nodes[1].name:" in result.stderr
    assert hasys("get", "groups").stdout == ""


def test_a_node_s_certificate_may_look_but_not_apply(hasys: Run, context: Path, tmp_path: Path) -> None:
    folder = context.parent.parent / "n1"
    settings = json.dumps({
        "cluster": "demo",
        "servers": _servers(context),
        "tls": {"ca": str(folder / "ca.crt"), "certificate": str(folder / "node.crt"), "key": str(folder / "node.key")},
    })  # fmt: skip
    (tmp_path / "node.yaml").write_text(settings)
    assert hasys("get", "nodes", "--context", tmp_path / "node.yaml").exit_code == 0
    refused = hasys("apply", "-f", "-", "--context", tmp_path / "node.yaml", text=WEB)
    assert refused.exit_code == 1
    assert "use an admin certificate" in refused.stderr


def test_another_cluster_s_certificate_is_refused_in_one_line(hasys: Run, context: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert hasys("init", "--cluster", "other", "--node", "n1=127.0.0.1", "--out", other).exit_code == 0
    folder = other / "client"
    settings = {"cluster": "demo", "servers": _servers(context), "tls": {"ca": str(context.parent / "ca.crt")}}
    (folder / "client.yaml").write_text(json.dumps(settings))
    result = hasys("get", "nodes", "--context", folder / "client.yaml")
    assert result.exit_code == 3
    assert "refuses our certificate" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_operation_that_nobody_carries_out_is_status_4(hasys: Run, context: Path) -> None:
    hasys("apply", "-f", "-", text=WEB)
    result = hasys("pause", "web", "--timeout", "100ms", "--reason", "patch day")
    assert result.exit_code == 4
    assert "pause of web is still Pending" in result.stderr
    assert "patch day" in hasys("history", "web").stdout


def _servers(context: Path) -> list[str]:
    import yaml

    listed = yaml.safe_load(context.read_text())["servers"]
    assert isinstance(listed, list)
    return listed


@pytest.mark.parametrize("leave", ["q", "SIGTERM"])
def test_top_takes_a_real_terminal_and_gives_it_back(leave: str, context: Path, tmp_path: Path) -> None:
    with Terminal(["top"], {"NO_COLOR": "1"}, tmp_path) as terminal:
        terminal.until("\x1b[?1049h")
        terminal.until("no quorum")
        terminal.until("Quit")
        if leave == "q":
            terminal.press("q")
        else:
            terminal.process.terminate()
        terminal.until("\x1b[?1049l")
        terminal.rest()
        assert terminal.process.returncode == 0
        assert not _COLOUR.search(terminal.everything)


def test_top_without_a_server_says_so_and_leaves_the_terminal_alone(hasys: Run, tmp_path: Path) -> None:
    node = f"n1=127.0.0.1:{free_port('127.0.0.1')}"
    assert hasys("init", "--cluster", "demo", "--node", node, "--out", tmp_path / "c").exit_code == 0
    with Terminal(["--context", str(tmp_path / "c" / "client" / "client.yaml"), "top"], {}, tmp_path) as terminal:
        said = terminal.rest()
        assert terminal.process.returncode == 3
    assert said.startswith("hasys: ")
    assert "\x1b" not in said
