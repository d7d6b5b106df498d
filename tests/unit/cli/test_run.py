"""How long the processes of a node may be away, as ``hasys node run`` sees to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasys.cli.run import longest_wait
from hasys.config import load
from hasys.model.timing import PROFILES
from tests.unit.cli.conftest import Run


@pytest.mark.parametrize("profile", PROFILES)
def test_an_agent_that_dies_again_and_again_is_back_long_before_the_guard_fences(
    hasys: Run, tmp_path: Path, profile: str
) -> None:
    out = tmp_path / profile
    nodes = ["--node", "n1=127.0.0.1:21411", "--node", "n2=127.0.0.1:21421", "--witness", "w=127.0.0.1:21431"]
    assert hasys("init", "--cluster", "demo", "--profile", profile, *nodes, "--out", out).exit_code == 0
    config = load(out / "n1")
    # It may die three times in a row before it has said a word to the guard.
    assert 3 * longest_wait(config, "agent") <= config.seed_timing().agent_grace / 3
    assert longest_wait(config, "guard") < config.seed_timing().ttl / 2
