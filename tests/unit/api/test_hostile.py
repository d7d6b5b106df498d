"""What must not get in: wrong certificates, spoofed identities, garbage, messages over the limit. Nothing changes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from hasys.api.auth import Authenticator, parse_subject
from hasys.api.client import Client
from hasys.api.errors import Denied, TooLarge
from hasys.api.tls import CHANNEL_OPTIONS, MESSAGE_BYTES, client_credentials
from hasys.model.errors import Unavailable
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb
from tests.unit.api.cluster import Cluster, running
from tests.unit.api.pki import Authority, Files
from tests.unit.store.build import group

pytestmark = pytest.mark.anyio


async def raw_call(
    cluster: Cluster, files: Files, server: str, request: api_pb2.ApplyRequest, **metadata: str
) -> grpc.StatusCode:
    """An apply without our client around it; the status that came back."""
    target = cluster.context(files, server).servers[0]
    credentials = client_credentials(files.ca, files.certificate, files.key)
    options = [*CHANNEL_OPTIONS, ("grpc.max_send_message_length", -1)]
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        call: Any = channel.unary_unary(
            "/hasys.v1.Resources/Apply",
            api_pb2.ApplyRequest.SerializeToString,
            api_pb2.ApplyResponse.FromString,
        )
        pairs = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        try:
            await call(request, timeout=2.0, metadata=pairs)
        except grpc.aio.AioRpcError as e:
            return e.code()
        return grpc.StatusCode.OK


@pytest.mark.parametrize("server", ["n1", "n2"])
async def test_a_node_cannot_pass_itself_off_as_an_admin(cluster: Cluster, server: str) -> None:
    """Only a member that votes may pass on, so an outsider with an admin-less certificate gains nothing."""
    request = api_pb2.ApplyRequest(objects=[group()])
    observer = cluster.authority.issue("n9", "node")
    code = await raw_call(cluster, observer, server, request, hasys_forwarded="admin/root")
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert cluster.machine.group("web") is None


async def test_an_admin_cannot_act_in_another_ones_name(cluster: Cluster) -> None:
    files = cluster.authority.issue("alice", "admin")
    request = api_pb2.ApplyRequest(objects=[group()])
    assert (
        await raw_call(cluster, files, "n1", request, hasys_forwarded="admin/bob") is grpc.StatusCode.PERMISSION_DENIED
    )


async def test_a_foreign_clusters_certificate_is_refused_by_tls(cluster: Cluster, tmp_path: Path) -> None:
    foreign = Authority(tmp_path / "foreign").issue("admin", "admin")
    mixed = Files(cluster.authority.ca, foreign.certificate, foreign.key)
    async with Client(cluster.context(mixed)) as client:
        with pytest.raises(Unavailable):
            await client.list("Node", timeout=0.5)


async def test_an_expired_certificate_is_refused_by_tls(cluster: Cluster) -> None:
    expired = cluster.authority.issue("admin", "admin", life=-datetime.timedelta(hours=1))
    async with Client(cluster.context(expired)) as client:
        with pytest.raises(Unavailable):
            await client.list("Node", timeout=0.5)


async def test_our_authoritys_certificate_of_another_cluster_id_is_denied(cluster: Cluster) -> None:
    other = cluster.authority.issue("admin", "admin", cluster_id="other")
    async with Client(cluster.context(other)) as client:
        with pytest.raises(Denied, match="another cluster"):
            await client.list("Node")


async def test_a_certificate_without_a_role_is_denied(cluster: Cluster) -> None:
    client = await cluster.client("guest", "bob")
    with pytest.raises(Denied, match="no role"):
        await client.list("Node")


async def test_a_message_over_the_limit_is_refused_before_it_is_read(cluster: Cluster) -> None:
    files = cluster.authority.issue("admin", "admin")
    big = group()
    big.group.metadata.labels["x"] = "y" * (MESSAGE_BYTES + 1)
    for server in ("n1", "n2"):
        code = await raw_call(cluster, files, server, api_pb2.ApplyRequest(objects=[big]))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert cluster.machine.group("web") is None


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 65536, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""]
)
async def test_garbage_on_the_port_harms_nobody(cluster: Cluster, garbage: bytes) -> None:
    host, _, port = cluster.context(cluster.authority.issue("admin", "admin"), "n1").servers[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(garbage)
    if not garbage:
        writer.write_eof()
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(4096), timeout=5.0)
    writer.close()
    client = await cluster.client()
    assert len((await client.list("Node")).objects) == 3


async def test_calls_at_once_are_bounded_and_one_that_ends_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasys.api.server.serving.CALLS", 3)
    async with running(tmp_path, ("n1",)) as cluster:
        client = await cluster.client()
        watches = [client.watch(["Group"]) for _ in range(3)]
        for watch in watches:
            await anext(watch)
        with pytest.raises(TooLarge, match="oncurrent"):
            await client.list("Node")
        await watches[0].aclose()  # type: ignore[attr-defined]
        # The server reads of the end before it reads the next call, but acts on it when its handler has ended.
        async with asyncio.timeout(5):
            while not await _has_room(client):  # noqa: ASYNC110
                await asyncio.sleep(0)


async def _has_room(client: Client) -> bool:
    try:
        return len((await client.list("Node")).objects) == 1
    except TooLarge as e:
        if "oncurrent" not in str(e):
            raise
        return False


async def test_an_unknown_method_and_unreadable_bytes_are_refused(cluster: Cluster) -> None:
    files = cluster.authority.issue("admin", "admin")
    target = cluster.context(files, "n1").servers[0]
    credentials = client_credentials(files.ca, files.certificate, files.key)
    async with grpc.aio.secure_channel(target, credentials, options=list(CHANNEL_OPTIONS)) as channel:
        codes = []
        for path, data in (("/hasys.v1.Resources/Nothing", b""), ("/hasys.v1.Resources/Apply", b"\xff\xff\xff\xff")):
            call: Any = channel.unary_unary(path, None, None)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(data, timeout=2.0)
            codes.append(refused.value.code())
    assert codes[0] is grpc.StatusCode.UNIMPLEMENTED
    assert codes[1] in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT)


async def test_an_empty_envelope_refuses_the_whole_input(cluster: Cluster) -> None:
    files = cluster.authority.issue("admin", "admin")
    request = api_pb2.ApplyRequest(objects=[group(), pb.Object()])
    assert await raw_call(cluster, files, "n1", request) is grpc.StatusCode.INVALID_ARGUMENT
    assert cluster.machine.group("web") is None


async def test_health_and_reflection_answer(cluster: Cluster) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    files = cluster.authority.issue("admin", "admin")
    target = cluster.context(files, "n2").servers[0]
    credentials = client_credentials(files.ca, files.certificate, files.key)
    async with grpc.aio.secure_channel(target, credentials, options=list(CHANNEL_OPTIONS)) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="hasys.v1.Resources"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        names = []
        async for item in reflection.ServerReflectionInfo(requests):
            names += [one.name for one in item.list_services_response.service]
        assert {"hasys.v1.Resources", "hasys.v1.Operations", "hasys.v1.Status"} <= set(names)


# ---------------------------------------------------------------- subjects


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (b"CN=n1,OU=node,O=hasys:abc", {"CN": "n1", "OU": "node", "O": "hasys:abc"}),
        (rb"CN=a\,b,OU=node,O=hasys:abc", {"CN": "a,b", "OU": "node", "O": "hasys:abc"}),
        (rb"CN=a\,OU=admin,OU=node,O=hasys:abc", {}),
        (b"CN=a,OU=admin,OU=node,O=hasys:abc", {}),
        (b"CN=a+OU=admin,O=hasys:abc", {}),
        (b'CN="a",OU=admin', {}),
        (b"", {}),
        (b"garbage", {}),
        (b"\xff\xfe", {}),
    ],
)
def test_a_subject_is_read_strictly(subject: bytes, expected: dict[str, str]) -> None:
    assert dict(parse_subject(subject)) == expected


def test_forwarded_callers_are_believed_from_voters_alone() -> None:
    known = Authenticator("abc", {"n1": True, "n4": False})
    voter, observer = b"CN=n1,OU=node,O=hasys:abc", b"CN=n4,OU=node,O=hasys:abc"
    passed_on = known.caller(voter, "admin/alice")
    assert (passed_on.actor, passed_on.forwarded) == ("alice", True)
    with pytest.raises(Denied):
        known.caller(observer, "admin/alice")
    with pytest.raises(Denied):
        known.caller(voter, "root")
    with pytest.raises(Denied):
        known.caller(None)
