"""What each machine's kernel says about its addresses: every addition and removal, as rtnetlink announces it.

This shows *presence* on an interface, muted or not; whether a machine answers is what :mod:`hasys.lab.watch` asks.
"""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hasys.lab.shell import in_netns

_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR


@dataclass(frozen=True, slots=True)
class AddressEvent:
    """An address came to or left an interface of a machine; ``time`` in seconds, monotonic, of when we read it."""

    time: float
    machine: str
    address: str
    present: bool


class AddressLog:
    """Collects events of all machines in one thread."""

    def __init__(self) -> None:
        self._events: list[AddressEvent] = []
        self._machines: dict[int, tuple[str, socket.socket]] = {}
        self._poll = select.epoll()
        self._wake_read, self._wake_write = os.pipe()
        self._poll.register(self._wake_read, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="address-log", daemon=True)
        self._thread.start()

    def follow(self, machine: str, netns: str) -> None:
        """From now on also this machine; a namespace that goes away ends it by itself."""
        s = in_netns(netns, _subscribe)
        self._machines[s.fileno()] = (machine, s)
        self._poll.register(s, select.EPOLLIN)

    def unfollow(self, machine: str) -> None:
        """Let go of a machine's namespace: a socket left open would keep it alive."""
        for fd, (name, s) in list(self._machines.items()):
            if name == machine:
                self._poll.unregister(fd)
                del self._machines[fd]
                s.close()

    def events(self, address: str, since: float = 0.0) -> list[AddressEvent]:
        """Events about an address (without prefix length) since an instant."""
        return [e for e in list(self._events) if e.address == address and e.time >= since]

    def close(self) -> None:
        os.write(self._wake_write, b"x")
        self._thread.join()
        for _, s in self._machines.values():
            s.close()
        self._poll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._wake_read:
                    return
                self._read(fd)

    def _read(self, fd: int) -> None:
        entry = self._machines.get(fd)
        if entry is None:
            return
        machine, s = entry
        try:
            data = s.recv(65536)
        except OSError:  # closed by unfollow(), or nothing left
            return
        now = time.monotonic()
        self._events += [AddressEvent(now, machine, a, present) for a, present in parse(data)]


def _subscribe() -> socket.socket:
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    s.bind((0, _GROUPS))
    return s


def parse(data: bytes) -> Iterator[tuple[str, bool]]:
    """(address, present) of each address message in a netlink datagram."""
    offset = 0
    while offset + 24 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 24:
            return
        if kind in (_RTM_NEWADDR, _RTM_DELADDR):
            attributes = dict(_attributes(data[offset + 24 : offset + length]))
            raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if raw and len(raw) in (4, 16):
                yield str(ipaddress.ip_address(raw)), kind == _RTM_NEWADDR
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
