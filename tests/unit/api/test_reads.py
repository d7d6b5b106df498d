"""Linearizable reads wait for a majority's word, stale ones for nobody."""

from __future__ import annotations

import asyncio

import pytest

from hasys.api.errors import Denied
from hasys.model.errors import NotFound, TimedOut, Unavailable, Unknown
from hasys.store.port import Applied
from hasys.v1 import api_pb2
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb
from tests.unit.api.cluster import Cluster

pytestmark = pytest.mark.anyio

UNANSWERED = (Unavailable, TimedOut)
"""How a client that gives up after a moment says that nobody answered: it depends on where the moment ends."""


def group(name: str) -> pb.Object:
    obj = pb.Object()
    obj.group.metadata.name = name
    obj.group.spec.nodes.add(name="n1", priority=10)
    return obj


class Deposed:
    """Stands for a leader that believes in itself while no majority does."""

    def __init__(self, cluster: Cluster) -> None:
        self.asked = 0
        setattr(cluster.members["n1"].engine, "confirm", self.confirm)  # noqa: B010  (a method)

    async def confirm(self, *, timeout: float) -> None:
        self.asked += 1
        raise Unavailable("this member does not lead any more")


async def test_a_deposed_leader_answers_no_read_from_its_old_state(cluster: Cluster) -> None:
    client = await cluster.client("admin", "admin", "n1", follow_leader=False)
    await client.apply([group("web")])
    deposed = Deposed(cluster)
    with pytest.raises(UNANSWERED):
        await client.get("Group", "web", timeout=0.3)
    with pytest.raises(UNANSWERED):
        await client.list("Group", timeout=0.3)
    assert deposed.asked >= 2


async def test_a_deposed_leader_does_not_say_that_something_is_absent_or_unchanged(cluster: Cluster) -> None:
    client = await cluster.client("admin", "admin", "n1", follow_leader=False)
    await client.apply([group("web")])
    Deposed(cluster)
    with pytest.raises(UNANSWERED):
        await client.get("Group", "other", timeout=0.3)
    with pytest.raises(UNANSWERED):
        await client.apply([group("web")], timeout=0.3)


async def test_a_deposed_leader_does_not_say_that_a_change_of_unknown_outcome_was_not_made(cluster: Cluster) -> None:
    """The new leader may have the entry, and commit it."""
    client = await cluster.client("admin", "admin", "n1", follow_leader=False)

    async def propose(command: bytes, *, timeout: float) -> Applied:
        raise Unknown("the leader changed before it answered: the change may have been made")

    setattr(cluster.members["n1"].engine, "propose", propose)  # noqa: B010  (a method)
    Deposed(cluster)
    with pytest.raises(Unknown, match="may have been made"):
        await client.apply([group("web")])


async def test_a_write_that_went_through_the_log_needs_no_confirmation(cluster: Cluster) -> None:
    client = await cluster.client()
    deposed = Deposed(cluster)
    await client.apply([group("web")])
    assert deposed.asked == 0


async def test_figures_alone_need_no_confirmation_and_what_is_stored_does(cluster: Cluster) -> None:
    agent = await cluster.client("node", "n1", "n1", follow_leader=False)
    deposed = Deposed(cluster)
    await agent.report("n1", figures=mpb.NodeFigures())
    assert deposed.asked == 0
    stale = api_pb2.StatusReport(key=pb.Key(kind="VirtualIP", group="web", name="ip"))
    with pytest.raises(UNANSWERED):
        await agent.report("n1", [stale], figures=mpb.NodeFigures(), timeout=0.3)
    assert deposed.asked >= 1


async def test_a_stale_read_is_answered_without_any_leader(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([group("web")])
    cluster.elect(None)
    for name in cluster.members:
        alone = await cluster.client("admin", "admin", name)
        assert [obj.group.metadata.name for obj in (await alone.list("Group", stale=True)).objects] == ["web"]
        assert (await alone.get("Group", "web", stale=True)).group.metadata.name == "web"
        with pytest.raises(NotFound):
            await alone.get("Group", "other", stale=True)
        with pytest.raises(UNANSWERED):
            await alone.get("Group", "web", timeout=0.2)


async def test_a_stale_read_needs_a_certificate_as_any_other(cluster: Cluster) -> None:
    stranger = await cluster.client("node", "n9", "n2")
    with pytest.raises(Denied):
        await stranger.list("Group", stale=True)


async def test_reads_through_a_follower_see_the_callers_own_write(cluster: Cluster) -> None:
    writer = await cluster.client("admin", "admin", "n1")
    reader = await cluster.client("admin", "admin", "n2", follow_leader=False)
    await asyncio.gather(*(writer.apply([group(f"g{number}")]) for number in range(5)))
    assert len((await reader.list("Group")).objects) == 5
