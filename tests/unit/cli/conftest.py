"""A command line that runs in the test's own process, and a cluster's folders as ``init`` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hasys.cli.main import app
from tests.unit.cli.fake import FakeCluster

Run = Callable[..., Result]


@pytest.fixture
def hasys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run one command: ``hasys("get", "vip")``. Its home and environment are the test's own."""
    monkeypatch.delenv("HASYS_CONTEXT", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*args: object, text: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(a) for a in args], input=text, prog_name="hasys")

    return run


@pytest.fixture
def folders(hasys: Run, tmp_path: Path) -> Path:
    """The folders of a cluster of two nodes and a witness, all on loopback."""
    out = tmp_path / "cluster"
    nodes = ["--node", "n1=127.0.0.1:21411", "--node", "n2=127.0.0.1:21421", "--witness", "w=127.0.0.1:21431"]
    result = hasys("init", "--cluster", "demo", *nodes, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """The cluster that every command of the test speaks to."""
    fake = FakeCluster()
    monkeypatch.setattr("hasys.cli.session.connect", lambda: fake)
    return fake
