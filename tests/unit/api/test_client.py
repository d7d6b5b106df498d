"""The client: finds a server, survives those that are down, repeats what may be repeated, says what happened."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from hasys.api import client as client_module
from hasys.api.client import LASTING, Client, Context, from_node_config, load_context
from hasys.api.errors import TooLarge
from hasys.api.kinds import Ref
from hasys.model.errors import ConfigRefused, TimedOut, Unavailable, Unknown, Unreached
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb
from hasys.v1.api_pb2 import WatchResponse
from tests.unit.api.cluster import Cluster, free_port
from tests.unit.api.relay import relay
from tests.unit.store.build import group

pytestmark = pytest.mark.anyio


def hang(engine: Any) -> asyncio.Event:
    """Its writes are never answered from now on. Returns what tells that one was begun."""
    asked = asyncio.Event()

    async def never(command: bytes, *, timeout: float) -> object:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    engine.propose = never
    return asked


async def test_a_request_over_the_limit_is_refused_before_it_is_sent_and_says_the_limit(cluster: Cluster) -> None:
    client = await cluster.client()
    big = group("web")
    big.group.metadata.labels["x"] = "y" * (5 << 20)
    with pytest.raises(TooLarge, match=r"^the request is 5\.0 MiB large: at most 4 MiB: split it$"):
        await client.apply([big])
    assert not (await client.list("Group")).objects


async def test_a_server_that_is_down_is_passed_over(cluster: Cluster) -> None:
    client = await cluster.client()
    await cluster.members["n1"].stop()
    cluster.elect("n2")
    assert len((await client.list("Node")).objects) == 3


async def test_a_server_that_never_answers_is_not_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listening socket that nobody serves: the connection opens and stays silent."""
    monkeypatch.setattr("hasys.api.client.CONNECT", 60.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        files = cluster.authority.issue("admin", "admin")
        context = cluster.context(files)
        servers = (f"127.0.0.1:{silent.getsockname()[1]}", *context.servers)
        async with Client(Context("demo", servers, context.ca, context.certificate, context.key)) as client:
            assert len((await client.list("Node")).objects) == 3


async def test_nobody_there_is_said_with_every_address_tried(cluster: Cluster) -> None:
    files = cluster.authority.issue("admin", "admin")
    target = f"127.0.0.1:{free_port('127.0.0.1')}"
    async with Client(Context("demo", (target,), files.ca, files.certificate, files.key)) as client:
        with pytest.raises(Unreached, match=target):
            await client.list("Node", timeout=0.3)


async def test_that_nobody_is_there_is_told_long_before_the_timeout(cluster: Cluster) -> None:
    files = cluster.authority.issue("admin", "admin")
    target = f"127.0.0.1:{free_port('127.0.0.1')}"
    context = Context("demo", (target,), files.ca, files.certificate, files.key)
    async with Client(context) as client, asyncio.timeout(20.0):
        with pytest.raises(Unreached):
            await client.list("Node", timeout=60.0)
        with pytest.raises(Unreached):
            await anext(client.watch())


async def test_a_node_s_own_process_seeks_a_server_until_its_timeout(cluster: Cluster) -> None:
    """Its store may just be starting."""
    files = cluster.authority.issue("admin", "admin")
    target = f"127.0.0.1:{free_port('127.0.0.1')}"
    context = Context("demo", (target,), files.ca, files.certificate, files.key, patience=None)
    begun = asyncio.get_running_loop().time()
    async with Client(context) as client:
        with pytest.raises(Unreached):
            await client.list("Node", timeout=1.5)
    assert asyncio.get_running_loop().time() - begun >= 1.4


async def test_a_watch_gives_up_on_its_first_answer_when_the_context_says_so(cluster: Cluster) -> None:
    files = cluster.authority.issue("admin", "admin")
    target = f"127.0.0.1:{free_port('127.0.0.1')}"
    context = Context("demo", (target,), files.ca, files.certificate, files.key, patience=0.1)
    async with Client(context) as client:
        with pytest.raises(Unavailable):
            await anext(client.watch())


async def test_without_a_leader_nothing_is_done_and_the_reason_is_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasys.api.server.forwarding.ELECTION", 0.0)
    client = await cluster.client()
    cluster.elect(None)
    with pytest.raises((Unavailable, TimedOut), match="no leader"):
        await client.apply([group()], timeout=0.5)
    assert cluster.machine.group("web") is None


async def test_a_call_during_an_election_waits_for_its_end(cluster: Cluster) -> None:
    client = await cluster.client()
    cluster.elect(None)
    asyncio.get_running_loop().call_later(0.05, cluster.elect, "n3")
    answer = await client.apply([group()])
    assert answer.results[0].action == "created"


async def test_it_goes_to_the_leader_once_a_follower_names_it(cluster: Cluster) -> None:
    client = await cluster.client("admin", "admin", "n2", "n1")
    await client.list("Node")
    assert client._preferred.target.startswith("127.0.0.1:")


async def test_an_agent_stays_with_its_own_server(cluster: Cluster) -> None:
    client = await cluster.client("node", "n2", "n2", "n1", follow_leader=False)
    await client.list("Node")
    assert client._preferred.target.startswith("127.0.0.2:")


async def test_a_watch_of_an_agent_goes_home_when_its_own_server_is_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    original = client_module._Server.stream

    def stream(server: client_module._Server, path: str, response: Any) -> Any:
        opened.append(server.target)
        return original(server, path, response)

    async def until_served_by(target: str) -> None:
        async with asyncio.timeout(10):
            while not opened or opened[-1] != target:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    monkeypatch.setattr(client_module._Server, "stream", stream)
    client = await cluster.client("node", "n2", "n2", "n3", follow_leader=False)
    own, other = client._context.servers
    watch = client.watch(["Group"])
    await anext(watch)  # there is none yet
    first_group = asyncio.ensure_future(anext(watch))
    await until_served_by(own)
    await cluster.members["n2"].stop()
    await until_served_by(other)
    await cluster.members["n2"].start()
    await until_served_by(own)
    await (await cluster.client()).apply([group()])
    answer = await asyncio.wait_for(first_group, 5)
    assert [change.object.group.metadata.name for change in answer.changes] == ["web"]


async def test_the_same_request_id_creates_one_operation(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([group()])
    request = api_pb2.CreateOperationRequest(
        spec=pb.OperationSpec(type=pb.OperationSpec.Pause, group="web"), request_id="same"
    )
    path = "/hasys.v1.Operations/Create"
    first = await client._call(path, request, pb.Operation, 2.0)
    again = await client._call(path, request, pb.Operation, 2.0)
    assert first.metadata.name == again.metadata.name
    assert len((await client.list_operations("web")).operations) == 1


async def test_deletion_of_what_a_lost_first_attempt_deleted_is_done(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.apply([group()])
    member = cluster.members["n1"].engine
    original = member.propose
    stopping: list[asyncio.Task[None]] = []

    async def commit_then_break(command: bytes, *, timeout: float) -> object:
        await original(command, timeout=timeout)
        cluster.elect("n2")
        stopping.append(asyncio.ensure_future(cluster.members["n1"].stop()))
        return await asyncio.Event().wait()

    member.propose = commit_then_break  # type: ignore[method-assign, assignment]
    await client.delete(Ref("Group", "", "web"))
    assert cluster.machine.group("web") is None
    await asyncio.gather(*stopping)


async def test_a_deadline_that_passes_says_that_it_may_still_be_done(cluster: Cluster) -> None:
    client = await cluster.client()
    await client.list("Node")
    hang(cluster.members["n1"].engine)
    with pytest.raises(TimedOut, match="may still be done"):
        await client.apply([group()], timeout=0.2)


async def test_a_time_limit_of_anyio_around_a_call_ends_the_call_and_nothing_else(cluster: Cluster) -> None:
    """What cancels the call is told back to it: else its own scope takes it for the end of everything around it."""
    client = await cluster.client()
    await client.list("Node")
    hang(cluster.members["n1"].engine)
    with anyio.move_on_after(0.2) as limited:
        await client.apply([group()])
    assert limited.cancelled_caught
    assert len((await client.list("Node")).objects) == 3


async def test_a_call_whose_connection_was_closed_under_it_is_sent_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RETIRE", 0.05)
    client = await cluster.client()
    await client.list("Node")
    engine = cluster.members["n1"].engine
    original, asked = engine.propose, hang(engine)
    applied = asyncio.ensure_future(client.apply([group()]))
    await asked.wait()
    engine.propose = original  # type: ignore[method-assign]
    client._preferred.retire()
    await applied
    assert cluster.machine.group("web") is not None


async def test_a_watch_goes_on_when_its_connection_was_closed_under_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is some time after our certificate was renewed, or the members changed."""
    monkeypatch.setattr(client_module, "RETIRE", 0.05)
    client = await cluster.client()
    objects, status = client.watch(["Group"]), client.watch_status()
    await anext(objects)
    await anext(status)
    served_by = next(server for server in client._servers if server.channel is not None)
    served_by.retire()
    await asyncio.gather(*served_by.retired)
    await client.apply([group()])
    async with asyncio.timeout(5):
        assert [c.object.group.metadata.name for c in (await anext(objects)).changes] == ["web"]
        for _ in range(3):  # more than what had arrived before
            await anext(status)


async def test_a_client_that_is_closed_ends_its_watches(cluster: Cluster) -> None:
    client = await cluster.client()
    watch = client.watch(["Group"])
    await anext(watch)
    more = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(more, 5)


async def test_a_client_that_is_closed_does_not_know_what_became_of_its_calls(cluster: Cluster) -> None:
    client = await cluster.client()
    asked = hang(cluster.members["n1"].engine)
    applied = asyncio.ensure_future(client.apply([group()]))
    await asked.wait()
    await client.close()
    with pytest.raises(Unknown):
        await asyncio.wait_for(applied, 5)


async def test_after_relisting_a_watch_tells_only_the_differences(cluster: Cluster) -> None:
    client = await cluster.client("admin", "admin", "n2", "n3")
    await client.apply([group("stays"), group("goes")])
    stream = client.watch(["Group"])
    first = await anext(stream)
    assert [change.type for change in first.changes] == [WatchResponse.ADDED, WatchResponse.ADDED, WatchResponse.SYNCED]
    await client.delete(Ref("Group", "", "goes"))
    await client.apply([group("new")])
    cluster.machine.restore(cluster.machine.revision, cluster.machine.snapshot())  # history is gone
    seen: list[tuple[int, str]] = []
    while len(seen) < 2:
        seen += [
            (change.type, change.object.group.metadata.name)
            for change in (await anext(stream)).changes
            if change.type != WatchResponse.SYNCED
        ]
    assert sorted(seen) == [(WatchResponse.ADDED, "new"), (WatchResponse.DELETED, "goes")]


def test_client_yaml_is_read_relative_to_itself(tmp_path: Path) -> None:
    file = tmp_path / "client.yaml"
    file.write_text("cluster: demo\nservers: ['10.0.0.1:7411']\ntls: {ca: ca.crt, certificate: a.crt, key: a.key}\n")
    context = load_context(tmp_path)
    assert context.servers == ("10.0.0.1:7411",)
    assert context.key == tmp_path / "a.key"


@pytest.mark.parametrize(
    ("text", "field"),
    [("servers: []", "servers"), ("- 1", "servers"), ("servers: [a:1]\ntls: 5", "tls"), ("a: [", "YAML")],
)
def test_a_wrong_client_yaml_is_refused_with_file_and_field(tmp_path: Path, text: str, field: str) -> None:
    file = tmp_path / "client.yaml"
    file.write_text(text)
    with pytest.raises(ConfigRefused, match=field) as refused:
        load_context(file)
    assert str(file) in str(refused.value)


async def test_a_nodes_own_processes_ask_their_own_server_first(cluster: Cluster) -> None:
    config = cluster.members["n2"].server._config
    context = from_node_config(config)
    assert context.servers[0].startswith("127.0.0.2:")
    assert not context.follow_leader


async def test_after_a_call_that_timed_out_the_next_one_asks_another_server_first(cluster: Cluster) -> None:
    files = cluster.authority.issue("admin", "admin")
    async with relay(cluster.context(files, "n1").servers[0]) as frozen:
        servers = (frozen.target, *cluster.context(files, "n2").servers)
        async with Client(Context("demo", servers, files.ca, files.certificate, files.key)) as client:
            await client.list("Node")
            frozen.flowing.clear()
            with pytest.raises(TimedOut):
                await client.list("Node", timeout=0.1)
            order = client._order(asyncio.get_running_loop().time())
            assert [server.target for server in order] == [servers[1], servers[0]]


async def test_of_two_servers_that_failed_the_one_that_did_so_first_is_asked_again_first(cluster: Cluster) -> None:
    files = cluster.authority.issue("admin", "admin")
    async with Client(cluster.context(files, "n1", "n2", "n3")) as client:
        first, second, third = client._servers
        first.shunned, second.shunned, third.shunned = 12.0, 11.0, 9.0
        assert client._order(10.0) == [third, second, first]


async def test_servers_that_are_replaced_are_asked_no_more(cluster: Cluster) -> None:
    files = cluster.authority.issue("n1", "node")
    own = cluster.context(files, "n1")
    async with Client(replace(own, follow_leader=False)) as client:
        await client.list("Node")
        await cluster.members["n1"].stop()
        cluster.elect("n2")
        client.set_servers(cluster.context(files, "n3", "n2").servers)
        assert len((await client.list("Node")).objects) == 3
        assert client._preferred.target == cluster.context(files, "n3").servers[0]


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True])
async def test_a_frozen_server_is_noticed_and_the_call_goes_elsewhere(cluster: Cluster, *, lasting: bool) -> None:
    """Within 1.6 s, and by who stays connected for good after a few seconds."""
    files = cluster.authority.issue("admin", "admin")
    async with relay(cluster.context(files, "n1").servers[0]) as frozen:
        servers = (frozen.target, *cluster.context(files, "n2").servers)
        context = Context("demo", servers, files.ca, files.certificate, files.key)
        async with Client(context, lasting=lasting) as client:
            await client.list("Node")
            frozen.flowing.clear()
            assert len((await client.list("Node", timeout=LASTING + 4.0 if lasting else 4.0)).objects) == 3
