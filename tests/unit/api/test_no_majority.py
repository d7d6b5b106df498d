"""Without a leader for some seconds: changes are refused at once, the status is told from what a member knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.api.client import Client
from hasys.model.errors import NoMajority
from hasys.v1 import objects_pb2 as pb
from tests.unit.api.cluster import Cluster, running

pytestmark = pytest.mark.anyio


@pytest.fixture
async def leaderless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """For long enough; the clients' own patience is shortened."""
    monkeypatch.setattr("hasys.api.server.forwarding.LEADERLESS", 0.0)
    monkeypatch.setattr("hasys.api.client.ELSEWHERE", 0.05)
    async with running(tmp_path) as cluster:
        cluster.elect(None)
        yield cluster


async def test_a_change_is_refused_for_lack_of_a_majority(leaderless: Cluster) -> None:
    client = await leaderless.client()
    obj = pb.Object()
    obj.group.metadata.name = "web"
    with pytest.raises(NoMajority, match=r"^no majority: 1 of 1 voters see each other \(n[123]\)$"):
        await client.apply([obj])
    with pytest.raises(NoMajority):
        await client.create_operation(pb.OperationSpec(type=pb.OperationSpec.Pause, group="web"))


async def test_the_status_is_told_by_whoever_is_asked(leaderless: Cluster) -> None:
    client = await leaderless.client()
    assert (await client.status()).cluster.name == "demo"
    assert (await anext(client.watch_status())).cluster.name == "demo"


async def test_a_server_with_a_majority_is_preferred_to_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first server of the list is cut off from the others, but not from the client."""
    monkeypatch.setattr("hasys.api.server.forwarding.LEADERLESS", 0.0)
    async with running(tmp_path) as cluster:
        for name, member in cluster.members.items():
            member.engine.elect(None if name == "n2" else "n1")
        client = await cluster.client("admin", "admin", "n2", "n1")
        obj = pb.Object()
        obj.group.metadata.name = "web"
        obj.group.spec.nodes.add(name="n1")
        assert (await client.apply([obj])).results[0].action == "created"


async def test_a_server_that_is_cut_off_is_left_even_if_the_next_one_is_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent kept to its own node's server, which answered that there is no leader, and never tried the third."""
    monkeypatch.setattr("hasys.api.server.forwarding.LEADERLESS", 0.0)
    async with running(tmp_path) as cluster:
        for name, member in cluster.members.items():
            member.engine.elect(None if name == "n2" else "n3")
        await cluster.members["n1"].stop()
        own = cluster.context(cluster.authority.issue("n2", "node"), "n2", "n1", "n3")
        async with Client(replace(own, follow_leader=False)) as client, asyncio.timeout(5):
            found = await anext(client.watch(["Node"]))
            assert found.changes
