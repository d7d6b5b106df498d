"""Datagrams of the guard over real sockets on loopback: they follow the members."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import cast

from hasys.config import Member, NodeConfig
from hasys.guard.loop import Loop
from hasys.guard.network import Network
from hasys.guard.protocol import StoreAt


@dataclass(frozen=True)
class Settings:
    """The part of node.yaml that is needed."""

    me: Member
    voters: tuple[Member, ...]


def listening(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 0))
    sock.settimeout(2.0)
    return sock


def test_a_store_is_reached_where_the_members_of_today_say_on_each_network() -> None:
    with listening("127.0.0.1") as before, listening("127.0.0.1") as first, listening("127.0.0.2") as second:
        me = Member("n1", "Voter", ("127.0.0.11", "127.0.0.12"))
        seed = Member("n2", "Voter", ("127.0.0.1",), lease_port=before.getsockname()[1])
        loop = Loop(time.monotonic)
        network = Network(cast(NodeConfig, Settings(me, (seed,))), loop, lambda *_: False)
        try:
            network.send(["n2"], b"seed", 0.0)
            assert before.recvfrom(64) == (b"seed", ("127.0.0.11", before_port(before, network)))
            network.set_stores([StoreAt("n3", ("127.0.0.1",), first.getsockname()[1])])
            network.send(["n3"], b"today", 0.0)
            assert first.recv(64) == b"today"
            network.set_stores([StoreAt("n3", ("127.0.0.9", "127.0.0.2"), second.getsockname()[1])])
            network.send(["n3"], b"second network", 0.0)
            assert second.recv(64) == b"second network"
        finally:
            network.close()


def arrived(sock: socket.socket) -> list[bytes]:
    """Everything that waits in the socket: on loopback a datagram is there as soon as it was sent."""
    sock.setblocking(False)
    found = []
    while True:
        try:
            found.append(sock.recv(64))
        except BlockingIOError:
            return found


def test_what_needs_one_network_takes_that_of_the_last_good_answer_and_all_when_that_fails() -> None:
    with listening("127.0.0.1") as first, listening("127.0.0.2") as second:
        me = Member("n1", "Voter", ("127.0.0.11", "127.0.0.12"))
        port = first.getsockname()[1]
        second.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.2", port))
            store = Member("n2", "Voter", ("127.0.0.1", "127.0.0.2"), lease_port=port)
            loop = Loop(time.monotonic)
            network = Network(cast(NodeConfig, Settings(me, (store,))), loop, lambda data, _: data == b"good")
            try:
                network.send(["n2"], b"nobody answered yet", 0.0, everywhere=False)
                assert (len(arrived(first)), len(arrived(other))) == (1, 1)
                for own, datagram in (("127.0.0.12", b"good"), ("127.0.0.11", b"garbage")):
                    other.sendto(datagram, network._sockets[own].getsockname())
                    loop.once()
                network.send(["n2"], b"one", 0.0, everywhere=False)
                assert (arrived(first), arrived(other)) == ([], [b"one"])
                network.send(["n2"], b"all", 0.0)
                assert (arrived(first), arrived(other)) == ([b"all"], [b"all"])
                loop.forget(network._sockets["127.0.0.12"].fileno())
                network._sockets.pop("127.0.0.12").close()
                network._retry["127.0.0.12"] = 1.0
                network.send(["n2"], b"the other", 0.0, everywhere=False)
                assert (arrived(first), arrived(other)) == ([b"the other"], [])
            finally:
                network.close()


def before_port(sock: socket.socket, network: Network) -> int:
    """The port that the guard's socket of the first network has."""
    return int(network._sockets["127.0.0.11"].getsockname()[1])
