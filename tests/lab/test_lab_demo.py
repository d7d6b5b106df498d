"""``hasys demo`` keeps its promise without a terminal, in time, and leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
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


def left_by(pid: int) -> list[str]:
    """Labs that a process made and that are still there; other labs may come and go meanwhile."""
    owners = {p.parent.name: p.read_text() for p in registry.ROOT.glob("*/owner")}
    return [name for name, owner in owners.items() if owner.split()[:1] == [str(pid)]]


@dataclass(frozen=True)
class Played:
    """A demo that has ended."""

    pid: int
    status: int
    said: str
    took: float


def demo(*options: str) -> Played:
    began = time.monotonic()
    with subprocess.Popen(
        [*hasys_command(), "demo", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as played:
        said, _ = played.communicate(timeout=140)
    return Played(played.pid, played.returncode, said, time.monotonic() - began)


@pytest.fixture
def kept() -> Iterator[tuple[Played, Path]]:
    """A demo that was asked to stay, and its script; removed whatever the test finds."""
    played = demo("--keep")
    left = [registry.Record(name) for name in left_by(played.pid)]
    yield played, left[0].folder / "lab" if left else Path()
    for record in left:
        record.remove()


def test_the_demo_shows_a_failover_and_ends_well_in_time() -> None:
    played = demo()
    assert played.status == 0, played.said
    assert played.took < IN_TIME
    assert re.search(r"lost its power, n\d took over; the client missed the address for", played.said)
    assert "never did two machines hold the address" in played.said
    assert left_by(played.pid) == []


def test_a_kept_demo_can_be_used_and_removed(kept: tuple[Played, Path]) -> None:
    played, script = kept
    assert played.status == 0, played.said
    assert str(script) in played.said
    status = subprocess.run([script, "client", "hasys", "status"], capture_output=True, text=True, check=False)
    assert status.returncode == 0, status.stderr
    assert "web" in status.stdout
    subprocess.run([script, "remove"], check=True)
    assert left_by(played.pid) == []
