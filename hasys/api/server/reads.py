"""Linearizable reads, and cheap ones.

An answer that does not come from the log (a read, a refusal, "unchanged") was true of this member's state. It leaves
only after a majority has confirmed that this member still led *after* the state was looked at: then nobody else can
have committed anything that the answer lacks. That costs one round between the voters, shared by all that wait. No
clock is trusted for it: an election after a closed connection or a hand-over does not wait for the old leader's time.

A client that asks for ``Stale`` gets what the asked member has applied, without a leader, majority or round.
"""

from __future__ import annotations

from collections.abc import Awaitable

from google.protobuf.message import DecodeError, Message

from hasys.api.server.calls import Call, Method
from hasys.model.errors import HasysError, Unknown
from hasys.store.port import Engine
from hasys.v1 import api_pb2

STALE_READS = ("/hasys.v1.Resources/Get", "/hasys.v1.Resources/List")
"""RPCs whose request may ask for a stale answer."""
CONFIRM = 2.0
"""Seconds that an answer waits for its confirmation at most: beyond this the leader has lost its majority."""


def stale_request(method: Method, raw: bytes) -> Message | None:
    """The request, if it asks for a stale answer; None when the leader must be asked, also when it cannot be read."""
    if method.path not in STALE_READS:
        return None
    try:
        request = method.request.FromString(raw)
    except DecodeError:
        return None
    return request if accepts_stale(request) else None


def accepts_stale(request: Message) -> bool:
    """Does this request ask for what the member has, however old?"""
    return isinstance(request, api_pb2.GetRequest | api_pb2.ListRequest) and request.consistency == api_pb2.Stale


def is_told_by_the_way(request: Message) -> bool:
    """A report of nothing but figures: they are kept in memory alone, and the answer promises nothing."""
    if not isinstance(request, api_pb2.ReportRequest):
        return False
    return not (request.statuses or request.events or request.monitors or request.runs)


async def answer_confirmed(engine: Engine, answer: Awaitable[Message], call: Call) -> Message:
    """The answer, or refusal, once it is known to be no deposed leader's. Raises ``Unavailable`` otherwise."""
    try:
        found = await answer
    except Unknown:  # tells nothing of the state; a refused confirmation would promise that nothing changed
        raise
    except HasysError:
        await _confirm(engine, call)
        raise
    await _confirm(engine, call)
    return found


async def _confirm(engine: Engine, call: Call) -> None:
    if not call.committed:
        await engine.confirm(timeout=CONFIRM if call.time_left is None else min(call.time_left, CONFIRM))
