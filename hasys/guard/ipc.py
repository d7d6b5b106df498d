"""The guard's socket: accepts the agent (and people's tools), reads bounded lines, answers, pushes events.

What a request does is not decided here: ``Handler`` gets it parsed. A line that is no request costs one answer.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hasys.files import private_folder
from hasys.guard import protocol
from hasys.guard.loop import Loop
from hasys.guard.protocol import BadMessage, Request

MAX_CONNECTIONS = 16
LOOK = 1.0
"""Seconds between looks whether the socket file is still there: without it no new agent finds the guard."""
MAX_UNSENT = 2 * protocol.MAX_ANSWER
"""Bytes that wait for a peer that does not read; more closes its connection."""


class Handler(Protocol):
    """What the connections serve."""

    def request(self, connection: Connection, request: Request) -> Mapping[str, Any] | None:
        """The fields of the answer, without ``id`` and ``ok``; None: no answer. Raises :class:`Refusal`."""
        ...

    def closed(self, connection: Connection) -> None:
        """The connection has ended."""
        ...


class Refusal(Exception):
    """Answered with its one line and ``code``: refused, stale or blocked."""

    def __init__(self, text: str, code: str = "refused") -> None:
        super().__init__(text)
        self.code = code


class Connection:
    """One peer, whose uid the kernel vouches for."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self._socket = sock
        self._server = server
        self._received = bytearray()
        self._unsent = bytearray()
        self.open = True
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid, self.uid, _ = struct.unpack("3i", credentials)

    def fileno(self) -> int:
        return self._socket.fileno()

    def push(self, message: Mapping[str, Any]) -> None:
        """Send an event or an answer; never blocks. A peer that does not read is cut off."""
        if not self.open:
            return
        waiting = bool(self._unsent)
        self._unsent += protocol.encode(message, protocol.MAX_ANSWER)
        if len(self._unsent) > MAX_UNSENT:
            self.close()
        elif not waiting:
            self._write()

    def close(self) -> None:
        """End the connection; the handler is told once."""
        if self.open:
            self.open = False
            self._server.forget(self)
            self._socket.close()

    def readable(self) -> None:
        """Take what has arrived."""
        try:
            data = self._socket.recv(protocol.MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._received += data
        while self.open and (end := self._received.find(b"\n")) >= 0:
            line = bytes(self._received[: end + 1])
            del self._received[: end + 1]
            self._line(line)
        if self.open and len(self._received) > protocol.MAX_LINE:
            self.push(_refused(0, f"line longer than {protocol.MAX_LINE} bytes", "refused"))
            self.close()

    def _line(self, line: bytes) -> None:
        id = 0
        try:
            id, request = protocol.parse_request(line)
            answer = self._server.handler.request(self, request)
            if answer is not None:
                self.push({"id": id, "ok": True, **answer})
        except BadMessage as e:
            self.push(_refused(e.id or id, str(e), "refused"))
        except Refusal as e:
            self.push(_refused(id, str(e), e.code))

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
            del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._server.loop.writer(self.fileno(), self._write if self._unsent else None)


class Server:
    """Listens on ``path`` with mode 0600. An old socket file is replaced: hold the run directory's lock first."""

    def __init__(self, path: Path, loop: Loop, handler: Handler) -> None:
        self.loop = loop
        self.handler = handler
        self._connections: set[Connection] = set()
        self._path = path
        self._socket = self._listen()
        self._timer = loop.at(loop.now() + LOOK, self._look)

    def _listen(self) -> socket.socket:
        if not self._path.parent.exists():
            private_folder(self._path.parent)
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            sock.bind(str(self._path))
        finally:
            os.umask(mask)
        sock.listen(MAX_CONNECTIONS)
        self.loop.reader(sock.fileno(), self._accept)
        return sock

    def _look(self) -> None:
        """Listen anew when somebody removed the socket file; who is connected stays connected."""
        if not self._path.exists():
            old = self._socket
            with contextlib.suppress(OSError):  # the disk refuses: tried again at the next look
                self._socket = self._listen()
                self.loop.forget(old.fileno())
                old.close()
        self._timer = self.loop.at(self.loop.now() + LOOK, self._look)

    def forget(self, connection: Connection) -> None:
        """Called by the connection when it ends."""
        self.loop.forget(connection.fileno())
        self._connections.discard(connection)
        self.handler.closed(connection)

    def close(self) -> None:
        """Stop listening and end every connection. The socket file stays, dead."""
        self._timer.cancel()
        self.loop.forget(self._socket.fileno())
        self._socket.close()
        for connection in tuple(self._connections):
            connection.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return  # the peer has gone already
        sock.setblocking(False)
        connection = Connection(sock, self)
        if len(self._connections) >= MAX_CONNECTIONS or connection.uid not in (0, os.geteuid()):
            sock.close()
            return
        self._connections.add(connection)
        self.loop.reader(sock.fileno(), connection.readable)


def _refused(id: int, text: str, code: str) -> dict[str, Any]:
    return {"id": id, "ok": False, "error": text, "code": code}
