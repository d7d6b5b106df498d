"""The little of netlink that the guard needs: links, addresses, and the events that say when to look again.

Layouts: linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h, linux/netfilter/nf_tables.h.
Every socket belongs to the network namespace in which it was made.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
RTM_GETLINK, RTM_DELADDR, RTM_GETADDR = 18, 21, 22
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
NFNLGRP_NFTABLES = 7
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_NEWGEN = 15
IFLA_IFNAME, IFLA_MASTER, IFA_ADDRESS, IFA_LOCAL = 3, 10, 1, 2
NFTA_TABLE = 1
"""The table's name is attribute 1 of every nftables message about a table or what is in it."""

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_SO_ATTACH_FILTER = 26
_RECEIVE = 256 * 1024
_TIMEOUT = 2.0
"""Seconds. The kernel answers at once; longer means that something is badly wrong."""


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. ``enslaved``: a port of a bridge or bond, whose frames its master sees too."""

    index: int
    name: str
    enslaved: bool


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """One address that is on an interface, in canonical spelling."""

    index: int
    address: str
    prefix: int


class Route:
    """rtnetlink requests, one at a time. Raises ``OSError``."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.settimeout(_TIMEOUT)
        self._socket.bind((0, 0))
        self._sequence = 0

    def links(self) -> list[Link]:
        """Every interface of the namespace."""
        found = []
        for body in self._ask(RTM_GETLINK, NLM_F_DUMP, _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            _, _, index, _, _ = _IFINFO.unpack_from(body)
            attributes = dict(_attributes(body[_IFINFO.size :]))
            name = attributes.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
            found.append(Link(index, name, IFLA_MASTER in attributes))
        return found

    def addresses(self) -> list[InterfaceAddress]:
        """Every IPv4 and IPv6 address of the namespace."""
        found = []
        for body in self._ask(RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            family, prefix, _, _, index = _IFADDR.unpack_from(body)
            attributes = dict(_attributes(body[_IFADDR.size :]))
            raw = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)
            if family in (socket.AF_INET, socket.AF_INET6) and raw:
                found.append(InterfaceAddress(index, socket.inet_ntop(family, raw), prefix))
        return found

    def delete_address(self, address: InterfaceAddress) -> None:
        """Take an address off its interface; one that is gone already is no error."""
        family = socket.AF_INET6 if ":" in address.address else socket.AF_INET
        packed = socket.inet_pton(family, address.address)
        attribute = struct.pack("=HH", 4 + len(packed), IFA_LOCAL) + packed
        try:
            body = _IFADDR.pack(family, address.prefix, 0, 0, address.index) + attribute
            list(self._ask(RTM_DELADDR, NLM_F_ACK, body))
        except OSError as e:
            if e.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, NLM_F_REQUEST | flags, self._sequence, 0) + body)
        while True:
            for message_kind, sequence, answer in _messages(self._socket.recv(_RECEIVE)):
                if sequence != self._sequence:
                    continue  # left over from a request that was given up
                if message_kind == NLMSG_DONE:
                    return
                if message_kind == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", answer)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield answer


class RouteEvents:
    """Says that links or addresses changed. Readable = something happened; :meth:`drain` empties it."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_ROUTE
        )
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> bool:
        """Whether anything happened since the last call; lost events count."""
        happened = False
        while True:
            try:
                happened = bool(self._socket.recv(_RECEIVE)) or happened
            except BlockingIOError:
                return happened
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                happened = True


class NftEvents:
    """Says that somebody else changed a table. Own changes are told apart by the netlink port of their sender, and kept
    out by a filter in the kernel: a refresh must not wake the process that made it."""

    def __init__(self, table: str, own_ports: Collection[int]) -> None:
        self._table = table.encode() + b"\0"
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        _refuse_from(self._socket, frozenset(own_ports) - {0})
        self._socket.setsockopt(270, 1, NFNLGRP_NFTABLES)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def drain(self) -> bool:
        """Whether another process may have changed the table since the last call; lost events count."""
        changed = False
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return changed
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                changed = True
                continue
            changed = changed or any(self._concerns_us(kind, body) for kind, _, body in _messages(data))

    def _concerns_us(self, kind: int, body: bytes) -> bool:
        if kind >> 8 != NFNL_SUBSYS_NFTABLES or kind & 0xFF == NFT_MSG_NEWGEN:
            return False
        return any(number == NFTA_TABLE and value == self._table for number, value in _attributes(body[4:]))


def _refuse_from(sock: socket.socket, ports: Collection[int]) -> None:
    """Attach a classic BPF program that drops messages of these senders (linux/filter.h)."""
    load_port = (0x20, 0, 0, 12)  # A = the word at offset 12 of the header, read as big endian
    ports = [socket.htonl(port) for port in ports]
    refuse = [(0x15, len(ports) - n, 0, port) for n, port in enumerate(ports)]  # equal: jump to the last instruction
    program = [load_port, *refuse, (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *i) for i in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence, body) of each message in one datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size or offset + size > len(data):
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + size]
        offset += (size + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
