"""``hasys demo`` keeps its promise without a terminal, in time, and leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from hasys.lab import registry
from hasys.lab.cluster import hasys_command
from hasys.lab.lab import missing

pytestmark = [pytest.mark.lab, pytest.mark.timeout(150)]

IN_TIME = 90.0
"""Seconds."""


@pytest.fixture(autouse=True)
def root() -> None:
    lack = missing()
    if lack:
        pytest.skip(lack)


def labs() -> set[str]:
    return {p.name for p in registry.ROOT.iterdir()} if registry.ROOT.is_dir() else set()


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*hasys_command(), "demo", *options], capture_output=True, text=True, timeout=140, check=False
    )


def test_the_demo_shows_a_failover_and_ends_well_in_time() -> None:
    before, began = labs(), time.monotonic()
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < IN_TIME
    assert re.search(r"lost its power, n\d took over; the client missed the address for", done.stdout)
    assert "never did two machines hold the address" in done.stdout
    assert labs() <= before


def test_a_kept_demo_can_be_used_and_removed() -> None:
    before = labs()
    done = demo("--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = labs() - before
    record = registry.Record(kept)
    script = Path(record.folder / "lab")
    try:
        status = subprocess.run([script, "client", "hasys", "status"], capture_output=True, text=True, check=False)
        assert status.returncode == 0, status.stderr
        assert "web" in status.stdout
    finally:
        subprocess.run([script, "remove"], check=True)
    assert not record.folder.exists()
    assert not record.cgroup.exists()
