"""A21, A11: what ``hasys top`` asks for is carried out by a real store, and its end is told on a real terminal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasys.lab.cluster import hasys_command
from hasys.lab.shell import until
from tests.unit.api.cluster import free_port
from tests.unit.cli.conftest import Run
from tests.unit.cli.pty import Terminal
from tests.unit.cli.test_objects import WEB

pytestmark = pytest.mark.slow

DOWN, ENTER = "\x1b[B", "\r"
"""Keys, as a terminal sends them."""


@pytest.fixture
def store(hasys: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The store of n1, the only voter, with the group web; nobody is heard of n1's guard, nor of n2, an observer."""
    out = tmp_path / "c"
    members = ("--node", f"n1=127.0.0.1:{free_port('127.0.0.1')}", "--observer", "n2=127.0.0.2")
    assert hasys("init", "--cluster", "demo", *members, "--out", out).exit_code == 0
    monkeypatch.setenv("HASYS_CONTEXT", str(out / "client" / "client.yaml"))
    with (tmp_path / "log").open("wb") as log:
        command = [*hasys_command(), "store", "run", "--config", str(out / "n1" / "node.yaml")]
        with subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                until(lambda: hasys("apply", "-f", "-", text=WEB).exit_code == 0, 20, "the store to take the group")
                yield
            finally:
                process.kill()


def test_a_forced_failover_wants_its_word_after_a_warning_and_the_end_of_it_and_of_a_drain_is_told(
    hasys: Run, store: None, tmp_path: Path
) -> None:
    with Terminal(["top"], {"NO_COLOR": "1"}, tmp_path) as menu:
        menu.until("Force")
        for word in ("wbe", "web"):
            menu.press("f")
            menu.until("FORCED: conditions are skipped")
            menu.until("Yes: n2")
            menu.press(DOWN + DOWN + ENTER)
            menu.until("type web and Enter to confirm")
            assert "failover" not in hasys("history", "web").stdout, "nothing is done before the word"
            menu.press(word + ENTER)
            menu.until("not confirmed: nothing was done" if word != "web" else "failover of web to n2 failed")
        menu.until("n2 cannot take web")
        assert "n2 cannot take web" in hasys("history", "web").stdout
        menu.press("\t")
        menu.until("Drain/undrain")
        menu.press("d")
        menu.until("Move everything away from n1")
        menu.press(DOWN + ENTER)
        menu.until("drain of n1 done")
        menu.press("q")
        menu.rest()
    assert menu.process.returncode == 0
