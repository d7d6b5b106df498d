"""What an RPC looks like to the services: the caller, the time left, and a way to change the replicated state."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from hasys.api.auth import Caller
from hasys.api.convert import now
from hasys.api.errors import Invalid, TooLarge
from hasys.model.errors import Conflict, HasysError, NotFound, Refused
from hasys.store.port import Engine
from hasys.v1 import store_pb2

LONGEST_WRITE = 10.0
"""Seconds that a write may wait for a majority when the client sets no deadline or a later one."""
COMMAND_BYTES = 4 * 1024 * 1024
"""Largest command in the log."""


@dataclass(slots=True)
class Call:
    """Circumstances of one RPC."""

    caller: Caller
    time_left: float | None
    """Seconds until the client's deadline; None when it has none."""
    committed: bool = False
    """The answer comes from the log: what it says was decided by a majority."""
    request: str = ""
    """The number that the client gave this request, whichever server it is sent to; empty: none."""

    @property
    def id(self) -> str:
        """The same for every sending of this request, and for no other one; empty when its client gave none."""
        return f"{self.caller.actor}/{self.request}" if self.request else ""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its path, messages, and the function that serves it on the leader."""

    path: str
    request: type[Message]
    response: type[Message]
    serve: Callable[[Any, Call], Awaitable[Message]] | None = None
    stream: Callable[[Any, Call], AsyncIterator[Message]] | None = None
    """Exactly one of ``serve`` and ``stream`` is set."""


class Writer:
    """Proposes commands and turns their outcomes into errors."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name
        """Of this member."""
        self._prefix = f"{name}-{secrets.token_hex(6)}"
        self._serial = 0

    async def write(self, call: Call, mutations: Sequence[store_pb2.Mutation], *, part: int = 0) -> int:
        """Commit the mutations as one command; returns its resource version. Raises what the outcome says. ``part``:
        of a request that may need several commands. A request that is sent again gets the outcome of its first
        command, if that was applied: nothing is done twice."""
        self._serial += 1
        name = f"{call.id}/{part}" if call.id and part else call.id
        command = store_pb2.Command(
            id=name or f"{self._prefix}-{self._serial}", actor=call.caller.actor, time=now(), mutations=mutations
        ).SerializeToString()
        if len(command) > COMMAND_BYTES:
            raise TooLarge(f"the change is larger than {COMMAND_BYTES >> 20} MiB: split it")
        timeout = LONGEST_WRITE if call.time_left is None else min(call.time_left, LONGEST_WRITE)
        applied = await self._engine.propose(command, timeout=timeout)
        call.committed = True
        return told(applied.answer)


def told(answer: bytes) -> int:
    """The resource version of a command that was done. Raises what it was refused with."""
    outcome = store_pb2.Outcome.FromString(answer)
    if outcome.done:
        return outcome.resource_version
    raise refusal(outcome)


def refusal(outcome: store_pb2.Outcome) -> HasysError:
    """The error that a refused command stands for."""
    match outcome.code:
        case "Conflict" | "Exists":
            return Conflict(outcome.message)
        case "NotFound":
            return NotFound(outcome.message)
        case "Invalid":
            return Invalid((), outcome.message)
        case "TooLarge":
            return TooLarge(outcome.message)
    return Refused(outcome.message)
