"""Lease datagrams over every network: one UDP socket per own address, so that a datagram takes the network it names."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from hasys.config import NodeConfig
from hasys.guard.loop import Loop
from hasys.guard.protocol import StoreAt
from hasys.lease.wire import LARGEST

REOPEN = 0.5
"""Seconds between attempts to bind an address that is not there (interface down at start)."""


class Network:
    """Sends to stores by name; hands every datagram that arrives to ``received``, with whether another machine sent
    it. Never blocks, never raises."""

    def __init__(self, config: NodeConfig, loop: Loop, received: Callable[[bytes, bool], None]) -> None:
        self._own = config.me.addresses
        self._stores = {m.name: StoreAt(m.name, m.addresses, m.lease_port) for m in config.voters}
        self._loop = loop
        self._received = received
        self._sockets: dict[str, socket.socket] = {}
        self._retry: dict[str, float] = {}
        self.unsent = 0
        """Datagrams that the kernel did not take: no route, no such address."""

    def open(self, now: float) -> None:
        """Bind what can be bound; call again with later times until every address is there."""
        for address in self._own:
            if address in self._sockets or now < self._retry.get(address, 0.0):
                continue
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                sock.bind((address, 0))
            except OSError:
                sock.close()
                self._retry[address] = now + REOPEN
                continue
            self._sockets[address] = sock
            self._loop.reader(sock.fileno(), lambda s=sock: self._readable(s))  # type: ignore[misc]

    def send(self, stores: Iterable[str], datagram: bytes, now: float) -> None:
        """One copy per network to each store."""
        if len(self._sockets) < len(self._own):
            self.open(now)
        for name in stores:
            store = self._stores[name]
            for own, other in zip(self._own, store.addresses, strict=False):
                sock = self._sockets.get(own)
                if sock is None:
                    self.unsent += 1
                    continue
                try:
                    sock.sendto(datagram, (other, store.port))
                except OSError:  # no route now; a refused port, reported for an earlier datagram
                    self.unsent += 1

    def set_stores(self, stores: Iterable[StoreAt]) -> None:
        """Send to these from now on."""
        self._stores = {store.name: store for store in stores}

    def close(self) -> None:
        for sock in self._sockets.values():
            self._loop.forget(sock.fileno())
            sock.close()
        self._sockets.clear()

    def _readable(self, sock: socket.socket) -> None:
        """One datagram; the loop calls again while there are more."""
        try:
            data, sender = sock.recvfrom(LARGEST + 1)
        except OSError:
            return  # nothing there, or an earlier datagram was refused by its receiver
        self._received(data, sender[0] not in self._own)
