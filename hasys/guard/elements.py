"""Transactions on elements of nftables sets, written straight to netlink: the hot path of the lease.

One refresh is one ``sendmsg`` (about 0.05 ms); libnftables would read the machine's whole ruleset first. Layouts:
linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from hasys.guard.nft import NftError

_NETLINK_NETFILTER, _NFPROTO_NETDEV, _SUBSYSTEM = 12, 5, 10
_BATCH_BEGIN, _BATCH_END, _NEWSETELEM, _DELSETELEM = 0x10, 0x11, _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_NLMSG_ERROR = 2
_NESTED = 0x8000
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEM = 1, 2, 3, 1
_ELEM_KEY, _ELEM_TIMEOUT, _DATA_VALUE = 1, 4, 1
_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct(">BBH")


class Operation(NamedTuple):
    """Add an element that expires after ``ms`` milliseconds (None: never), or delete one (``ms`` is None)."""

    add: bool
    set_name: str
    key: bytes
    ms: int | None = None


class Elements:
    """Changes elements in sets of one netdev table. Belongs to the namespace in which it was made."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.setblocking(False)
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]
        """Netlink port: changes that come from here are told apart in events by it."""

    def run(self, operations: Sequence[Operation]) -> None:
        """All of them in this order, as one transaction, or none. Raises :class:`hasys.guard.nft.NftError`."""
        parts, last = [_BEGIN], len(operations) - 1
        for i, (add, set_name, key, ms) in enumerate(operations):
            parts.append(_head(self._table, add, set_name, key, ms is not None, i == last))
            if ms is not None:
                parts.append(ms.to_bytes(8, "big"))
        parts.append(_END)
        try:
            self._socket.send(b"".join(parts))
            code = self._result()
        except OSError as e:
            code = e.errno or errno.EIO
        if code:
            raise NftError(os.strerror(code), missing=code == errno.ENOENT)

    def close(self) -> None:
        self._socket.close()

    def _result(self) -> int:
        """The first error of the batch; 0 when there was none.

        The kernel answers before ``send`` returns, in the order of the messages, one datagram each: errors, and the
        acknowledgement of the last message. No answer is an error too.
        """
        code = _code(self._socket.recv(65536))
        if code:
            with suppress(BlockingIOError):
                while True:
                    self._socket.recv(65536)
        return code


def _code(datagram: bytes) -> int:
    kind = _HEADER.unpack_from(datagram)[1]
    return int(-struct.unpack_from("=i", datagram, _HEADER.size)[0]) if kind == _NLMSG_ERROR else errno.EIO


@lru_cache(maxsize=8192)
def _head(table: str, add: bool, set_name: str, key: bytes, timed: bool, acknowledged: bool) -> bytes:
    """One message up to the value of its timeout, which is last; kept, since a refresh repeats it for ever."""
    timeout = _attribute(_ELEM_TIMEOUT, bytes(8)) if add and timed else b""
    element = _attribute(_ELEM_KEY | _NESTED, _attribute(_DATA_VALUE, key)) + timeout
    body = _attribute(_LIST_TABLE, table.encode() + b"\0") + _attribute(_LIST_SET, set_name.encode() + b"\0")
    body += _attribute(_LIST_ELEMENTS | _NESTED, _attribute(_LIST_ELEM | _NESTED, element))
    flags = _REQUEST | (_CREATE if add else 0) | (_ACK if acknowledged else 0)
    message = _message(_NEWSETELEM if add else _DELSETELEM, flags, _GENERIC.pack(_NFPROTO_NETDEV, 0, 0) + body)
    return message[:-8] if timeout else message


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) & 3)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


_BEGIN = _message(_BATCH_BEGIN, _REQUEST, _GENERIC.pack(0, 0, _SUBSYSTEM))
_END = _message(_BATCH_END, _REQUEST, _GENERIC.pack(0, 0, _SUBSYSTEM))
