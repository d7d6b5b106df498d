"""A follower passes every RPC on to the leader, as bytes: one hop, the caller's identity along, cut when the leader
changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import grpc

from hasys import cancelled
from hasys.api.auth import FORWARDED, REQUEST, Caller, request_of
from hasys.api.errors import FAULTS, NO_MAJORITY, NOTHING_CHANGED
from hasys.api.tls import CHANNEL_OPTIONS, Identity
from hasys.config import Member, NodeConfig
from hasys.model.errors import NoMajority, Unavailable
from hasys.store.port import Engine

LEADER = "hasys-leader"
"""Trailing metadata of a passed-on answer: the leader's servers, ``IP:PORT`` separated by commas. A client that goes
there saves the hop."""

ELECTION = 0.7
"""Seconds that a call waits for a leader before it is sent away: an election of the default profile fits."""
LEADERLESS = 2.0
"""Seconds without a leader after which a majority counts as missing: callers are told at once, and status is answered
from what this member knows."""
FORWARD_LONGEST = 15.0
"""Seconds that a passed-on unary call may take when the client set no deadline."""


class Forwarder:
    """Keeps a channel to the leader of the moment."""

    def __init__(self, config: NodeConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._mine = Identity(config.ca, config.certificate, config.key)
        self._shown = 0
        self._members = {m.name: m for m in config.members}
        self._leader: str | None = None
        self._channel: grpc.aio.Channel | None = None
        self._news = asyncio.Event()
        self._running: set[Any] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._leaderless_since: float | None = None
        self._detour = False

    def set_members(self, members: Iterable[Member]) -> None:
        """Where a leader may be, from now on."""
        self._members = {m.name: m for m in members}

    def leader_changed(self) -> None:
        """Forget the channel to a leader that leads no longer, and cut what still waits for it."""
        news, self._news = self._news, asyncio.Event()
        news.set()
        self._follow_leader()

    def take_detour(self, detour: bool) -> None:
        """The way to the leader by its first address is known to be lost: do not wait until it shows. When it is back
        what goes round stays there."""
        before, self._detour = self._detour, detour
        if detour and not before:
            self._hang_up()

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        for call in tuple(self._running):
            call.cancel()
        self._retire(channel, None)

    def _follow_leader(self) -> None:
        leader = self._engine.status().leader
        self._note_leader(leader)
        if leader == self._leader:
            return
        self._leader = leader
        self._hang_up()

    def _retire(self, channel: grpc.aio.Channel | None, grace: float | None) -> None:
        if channel is not None:
            task = asyncio.get_running_loop().create_task(channel.close(grace))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _note_leader(self, leader: str | None) -> None:
        if leader is not None:
            self._leaderless_since = None
        elif self._leaderless_since is None:
            self._leaderless_since = asyncio.get_running_loop().time()

    def leaderless(self) -> bool:
        """No leader for so long that a majority counts as missing."""
        self._note_leader(self._engine.status().leader)
        since = self._leaderless_since
        return since is not None and asyncio.get_running_loop().time() - since >= LEADERLESS

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def unary(self, method: str, request: bytes, caller: Caller, context: Any) -> bytes:
        """Pass a unary RPC on and relay its answer or refusal. Raises ``Unavailable`` without a leader."""
        left = context.time_remaining()
        member, channel = await self._route(caller, left)
        left = context.time_remaining()  # the route may have waited; reports are dated by what is left
        number = request_of(context.invocation_metadata())
        call = channel.unary_unary(method, None, None)(
            request,
            timeout=FORWARD_LONGEST if left is None else max(0.001, left),
            metadata=[*_identity(caller), *([(REQUEST, number)] if number else [])],
        )
        self._running.add(call)
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as e:
            await _relay(context, e)
            raise AssertionError("unreachable") from None
        except asyncio.CancelledError:
            if cancelled.from_outside():
                raise
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the leader changed while it worked on this")
            raise AssertionError("unreachable") from None
        finally:
            self._running.discard(call)
            call.cancel()
        context.set_trailing_metadata(((LEADER, _servers(member)),))
        return answer

    async def stream(self, method: str, request: bytes, caller: Caller, context: Any) -> AsyncIterator[bytes]:
        """Pass a streaming RPC on until either side or the leadership ends."""
        left = context.time_remaining()
        member, channel = await self._route(caller, left)
        await context.send_initial_metadata(((LEADER, _servers(member)),))
        call = channel.unary_stream(method, None, None)(request, timeout=left, metadata=_identity(caller))
        self._running.add(call)
        try:
            async for item in call:
                yield item
        except grpc.aio.AioRpcError as e:
            await _relay(context, e)
        except asyncio.CancelledError:
            if cancelled.from_outside():
                raise
            await _abort_nothing_changed(context, "the leader changed")
        finally:
            self._running.discard(call)
            call.cancel()

    async def _route(self, caller: Caller, left: float | None) -> tuple[Member, grpc.aio.Channel]:
        if caller.forwarded:
            raise Unavailable(f"{self._config.name} does not lead any more")
        self._follow_leader()
        if self.leaderless():
            raise NoMajority(f"no majority: {_seen(self._engine, self._config.name)}")
        if self._leader in (None, self._config.name):
            await self._election(ELECTION if left is None else min(left / 2, ELECTION))
        leader = self._leader
        if leader is None or leader == self._config.name:
            raise Unavailable(no_leader(self._engine, self._config.name))
        member = self._members.get(leader)
        if member is None:
            raise Unavailable(f"{leader} leads, but is not known here yet: try again")
        self._mine.look()
        if self._shown != self._mine.number:
            channel, self._channel = self._channel, None
            self._retire(channel, FORWARD_LONGEST)
        if self._channel is None:
            self._shown = self._mine.number
            self._channel = grpc.aio.secure_channel(
                _target(member, last_first=self._detour),
                self._mine.client(),
                options=[*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", leader)],
            )
        return member, self._channel

    async def _election(self, patience: float) -> None:
        """Wait until another member or, with authority, this one leads: sooner than clients would come back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._leader in (None, self._config.name) and self._engine.authority() is None:
                    await self._news.wait()


def no_leader(engine: Engine, name: str = "") -> str:
    """Why there is no leader to ask, as well as this member knows."""
    status = engine.status()
    if status.leader is not None:
        return f"{status.leader} was just elected: try again"
    return f"no leader: {_seen(engine, name)}, a majority is needed"


def _seen(engine: Engine, name: str) -> str:
    status = engine.status()
    there = [name or "this one", *(other for other in status.connected if other != name)]
    return f"{len(there)} of {len(status.voters)} voters see each other ({', '.join(there)})"


def _target(member: Member, *, last_first: bool = False) -> str:
    """All addresses of one family: gRPC takes the first that answers."""
    family = "ipv6" if ":" in member.addresses[0] else "ipv4"
    same = [address for address in member.addresses if (":" in address) == (family == "ipv6")]
    if last_first:
        same.reverse()
    host: Callable[[str], str] = (lambda a: f"[{a}]") if family == "ipv6" else str
    return f"{family}:{','.join(f'{host(address)}:{member.api_port}' for address in same)}"


def _servers(member: Member) -> str:
    return ",".join(
        f"[{address}]:{member.api_port}" if ":" in address else f"{address}:{member.api_port}"
        for address in member.addresses
    )


def _identity(caller: Caller) -> Sequence[tuple[str, str]]:
    return ((FORWARDED, f"{caller.role}/{caller.name}"),)


async def _relay(context: Any, error: grpc.aio.AioRpcError) -> None:
    pairs: Any = error.trailing_metadata() or ()
    trailing = tuple((key, value) for key, value in pairs if key in (FAULTS, NOTHING_CHANGED, NO_MAJORITY))
    await context.abort(error.code(), error.details() or "", trailing)


async def _abort_nothing_changed(context: Any, text: str) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, text, ((NOTHING_CHANGED, "1"),))
