"""The API end to end on loopback: real gRPC and TLS, an in-memory engine."""

from __future__ import annotations

import asyncio

import pytest

from hasys.api.convert import TIMING_FIELDS, duration, timing_of
from hasys.api.errors import Denied, Invalid
from hasys.api.kinds import Ref
from hasys.model.errors import Conflict, NotFound
from hasys.model.level import FIRST, LEVEL
from hasys.model.timing import PROFILES
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb
from hasys.v1.api_pb2 import WatchResponse
from tests.unit.api.cluster import Cluster

pytestmark = pytest.mark.anyio


def group(name: str, *nodes: str) -> pb.Object:
    obj = pb.Object()
    obj.group.metadata.name = name
    for node in nodes or ("n1", "n2"):
        obj.group.spec.nodes.add(name=node, priority=10)
    return obj


def vip(name: str, of: str, address: str = "10.77.0.100/24") -> pb.Object:
    obj = pb.Object()
    obj.virtual_ip.metadata.name = name
    obj.virtual_ip.metadata.group = of
    obj.virtual_ip.spec.address = address
    obj.virtual_ip.spec.interface.name = "eth0"
    return obj


def timings(profile: str, **own: float) -> pb.Object:
    obj = pb.Object()
    obj.cluster.metadata.name = "demo"
    obj.cluster.spec.profile = profile
    for name, value in own.items():
        getattr(obj.cluster.spec.timing, name).CopyFrom(duration(value))
    return obj


async def test_apply_creates_then_leaves_unchanged_then_configures(cluster: Cluster) -> None:
    client = await cluster.client()
    first = await client.apply([vip("web-ip", "web"), group("web")])
    assert [(one.key.name, one.action) for one in first.results] == [("web-ip", "created"), ("web", "created")]
    again = await client.apply([group("web"), vip("web-ip", "web")])
    assert {one.action for one in again.results} == {"unchanged"}
    third = await client.apply([group("web", "n1", "n2", "n3")])
    assert [one.action for one in third.results] == ["configured"]
    stored = await client.get("Group", "web")
    assert stored.group.metadata.generation == 2
    assert stored.group.spec.failover.stop_timeout.seconds == 60


async def test_every_timing_is_stored_so_that_another_version_reads_the_same(cluster: Cluster) -> None:
    client = await cluster.client()
    for wanted in (timings("fast"), timings("wan", ttl=6.0)):
        await client.apply([wanted])
        stored = cluster.machine.cluster()
        assert stored is not None
        assert len(stored.spec.timing.ListFields()) == len(TIMING_FIELDS)
        assert timing_of(stored.spec) == timing_of(wanted.cluster.spec)
        assert (await client.apply([wanted])).results[0].action == "unchanged"


async def test_who_changes_the_name_of_the_profile_alone_means_its_timings(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([timings("wan")])
    read = await client.get("Cluster", "demo")
    read.cluster.spec.profile = "fast"
    await client.apply([read])
    stored = cluster.machine.cluster()
    assert stored is not None
    assert timing_of(stored.spec) == PROFILES["fast"]


async def test_follower_passes_everything_on_and_names_the_leader(cluster: Cluster) -> None:
    client = await cluster.client("admin", "alice", "n2", "n1")
    await client.apply([group("web")])
    listed = await client.list("Group")
    assert [obj.group.metadata.name for obj in listed.objects] == ["web"]
    operation = await client.create_operation(pb.OperationSpec(type=pb.OperationSpec.Pause, group="web"))
    assert operation.spec.actor == "alice"
    assert operation.status.state == "Pending"


async def test_refused_input_names_every_fault_and_changes_nothing(cluster: Cluster) -> None:
    client = await cluster.client()
    revision = cluster.machine.revision
    with pytest.raises(Invalid) as refused:
        await client.apply(
            [group("web", "n1", "n9"), vip("web-ip", "nope", "10.77.0.100"), vip("ip2", "web", "10.77.0.1/24")]
        )
    assert [(fault.ref.name, fault.field) for fault in refused.value.faults] == [
        ("web-ip", "spec.address"),
        ("web", "spec.nodes[1].name"),
        ("ip2", "spec.address"),
    ]
    assert "node n1" in str(refused.value) or "node 'n1'" in str(refused.value)
    assert cluster.machine.revision == revision


async def test_what_an_older_member_does_not_know_is_refused_until_every_member_is_replaced(cluster: Cluster) -> None:
    client = await cluster.client()
    fencing = pb.Object()
    fencing.fencing.metadata.name = "n1"
    fencing.fencing.spec.agent = "fence_ipmilan"
    restart = pb.OperationSpec(type=pb.OperationSpec.RestartProcess, node="n1", role="agent")
    cluster.understand(FIRST)
    revision = cluster.machine.revision
    with pytest.raises(Invalid, match="Fencing needs every member to run a version that knows it"):
        await client.apply([group("web"), fencing])
    with pytest.raises(Invalid, match="RestartProcess needs every member to run a version that knows it"):
        await client.create_operation(restart)
    assert cluster.machine.revision == revision
    cluster.understand(LEVEL)
    await client.apply([group("web"), fencing])
    assert (await client.create_operation(restart)).status.state == "Pending"


async def test_dry_run_answers_and_changes_nothing(cluster: Cluster) -> None:
    client = await cluster.client()
    revision = cluster.machine.revision
    answer = await client.apply([group("web")], dry_run=True)
    assert [one.action for one in answer.results] == ["created"]
    assert cluster.machine.revision == revision


async def test_prune_removes_what_the_named_group_no_longer_names(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply(
        [
            group("web"),
            group("db"),
            vip("a", "web"),
            vip("b", "web", "10.77.0.101/24"),
            vip("c", "db", "10.77.0.102/24"),
        ]
    )
    answer = await client.apply([group("web"), vip("a", "web")], prune=True)
    assert [(one.key.name, one.action) for one in answer.results] == [
        ("web", "unchanged"), ("a", "unchanged"), ("b", "pruned"),
    ]  # fmt: skip
    with pytest.raises(NotFound):
        await client.get("VirtualIP", "b", "web")
    assert (await client.get("VirtualIP", "c", "db")).virtual_ip.metadata.name == "c"


async def test_stale_resource_version_is_a_conflict(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([group("web")])
    stale = await client.get("Group", "web")
    await client.apply([group("web", "n1")])
    stale.group.spec.nodes[0].priority = 77
    with pytest.raises(Conflict):
        await client.apply([stale])


async def test_watch_gives_what_there_is_then_changes(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([group("web")])
    seen: list[tuple[int, str]] = []
    async for answer in client.watch(["Group"]):
        for change in answer.changes:
            seen.append((change.type, change.object.group.metadata.name))
            if change.type == WatchResponse.SYNCED:
                await client.apply([group("db")])
        if "db" in {name for _, name in seen}:
            break
    assert seen == [(WatchResponse.ADDED, "web"), (WatchResponse.SYNCED, ""), (WatchResponse.ADDED, "db")]


async def test_watch_survives_a_change_of_leader_without_gap_or_repetition(cluster: Cluster) -> None:
    client = await cluster.client("node", "n2", "n2", follow_leader=False)
    admin = await cluster.client("admin", "admin", "n1", "n3")
    names = []
    async for answer in client.watch(["Group"]):
        for change in answer.changes:
            if change.type == WatchResponse.SYNCED:
                await admin.apply([group("g1")])
            else:
                names.append((change.type, change.object.group.metadata.name))
                if names[-1][1] == "g1":
                    cluster.elect("n3")
                    await admin.apply([group("g2")])
        if len(names) >= 2:
            break
    assert names == [(WatchResponse.ADDED, "g1"), (WatchResponse.ADDED, "g2")]


async def test_node_reports_for_itself_alone_and_stale_epochs_are_refused(cluster: Cluster) -> None:
    admin = await cluster.client()
    node = await cluster.client("node", "n1")
    await admin.apply([group("web"), vip("web-ip", "web")])
    status = pb.ResourceStatus(node="n1", epoch=1, state="Running")
    report = api_pb2.StatusReport(key=Ref("VirtualIP", "web", "web-ip").key(), status=status)
    answer = await node.report("n1", [report], [pb.Event(type="Normal", reason="Started", message="up")])
    assert answer.refused == ["VirtualIP/web-ip: node n1 is not assigned to group 'web' (epoch 0)"]
    with pytest.raises(Denied):
        await node.report("n2", [report])
    with pytest.raises(Denied):
        await node.apply([group("db")])
    events = await admin.list("Event")
    assert [(one.event.reason, one.event.actor, one.event.node) for one in events.objects] == [
        ("Started", "agent/n1", "n1")
    ]


async def test_delete_of_an_unassigned_group_takes_its_resources_along(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([group("web"), vip("web-ip", "web")])
    await client.delete(Ref("Group", "", "web"))
    assert not (await client.list("VirtualIP")).objects
    with pytest.raises(NotFound):
        await client.delete(Ref("Group", "", "web"))


async def test_status_is_served_once_and_as_a_stream(cluster: Cluster) -> None:
    client = await cluster.client("admin", "admin", "n2")
    assert (await client.status()).cluster.name == "demo"
    async for answer in client.watch_status():
        assert answer.cluster.name == "demo"
        break


async def test_writers_of_one_object_do_not_hinder_each_other(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([group("web")])
    answers = await asyncio.gather(*(client.apply([weighted(number)]) for number in range(1, 33)))
    assert {answer.results[0].action for answer in answers} == {"configured"}
    assert (await client.get("Group", "web")).group.metadata.generation == 33


def weighted(priority: int) -> pb.Object:
    obj = group("web")
    obj.group.spec.nodes[0].priority = priority * 3
    return obj
