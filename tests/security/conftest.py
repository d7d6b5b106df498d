"""Clusters to attack: API servers around one state, and consensus engines over real TLS; both on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.api import cluster as api
from tests.unit.raft import test_engine as raft


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[api.Cluster]:
    """Three members that serve the API; n1 leads."""
    async with api.running(tmp_path) as one:
        yield one


@pytest.fixture
async def voters(tmp_path: Path) -> AsyncIterator[raft.Cluster]:
    """Three consensus engines, one of which leads."""
    cluster = raft.Cluster(tmp_path)
    for name in raft.NAMES:
        cluster.start(name)
    await cluster.until(lambda: cluster.leader() is not None)
    yield cluster
    await cluster.stop()
