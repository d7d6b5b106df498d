"""What Toxiproxy does, as far as our tests rely on it. Runs against the stand-in, and against the real server when
``TOXIPROXY_ADDRESS`` names one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import requests
from toxiproxy import Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

from tests.chaos.server import toxiproxy_server

PATIENCE = 10.0
"""Seconds in which a thing that must happen has happened."""


class Echo:
    """A server that sends back what it gets, and counts connections."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with toxiproxy_server() as address:
        yield address


@pytest.fixture
def toxiproxy(server: str) -> Toxiproxy:
    client = Toxiproxy()
    host, _, port = server.rpartition(":")
    client.update_api_consumer(host, int(port))
    return client


@pytest.fixture
def proxy(toxiproxy: Toxiproxy) -> Iterator[Any]:
    with closing(Echo()) as echo:
        made = toxiproxy.create(upstream=echo.address, name="conformance", listen="127.0.0.1:0")
        yield made
        made.destroy()


def connect(proxy: Any) -> socket.socket:
    host, _, port = proxy.listen.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """What comes back until as much has come, or the end."""
    connection.sendall(data)
    return received(connection, len(data))


def received(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (more := connection.recv(65536)):
        found += more
    return found


def test_the_version_and_the_proxies_are_told(toxiproxy: Toxiproxy, proxy: Any) -> None:
    assert toxiproxy.running()
    assert toxiproxy.version()
    assert toxiproxy.get_proxy("conformance").upstream == proxy.upstream
    assert not proxy.listen.endswith(":0")


def test_data_passes_both_ways(proxy: Any) -> None:
    data = bytes(range(256)) * 1000
    with connect(proxy) as connection:
        assert echoed(connection, data) == data


def test_a_name_is_used_once(proxy: Any, server: str) -> None:
    again = {"name": "conformance", "upstream": proxy.upstream, "listen": "127.0.0.1:0"}
    assert requests.post(f"http://{server}/proxies", json=again, timeout=PATIENCE).status_code == 409


def test_what_does_not_exist_is_not_found(toxiproxy: Toxiproxy, proxy: Any, server: str) -> None:
    assert requests.get(f"http://{server}/proxies/nobody", timeout=PATIENCE).status_code == 404
    with pytest.raises(NotFound):
        proxy.destroy_toxic("nothing")


def test_unknown_toxics_streams_and_doubles_are_refused(proxy: Any) -> None:
    with pytest.raises(InvalidToxic):
        proxy.add_toxic(type="gremlin")
    with pytest.raises(InvalidToxic):
        proxy.add_toxic(type="latency", stream="sideways")
    proxy.add_toxic(type="latency", attributes={"latency": 1})
    with pytest.raises(ProxyExists):
        proxy.add_toxic(type="latency", attributes={"latency": 1})


def test_a_toxic_is_shown_with_all_its_attributes_and_can_be_taken_away(proxy: Any) -> None:
    proxy.add_toxic(type="latency", attributes={"latency": 5})
    toxic = proxy.get_toxic("latency_downstream")
    assert (toxic.type, toxic.stream, toxic.toxicity) == ("latency", "downstream", 1)
    assert toxic.attributes == {"latency": 5, "jitter": 0}
    proxy.destroy_toxic("latency_downstream")
    assert proxy.toxics() == {}


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_latency_delays_each_chunk_of_its_direction(proxy: Any, stream: str) -> None:
    with connect(proxy) as connection:
        proxy.add_toxic(type="latency", stream=stream, attributes={"latency": 200})
        began = time.monotonic()
        assert echoed(connection, b"hello") == b"hello"
        assert time.monotonic() - began >= 0.199
        proxy.destroy_toxic(f"latency_{stream}")
        assert echoed(connection, b"again") == b"again"


def test_bandwidth_limits_the_rate(proxy: Any) -> None:
    proxy.add_toxic(type="bandwidth", stream="upstream", attributes={"rate": 100})
    with connect(proxy) as connection:
        began = time.monotonic()
        data = b"x" * 50_000
        assert echoed(connection, data) == data
        assert time.monotonic() - began >= 0.4


def test_timeout_swallows_data_and_closes_after_its_time(proxy: Any) -> None:
    proxy.add_toxic(type="timeout", stream="upstream", attributes={"timeout": 300})
    with connect(proxy) as connection:
        began = time.monotonic()
        assert echoed(connection, b"lost") == b""
        assert time.monotonic() - began >= 0.25


def test_a_timeout_of_nothing_swallows_data_until_it_is_taken_away(proxy: Any) -> None:
    with connect(proxy) as connection:
        assert echoed(connection, b"before") == b"before"
        proxy.add_toxic(type="timeout", stream="upstream", attributes={"timeout": 0})
        connection.sendall(b"lost")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        proxy.destroy_toxic("timeout_upstream")
        connection.settimeout(PATIENCE)
        assert connection.recv(100) == b""  # what was swallowed cannot be brought back: the connection ends
    with connect(proxy) as connection:
        assert echoed(connection, b"new") == b"new"


def test_reset_peer_resets_once_data_flows(proxy: Any) -> None:
    proxy.add_toxic(type="reset_peer", stream="upstream", attributes={"timeout": 0})
    with connect(proxy) as connection:
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_slow_close_holds_the_end_back(proxy: Any) -> None:
    proxy.add_toxic(type="slow_close", stream="downstream", attributes={"delay": 300})
    with connect(proxy) as connection:
        assert echoed(connection, b"x") == b"x"
        began = time.monotonic()
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
        assert time.monotonic() - began >= 0.29


def test_limit_data_passes_so_many_bytes_and_closes(proxy: Any) -> None:
    proxy.add_toxic(type="limit_data", stream="downstream", attributes={"bytes": 100})
    with connect(proxy) as connection:
        connection.sendall(b"x" * 60)
        assert received(connection, 60) == b"x" * 60
        connection.sendall(b"y" * 60)
        assert received(connection, 60) == b"y" * 40


def test_no_connection_is_hit_by_a_toxic_of_no_toxicity(proxy: Any) -> None:
    proxy.add_toxic(type="timeout", stream="upstream", toxicity=0.0, attributes={"timeout": 50})
    with connect(proxy) as connection:
        assert echoed(connection, b"x") == b"x"


def test_a_proxy_that_is_down_refuses_connections_and_has_dropped_the_old_ones(proxy: Any) -> None:
    with connect(proxy) as connection:
        assert echoed(connection, b"x") == b"x"
        with proxy.down():
            assert connection.recv(100) == b""
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
    with connect(proxy) as connection:
        assert echoed(connection, b"up") == b"up"


def test_reset_enables_every_proxy_and_removes_every_toxic(toxiproxy: Toxiproxy, proxy: Any) -> None:
    proxy.add_toxic(type="latency", attributes={"latency": 5})
    proxy.disable()
    toxiproxy.reset()
    assert toxiproxy.get_proxy("conformance").enabled
    assert proxy.toxics() == {}


def test_populate_leaves_what_is_right_and_replaces_what_is_not(toxiproxy: Toxiproxy, proxy: Any, server: str) -> None:
    same = {"name": "conformance", "upstream": proxy.upstream, "listen": proxy.listen}
    proxy.add_toxic(type="latency", attributes={"latency": 5})
    answer = requests.post(f"http://{server}/populate", json=[same], timeout=PATIENCE)
    assert answer.status_code == 201
    assert set(proxy.toxics()) == {"latency_downstream"}
    other = {**same, "upstream": "127.0.0.1:9"}
    requests.post(f"http://{server}/populate", json=[other], timeout=PATIENCE)
    assert toxiproxy.get_proxy("conformance").upstream == "127.0.0.1:9"
