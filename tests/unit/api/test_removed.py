"""A member that was removed serves nobody any more, and its certificate is worth nothing to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from hasys.api.errors import Denied
from hasys.v1 import api_pb2, store_pb2
from hasys.v1 import objects_pb2 as pb
from tests.unit.api.cluster import Cluster, running

pytestmark = pytest.mark.anyio
PATIENCE = 30.0
"""Seconds; far more than it takes, for busy machines."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path) as cluster:
        yield cluster


def remove(cluster: Cluster, name: str) -> None:
    """As the log of the others says it."""
    left = tuple(member for member in cluster.specs if member.name != name)
    for other, member in cluster.members.items():
        if other != name:
            member.server.set_members(left)


async def to_the_end(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


async def test_the_watch_of_a_member_ends_when_it_is_removed(cluster: Cluster) -> None:
    client = await cluster.client("node", "n3", "n1")
    watch = client.watch(["Node"])
    await anext(watch)
    remove(cluster, "n3")
    with pytest.raises(Denied, match="'n3' is no member of this cluster"):
        await asyncio.wait_for(to_the_end(watch), PATIENCE)


async def test_a_watch_that_a_removed_member_passes_on_ends_too(cluster: Cluster) -> None:
    client = await cluster.client("admin", "admin", "n3")
    watch, status = client.watch(["Node"]), client.watch_status()
    await anext(watch)
    await anext(status)
    remove(cluster, "n3")
    with pytest.raises(Denied, match="'n3' is no member of this cluster"):
        await asyncio.wait_for(to_the_end(watch), PATIENCE)
    with pytest.raises(Denied, match="'n3' is no member of this cluster"):
        await asyncio.wait_for(to_the_end(status), PATIENCE)


async def test_the_watches_of_others_go_on_without_a_gap(cluster: Cluster) -> None:
    client = await cluster.client("node", "n2", "n1")
    watch = client.watch(["Node"])
    first = await anext(watch)
    assert len(first.changes) >= 3
    remove(cluster, "n3")
    mutation = store_pb2.Mutation(delete=pb.Key(kind="Node", name="n3"))
    command = store_pb2.Command(id="removed", actor="test", mutations=[mutation])
    cluster.members["n1"].engine.apply_now(command.SerializeToString())
    async with asyncio.timeout(PATIENCE):
        change = (await anext(watch)).changes[0]
    assert (change.type, change.object.node.metadata.name) == (api_pb2.WatchResponse.DELETED, "n3")


async def test_a_member_that_knows_of_its_removal_answers_nothing_but_the_status(cluster: Cluster) -> None:
    cluster.members["n3"].engine.dismiss()
    client = await cluster.client("admin", "admin", "n3")
    server = await client._find()
    stale = api_pb2.ListRequest(kind="Node", consistency=api_pb2.Stale)
    calls = (
        server.unary("/hasys.v1.Resources/List", api_pb2.ListResponse)(stale, timeout=PATIENCE),
        server.unary("/hasys.v1.Resources/List", api_pb2.ListResponse)(api_pb2.ListRequest(), timeout=PATIENCE),
        server.stream("/hasys.v1.Resources/Watch", api_pb2.WatchResponse)(api_pb2.WatchRequest(), timeout=PATIENCE),
    )
    for call in calls:
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "n3 is no member of the cluster any more: ask another server"
    assert (await client.status()).cluster.name == "demo"
    assert (await anext(client.watch_status())).cluster.name == "demo"


async def test_a_client_of_a_removed_member_is_served_by_another_one(cluster: Cluster) -> None:
    cluster.members["n3"].engine.dismiss()
    client = await cluster.client("admin", "admin", "n3", "n2")
    assert len((await client.list("Node", stale=True)).objects) == 3
    assert (await anext(client.watch(["Node"]))).changes
