"""A cheap answer to "did any address of this machine change?": the kernel's dump compared as bytes, not parsed.

A full parse of the dump by pyroute2 costs twenty times as much, and almost every periodic look finds nothing new.
Addresses with a limited lifetime count down and so always look changed: then the parse happens, as it would without.
"""

from __future__ import annotations

import hashlib
import socket
import struct

_HEADER = struct.Struct("=IHHII")
_IFADDRMSG = struct.Struct("=BBBBI")
RTM_GETADDR, NLMSG_ERROR, NLMSG_DONE = 22, 2, 3
NLM_F_REQUEST_DUMP = 0x301
TIMEOUT = 1.0
"""Seconds for each answer of the kernel."""


class Fingerprint:
    """One netlink socket; calls block for as long as the kernel's dump takes."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(TIMEOUT)
        self._socket.bind((0, 0))
        self._last = b""

    def changed(self) -> bool:
        """Whether the dump differs from the last one. Raises OSError."""
        new = self._dump()
        last, self._last = self._last, new
        return new != last

    def close(self) -> None:
        self._socket.close()

    def _dump(self) -> bytes:
        size = _HEADER.size + _IFADDRMSG.size
        request = _HEADER.pack(size, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0) + _IFADDRMSG.pack(
            socket.AF_UNSPEC, 0, 0, 0, 0
        )
        self._socket.send(request)
        digest = hashlib.blake2b(digest_size=16)
        while True:
            data = self._socket.recv(65536)
            digest.update(data)
            if _last_type(data) in (NLMSG_DONE, NLMSG_ERROR):
                return digest.digest()


def _last_type(data: bytes) -> int:
    """Type of the last message of a buffer: the end of a dump, or more to come."""
    at, kind = 0, NLMSG_ERROR
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        at += max(_HEADER.size, (length + 3) & ~3)
    return kind
