"""Why no server was reached: the certificates are told apart from silence."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.api.client import Context, load_context
from hasys.cli import pki
from hasys.cli.reach import explain
from tests.unit.cli.conftest import Run


@contextmanager
def server(folder: Path, *, http2: bool = True) -> Iterator[str]:
    """A TLS server with the certificate of a node's folder that greets one client, as HTTP/2 servers do."""
    settings = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    settings.verify_mode = ssl.CERT_REQUIRED
    settings.load_cert_chain(folder / "node.crt", folder / "node.key")
    if http2:
        settings.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with (
                suppress(OSError),
                listening.accept()[0] as plain,
                settings.wrap_socket(plain, server_side=True) as secure,
            ):
                secure.send(b"settings")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            thread.join()


@pytest.fixture
def foreign(hasys: Run, tmp_path: Path) -> Path:
    out = tmp_path / "foreign"
    assert hasys("init", "--cluster", "other", "--node", "n1=127.0.0.1", "--out", out).exit_code == 0
    return out


def _context(folder: Path, target: str) -> Context:
    return replace(load_context(folder / "client"), servers=(target,))


def test_a_server_of_another_cluster_is_named(folders: Path, foreign: Path) -> None:
    with server(foreign / "n1") as target:
        said = explain(_context(folders, target))
    assert said.startswith(f"{target} is there, but its certificate is not of our cluster")


def test_a_server_that_refuses_our_certificate_is_named(folders: Path, foreign: Path) -> None:
    ours = replace(load_context(foreign / "client"), ca=folders / "client" / "ca.crt")
    with server(folders / "n1") as target:
        said = explain(replace(ours, servers=(target,)))
    assert said.startswith(f"{target} is there, but it refuses our certificate")


def test_a_port_of_ours_that_is_not_the_apis_is_told_from_a_refusal(folders: Path) -> None:
    """The port of consensus speaks TLS with the same certificates, and closes on an administrator."""
    with server(folders / "n1", http2=False) as target:
        said = explain(_context(folders, target))
    assert "refuses our certificate" not in said
    assert f"is {target.rpartition(':')[2]} the API's port?" in said


def test_a_port_without_tls_is_told_from_a_refusal(folders: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            with listening.accept()[0] as plain:
                plain.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                plain.recv(4096)

        thread = threading.Thread(target=greet)
        thread.start()
        said = explain(_context(folders, f"127.0.0.1:{listening.getsockname()[1]}"))
        thread.join()
    assert "this is no API of hasys" in said


def test_many_silent_servers_cost_no_more_than_one(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasys.cli.reach._PATIENCE", 0.5)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        servers = tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in silent)
        begun = time.monotonic()
        assert explain(replace(load_context(folders / "client"), servers=servers)) == ""
    assert time.monotonic() - begun < 2.5, "one after the other would take three seconds"


def test_a_server_that_is_fine_is_no_cause(folders: Path) -> None:
    with server(folders / "n1") as target:
        assert explain(_context(folders, target)) == ""


def test_an_expired_certificate_is_found_without_any_server(
    hasys: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "LEAF_LIFETIME", -datetime.timedelta(hours=1))
    out = tmp_path / "old"
    assert hasys("init", "--cluster", "c", "--node", "n1=127.0.0.1", "--out", out).exit_code == 0
    said = explain(load_context(out / "client"))
    assert "ended on" in said
    assert "hasys cert renew" in said


def test_a_key_of_another_certificate_is_found(folders: Path, foreign: Path) -> None:
    mixed = replace(load_context(folders / "client"), key=foreign / "client" / "client.key")
    assert "cannot be used" in explain(mixed)


def test_silence_has_no_explanation(folders: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        free = listening.getsockname()[1]
    assert explain(_context(folders, f"127.0.0.1:{free}")) == ""


def test_the_error_of_a_command_carries_the_cause(hasys: Run, folders: Path, foreign: Path) -> None:
    settings = foreign / "client" / "client.yaml"
    (foreign / "client" / "ca.crt").unlink()
    result = hasys("status", "--context", settings)
    assert result.exit_code == 1
    assert "ca.crt" in result.stderr
    assert result.stderr.count("\n") == 1
