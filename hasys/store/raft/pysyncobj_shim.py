"""What PySyncObj 0.3.17 is given instead of its own clock, pickle, transport and journal.

Importing this module disarms the library for the whole process: its pickle names refuse, so that no byte from a network
or a file can reach an unpickler, and its clock is the time of the last event handed to a core. And it gives back
``socket.inet_ntop``, which the library replaces by one that works on Windows alone.
"""

from __future__ import annotations

import _socket
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from hasys.store.raft.journal import Journal


@contextmanager
def _without(module: str) -> Iterator[None]:
    """An import of that module fails, unless somebody has imported it already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # this is how to say so
    try:
        yield
    finally:
        del sys.modules[module]


with _without("cryptography"):  # optional there, for passwords that our transport does not use: 9 MB of memory
    import pysyncobj.serializer
    import pysyncobj.syncobj
    import pysyncobj.tcp_connection
    from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
    from pysyncobj.node import Node
    from pysyncobj.syncobj import _COMMAND_TYPE as COMMAND_TYPE
    from pysyncobj.syncobj import _RAFT_STATE as RAFT_STATE
    from pysyncobj.transport import Transport

__all__ = [
    "COMMAND_TYPE",
    "FAIL_REASON",
    "RAFT_STATE",
    "Clock",
    "LogAdapter",
    "NoTransport",
    "Node",
    "SyncObj",
    "manual_configuration",
]


class _NoPickle:
    """Stands where the library imports pickle."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def refuse(*_: object, **__: object) -> NoReturn:
            raise RuntimeError(f"pickle.{name} is not used here")

        return refuse


class Clock:
    """The library reads a module-wide clock. Several cores with clocks of their own can live in one process, because
    each entry point sets the time before it runs any of the library's code."""

    now = 0.0

    @classmethod
    def read(cls) -> float:
        return cls.now


def _disarm() -> None:
    for module in (pysyncobj.syncobj, pysyncobj.serializer, pysyncobj.tcp_connection):
        module.pickle = _NoPickle()
    pysyncobj.syncobj.monotonicTime = Clock.read
    socket.inet_ntop = _socket.inet_ntop


_disarm()


def manual_configuration() -> Any:
    """No thread, no files, no poller with a file descriptor, no dynamic membership."""
    return SyncObjConf(
        autoTick=False,
        dynamicMembershipChange=False,
        appendEntriesUseBatch=True,  # otherwise it opens a pipe
        commandsWaitLeader=False,
        journalFile=None,
        fullDumpFile=None,
        pollerType="select",
    )


class NoTransport(Transport):  # type: ignore[misc]  # the library is untyped
    """Hands the few messages that inherited code sends to the core."""

    def __init__(self, send: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__(None, None, [])
        self._send = send

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        self._send(node.id, message)
        return True


class LogAdapter:
    """Our journal under the names that the inherited code calls."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __len__(self) -> int:
        return len(self._journal.items)

    def __getitem__(self, at: Any) -> Any:
        return self._journal.items[at]

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._journal.append(command, idx, term)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803  # their name
        self._journal.ballot(term, votedForNodeId or "")
