"""What TLS refuses on both TCP ports: old versions, no certificate, what says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

import pytest

from hasys.store.raft import transport as raft_transport
from tests.certs import issue
from tests.unit.api.cluster import Cluster
from tests.unit.raft import test_engine as raft

pytestmark = pytest.mark.anyio


def context(highest: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that speaks at most this version, and lets its library speak it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_ciphers("ALL:@SECLEVEL=0")
    made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    made.maximum_version = highest
    made.set_alpn_protocols(["h2"])
    return made


async def reaches(host: str, port: int, tls: ssl.SSLContext) -> None:
    _, writer = await asyncio.open_connection(host, port, ssl=tls)
    writer.transport.abort()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_the_api_refuses_tls_below_1_2(served: Cluster) -> None:
    files = served.authority.issue("admin", "admin")
    host, _, port = served.context(files, "n1").servers[0].rpartition(":")
    old, good = context(ssl.TLSVersion.TLSv1_1), context(ssl.TLSVersion.TLSv1_2)
    for one in (old, good):
        one.load_cert_chain(files.certificate, files.key)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await reaches(host, int(port), old)
    await reaches(host, int(port), good)


async def test_consensus_refuses_tls_below_1_3(voters: raft.Cluster) -> None:
    files = issue(voters.ca, voters.folder / "probe", "n2")
    old, good = context(ssl.TLSVersion.TLSv1_2), context(ssl.TLSVersion.TLSv1_3)
    for one in (old, good):
        one.load_cert_chain(files.certificate, files.key)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await reaches("127.0.0.1", voters.members[0].raft_port, old)
    await reaches("127.0.0.1", voters.members[0].raft_port, good)


async def ends(host: str, port: int, *, tls: ssl.SSLContext | None, drip: bytes, within: float) -> None:
    """Connect, send this, say no more, and see the connection closed from there."""
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    writer.write(drip)
    async with asyncio.timeout(within):
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass
    writer.close()


async def test_who_connects_to_the_api_and_says_nothing_is_cut(served: Cluster) -> None:
    host, _, port = served.context(served.authority.issue("admin", "admin"), "n1").servers[0].rpartition(":")
    await asyncio.gather(
        ends(host, int(port), tls=None, drip=b"", within=12.0),
        ends(host, int(port), tls=None, drip=b"\x16\x03\x01\x40\x00", within=12.0),  # a hello that never ends
    )


Shorten = Callable[[str, float], None]


@pytest.fixture
def shorten(monkeypatch: pytest.MonkeyPatch) -> Shorten:
    return lambda name, value: monkeypatch.setattr(raft_transport, name, value)


async def test_who_connects_to_consensus_and_says_nothing_is_cut(voters: raft.Cluster, shorten: Shorten) -> None:
    shorten("HANDSHAKE_TIMEOUT", 0.3)
    port = voters.members[0].raft_port
    await ends("127.0.0.1", port, tls=None, drip=b"", within=5.0)
    await ends("127.0.0.1", port, tls=None, drip=b"\x16\x03\x01\x40\x00", within=5.0)


@pytest.mark.parametrize("drip", [b"", b"\0\0\0\x20part of a greeting"])
async def test_a_member_that_never_greets_is_cut(voters: raft.Cluster, shorten: Shorten, drip: bytes) -> None:
    shorten("GREETING_TIMEOUT", 0.3)
    intruder = raft.context_of(voters, voters.ca, "n2")
    await ends("127.0.0.1", voters.members[0].raft_port, tls=intruder, drip=drip, within=5.0)
    assert (await voters.running["n1"].engine.propose(b"goes on", timeout=5)).index
