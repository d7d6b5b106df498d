"""Frames on one TLS connection. A frame is a length (4 bytes, big endian) and a protobuf message.

The length is looked at before the body is read. Connections carry messages one way only, from who dialled to who
accepted: each member dials every other one on every network.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from google.protobuf.message import DecodeError

from hasys.config import NodeConfig
from hasys.model.errors import ConfigRefused
from hasys.v1 import raft_pb2 as pb

log = logging.getLogger(__name__)

MAX_FRAME = 8 * 1024 * 1024
"""Longer frames are refused unread."""
WRITE_LOW, WRITE_HIGH = 32 * 1024, 128 * 1024
"""Bytes waiting in the process at which bulk may go on, and must wait: what an urgent message can stand behind."""
MAX_WAITING = 16 * 1024 * 1024
"""Bulk bytes waiting on one connection; more is dropped (the core repeats what matters)."""
MAX_URGENT = 1024 * 1024
"""With that much waiting on a connection urgent messages are dropped too: it is dead or hopelessly late."""
USER_TIMEOUT_MS = 3000
"""Unacknowledged for so long, by data or by the kernel's keep-alive probes: the connection ends."""
KEEPALIVE = 1
"""Seconds between the probes."""
NOT_SENT_LOW = 64 * 1024
PROTOCOL = 1
_LENGTH = struct.Struct(">I")
_M = TypeVar("_M", pb.Hello, pb.Message, pb.Refusal)
MAX_REFUSAL = 1024
"""Bytes."""
FAREWELL = 1.0
"""Seconds until a connection is closed whose dialler was told that it is no member, should it not close by itself."""


class BadPeer(Exception):
    """What arrived is not from a member of this cluster, or is no frame."""


class NoMember(BadPeer):
    """The members that the log names do not include the one that dials."""


def frame(message: pb.Message | pb.Hello | pb.Refusal) -> bytes:
    body = message.SerializeToString()
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into frame bodies. Keeps at most one frame's bytes beyond what was handed in."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now. Raises :class:`BadPeer` for a frame over the limit."""
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        at = 0
        while len(buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, at)
            if length > self._limit:
                raise BadPeer(f"a frame of {length} bytes, over the limit of {self._limit}")
            end = at + _LENGTH.size + length
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[at + _LENGTH.size : end]))
            at = end
        if at:
            del buffer[:at]
        return bodies


def tls_context(ca: Path, certificate: Path, key: Path, *, server: bool) -> ssl.SSLContext:
    """Mutual TLS 1.3 within the cluster's own authority. Who the peer is, is checked by name afterwards."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    return context


@dataclass(slots=True)
class TlsContexts:
    """Both ends of mutual TLS. Loading reads files; a renewed certificate is used from the next connection on."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    config: NodeConfig
    seen: tuple[object, ...] = ()
    """What the files looked like when they were read last."""

    @classmethod
    def load(cls, config: NodeConfig) -> TlsContexts:
        """Raises ConfigRefused naming the files."""
        files = (config.ca, config.certificate, config.key)
        seen = cls.signature(config)
        try:
            return cls(tls_context(*files, server=True), tls_context(*files, server=False), config, seen)
        except OSError as e:
            names = ", ".join(str(f) for f in files)
            raise ConfigRefused(f"{names}: {e.strerror or e}: give this node the files that 'hasys init' wrote") from e

    @staticmethod
    def signature(config: NodeConfig) -> tuple[object, ...]:
        """Changes when one of the files was replaced."""
        found = []
        for file in (config.ca, config.certificate, config.key):
            with suppress(OSError):
                stat = file.stat()
                found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
        return tuple(found)

    def look(self) -> None:
        """Take renewed files. What cannot be used yet (a renewal that is half done) leaves everything as it was."""
        seen = self.signature(self.config)
        if seen == self.seen:
            return
        self.seen = seen
        try:
            fresh = TlsContexts.load(self.config)
        except ConfigRefused as e:
            log.warning("the certificate stays the earlier one: %s", e)
            return
        self.server, self.client, self.seen = fresh.server, fresh.client, fresh.seen


def peer_name(transport: asyncio.BaseTransport) -> str:
    """The node's name in the peer's certificate. Raises :class:`BadPeer` when it is no node's certificate."""
    certificate: Any = transport.get_extra_info("peercert") or {}
    subject = {key: value for part in certificate.get("subject", ()) for key, value in part}
    if subject.get("organizationalUnitName") != "node" or "commonName" not in subject:
        raise BadPeer(f"the certificate of {subject.get('commonName', 'nobody')} is no node's certificate")
    return str(subject["commonName"])


def set_options(transport: asyncio.BaseTransport) -> None:
    """Small messages leave at once; a dead network is noticed; little waits unsent in the kernel."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LOW)


class Sender(asyncio.Protocol):
    """The dialling end: writes. Urgent messages stand behind at most WRITE_HIGH bytes of bulk."""

    def __init__(self, expected: str, hello: pb.Hello, on_open: Callable[[], None]) -> None:
        self._expected = expected
        self._hello = hello
        self._on_open = on_open
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self._answers = FrameReader(MAX_REFUSAL)
        self.closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        try:
            name = peer_name(transport)
            if name != self._expected:
                raise BadPeer(f"{name} answers at the address of {self._expected}")
        except BadPeer as e:
            self._close(e)
            return
        set_options(transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_LOW)
        self._transport.write(frame(self._hello))
        self._on_open()

    def send(self, data: bytes, *, bulk: bool) -> bool:
        """False: dropped."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if bulk and (self._paused or self._waiting):
            if self._waiting_bytes + len(data) > MAX_WAITING:
                return False
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            return True
        if self._paused and transport.get_write_buffer_size() > MAX_URGENT:
            return False
        transport.write(data)
        return True

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        while self._waiting and not self._paused and self._transport is not None:
            data = self._waiting.popleft()
            self._waiting_bytes -= len(data)
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._answers.feed(data):
                if not _parse(pb.Refusal, body).no_member:
                    raise BadPeer(f"{self._expected} refuses for a reason that this version does not know")
                raise NoMember(f"{self._expected} says that {self._hello.name} is no member of the cluster any more")
        except BadPeer as e:
            self._close(e)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(exc)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _close(self, why: Exception) -> None:
        if not self.closed.done():
            self.closed.set_result(why)
        self.abort()


class Receiver(asyncio.Protocol):
    """The accepting end: reads. Closes at the first thing that is not right."""

    def __init__(self, owner: ReceiverOwner) -> None:
        self._owner = owner
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.name = ""
        self.network: int | None = None
        self._refused = False
        self._early = b""
        """What came with the end of the handshake, before the connection was handed to us."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        try:
            self.name = peer_name(transport)
            self._owner.check_member(self.name)
            set_options(transport)
        except BadPeer as e:
            self._refuse(e)
        else:
            early, self._early = self._early, b""
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._transport is None:
            self._early += data
            return
        try:
            for body in self._reader.feed(data):
                if self.network is None:
                    self.network = self._owner.greeted(self, _parse(pb.Hello, body))
                else:
                    self._owner.message(self.name, _parse(pb.Message, body), self.network)
        except BadPeer as e:
            self._refuse(e)

    def must_have_greeted(self) -> None:
        """The time for it is over."""
        closing = self._transport is None or self._transport.is_closing()
        if self.network is None and not self._refused and not closing:
            self._refuse(BadPeer(f"{self.name} did not greet"))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.network is not None:
            self._owner.gone(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _refuse(self, why: BadPeer) -> None:
        self._refused = True
        self._owner.refused(self._transport, why)
        if isinstance(why, NoMember) and self._transport is not None:
            self._transport.write(
                frame(pb.Refusal(no_member=True))
            )  # and let it close: our end could overtake the word
            asyncio.get_running_loop().call_later(FAREWELL, self.abort)
        else:
            self.abort()


class ReceiverOwner:
    """What a :class:`Receiver` reports to; implemented by the transport."""

    def check_member(self, name: str) -> None:
        """Raises :class:`BadPeer` when that is no other voter."""
        raise NotImplementedError

    def greeted(self, receiver: Receiver, hello: pb.Hello) -> int:
        """The network of that connection. Raises :class:`BadPeer`."""
        raise NotImplementedError

    def message(self, peer: str, message: pb.Message, network: int) -> None:
        raise NotImplementedError

    def gone(self, receiver: Receiver) -> None:
        raise NotImplementedError

    def refused(self, transport: asyncio.BaseTransport | None, why: Exception) -> None:
        raise NotImplementedError


def _parse(kind: type[_M], body: bytes) -> _M:
    try:
        return kind.FromString(body)
    except DecodeError:
        raise BadPeer("a frame that is no message") from None
