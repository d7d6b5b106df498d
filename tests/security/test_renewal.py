"""A renewed certificate is used by the next connection; no process restarts, no connection is cut for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
from pathlib import Path

import pytest

from hasys.api.client import Client
from hasys.api.tls import Identity
from hasys.model.errors import ConfigRefused
from hasys.store.raft.links import TlsContexts
from tests.certs import issue, make_ca
from tests.unit.api.cluster import Cluster, second_network
from tests.unit.api.pki import Files
from tests.unit.raft import test_engine as raft

pytestmark = pytest.mark.anyio


def renew(old: Files, new: Files) -> None:
    """Put the new files in the place of the old ones, as ``hasys cert renew`` does."""
    for source, place in ((new.key, old.key), (new.certificate, old.certificate)):
        draft = place.with_suffix(".draft")
        shutil.copy(source, draft)
        os.replace(draft, place)


async def shown(host: str, port: int, mine: Files, ca: Path) -> bytes:
    """The certificate (DER) that a server shows to a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(ca)
    context.load_cert_chain(mine.certificate, mine.key)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return certificate


async def test_the_api_shows_a_renewed_certificate_to_the_next_connection_of_every_network(served: Cluster) -> None:
    mine = served.authority.issue("admin", "admin")
    host, _, port = served.context(mine, "n1").servers[0].rpartition(":")
    hosts = (host, second_network(host))
    async with Client(served.context(mine, "n1")) as client:
        await client.list("Node")
        before = [await shown(one, int(port), mine, served.authority.ca) for one in hosts]
        config = served.members["n1"].server._config
        renew(Files(config.ca, config.certificate, config.key), served.authority.issue("n1", "node"))
        after = [await shown(one, int(port), mine, served.authority.ca) for one in hosts]
        assert after[0] not in before
        assert after == [ssl.PEM_cert_to_DER_cert(config.certificate.read_text())] * 2
        assert len((await client.list("Node")).objects) == 3  # over the connection from before


async def test_consensus_dials_and_accepts_with_a_renewed_certificate(voters: raft.Cluster) -> None:
    mine = issue(voters.ca, voters.folder / "probe", "n2")
    files = Files(mine.ca, mine.certificate, mine.key)
    port = voters.members[0].raft_port
    before = await shown("127.0.0.1", port, files, mine.ca)
    issue(voters.ca, voters.folder / "n1", "n1")
    after = await shown("127.0.0.1", port, files, mine.ca)
    assert after != before
    assert after == ssl.PEM_cert_to_DER_cert((voters.folder / "n1" / "node.crt").read_text())
    assert (await voters.running["n1"].engine.propose(b"goes on", timeout=5)).index


async def test_a_client_shows_its_renewed_certificate(served: Cluster) -> None:
    """The old one is of nobody here, the new one is: the same client is let in once its files are renewed."""
    mine = served.authority.issue("guest", "stranger")
    async with Client(served.context(mine, "n1")) as client:
        with pytest.raises(Exception, match="no role"):
            await client.list("Node")
        renew(mine, served.authority.issue("admin", "admin"))
        assert len((await client.list("Node")).objects) == 3


def test_files_that_do_not_belong_together_are_not_taken(tmp_path: Path) -> None:
    """Between the two renames of a renewal the key is new and the certificate old."""
    ca = make_ca()
    old, new = issue(ca, tmp_path / "old", "n1"), issue(ca, tmp_path / "new", "n1")
    identity = Identity(old.ca, old.certificate, old.key)
    first = identity.number
    shutil.copy(new.key, old.key)
    identity.look()
    assert identity.number == first
    shutil.copy(new.certificate, old.certificate)
    identity.look()
    assert identity.number == first + 1


def test_a_key_of_another_certificate_is_refused_at_the_start(tmp_path: Path) -> None:
    ca = make_ca()
    one, other = issue(ca, tmp_path / "one", "n1"), issue(ca, tmp_path / "other", "n1")
    with pytest.raises(ConfigRefused, match=r"node\.key"):
        Identity(one.ca, one.certificate, other.key)


def test_consensus_keeps_its_certificate_while_the_files_are_damaged(tmp_path: Path) -> None:
    cluster = raft.Cluster(tmp_path)
    contexts = TlsContexts.load(cluster.config("n1"))
    server = contexts.server
    (tmp_path / "n1" / "node.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    contexts.look()
    assert contexts.server is server
    issue(cluster.ca, tmp_path / "n1", "n1")
    contexts.look()
    assert contexts.server is not server
