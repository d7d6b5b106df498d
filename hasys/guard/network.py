"""Lease datagrams over every network: one UDP socket per own address, so that a datagram takes the network it names.

While the store that grants answers over one network, keep-alives go over that one; when an answer is missing, over all
(docs/decisions/0017). What a store sends goes over all.
"""

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
    it; what that calls good makes its network the one to answer over. Never blocks, never raises."""

    def __init__(self, config: NodeConfig, loop: Loop, received: Callable[[bytes, bool], bool]) -> None:
        self._own = config.me.addresses
        self._stores = {m.name: StoreAt(m.name, m.addresses, m.lease_port) for m in config.voters}
        self._loop = loop
        self._received = received
        self._sockets: dict[str, socket.socket] = {}
        self._retry: dict[str, float] = {}
        self._answered = ""
        """Own address to which the last good datagram came."""
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
            self._loop.reader(sock.fileno(), lambda s=sock, a=address: self._readable(s, a))  # type: ignore[misc]

    def send(self, stores: Iterable[str], datagram: bytes, now: float, *, everywhere: bool = True) -> None:
        """To each store one copy per network, or one copy in all: over the network that answered last, if that takes
        it."""
        if len(self._sockets) < len(self._own):
            self.open(now)
        for name in stores:
            store = self._stores[name]
            ways = dict(zip(self._own, store.addresses, strict=False))
            if not everywhere and self._answered in ways:
                if self._send(self._answered, (ways[self._answered], store.port), datagram):
                    continue
                del ways[self._answered]
            for own, other in ways.items():
                self._send(own, (other, store.port), datagram)

    def _send(self, own: str, to: tuple[str, int], datagram: bytes) -> bool:
        sock = self._sockets.get(own)
        try:
            if sock is not None:
                sock.sendto(datagram, to)
                return True
        except OSError:  # no route now; a refused port, reported for an earlier datagram
            pass
        self.unsent += 1
        return False

    def set_stores(self, stores: Iterable[StoreAt]) -> None:
        """Send to these from now on."""
        self._stores = {store.name: store for store in stores}

    def close(self) -> None:
        for sock in self._sockets.values():
            self._loop.forget(sock.fileno())
            sock.close()
        self._sockets.clear()

    def _readable(self, sock: socket.socket, own: str) -> None:
        """One datagram; the loop calls again while there are more."""
        try:
            data, sender = sock.recvfrom(LARGEST + 1)
        except OSError:
            return  # nothing there, or an earlier datagram was refused by its receiver
        if self._received(data, sender[0] not in self._own):
            self._answered = own
