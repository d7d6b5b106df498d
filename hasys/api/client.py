"""The client that everything of hasys uses: CLI, agents, tests. Several servers, any of them serves.

It finds a server that answers, prefers the leader (or the node's own server), repeats what may be repeated until the
deadline, and raises ``hasys.model.errors``.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message

from hasys import cancelled
from hasys.api.auth import REQUEST
from hasys.api.context import TIMEOUT, Context, from_node_config, load_context
from hasys.api.convert import duration
from hasys.api.errors import Relist, TooLarge, from_status
from hasys.api.kinds import Ref
from hasys.api.repeating import NOBODY, Backoff, Patience
from hasys.api.tls import CHANNEL_OPTIONS, MESSAGE_BYTES, Identity
from hasys.api.watching import Merger
from hasys.model.errors import HasysError, NoMajority, NotFound, Refused, TimedOut, Unavailable, Unknown, Unreached
from hasys.v1 import api_pb2
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb

__all__ = ["TIMEOUT", "Client", "Context", "from_node_config", "load_context"]

MEMBERS_TIMEOUT = 20.0
"""Seconds for a change of the members: the leader may have to hand over first."""
STAGGER = 0.15
"""Seconds after which the next server is tried beside one that has not answered."""
CONNECT = 1.0
"""Seconds that one server may take to connect before it counts as down."""
ELSEWHERE = 1.2
"""Seconds during which others are asked when a server says that there is no majority: it may only be cut off itself."""
RETIRE = 30.0
"""Seconds that calls of a connection go on once our certificate was renewed; watches are then resumed anew."""
_OPTIONS = [*CHANNEL_OPTIONS, ("grpc.client_idle_timeout_ms", 10_000)]
"""A connection that nobody uses is closed: both ends would look after it for ever."""
LASTING = 4.0
"""Seconds between looks after the server for who stays connected for years, as a node's agent does to the store beside
it: each look wakes the threads of gRPC on both ends some twenty times."""
HOME = 0.25
"""Seconds between two looks whether the own node's server serves again, while a watch is served elsewhere."""
SHUN = 2.0
"""Seconds during which a server that failed is asked after all others: it may be cut off while another one is not."""
LEADER = "hasys-leader"
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED)
"""Answers after which another attempt may succeed; all but a sure UNAVAILABLE leave open whether it was done."""

_SESSION = secrets.token_hex(8)
"""Of this process, whose monotonic clock dates its reports."""

Answer = TypeVar("Answer", bound=Message)


@dataclass(slots=True)
class _Server:
    """One server and our connection to it."""

    target: str
    identity: Identity
    channel: Any = None
    shown: int = 0
    """Number of the identity that the channel shows."""
    retired: set[asyncio.Task[None]] = field(default_factory=set)
    lasting: bool = False
    shunned: float = 0.0
    """Until this time of the loop's clock others are asked first."""
    cut_off: float = 0.0
    """Until then also others to which there is no connection yet: it answers, and has no leader to ask."""
    calls: dict[str, Any] = field(default_factory=dict)

    def open(self) -> Any:
        """The connection; a new one after a renewal of our certificate, while the old one ends what it began."""
        if self.shown != self.identity.number:
            self.retire()
        if self.channel is None:
            self.shown = self.identity.number
            self.channel = grpc.aio.secure_channel(self.target, self.identity.client(), options=_options(self.lasting))
        return self.channel

    def retire(self) -> None:
        """Close the connection once it has ended what it began."""
        if self.channel is not None:
            task = asyncio.get_running_loop().create_task(self.channel.close(RETIRE))
            self.retired.add(task)
            task.add_done_callback(self.retired.discard)
            self.channel = None
            self.calls.clear()

    def ready(self) -> bool:
        """Connected? Starts to connect when idle."""
        return bool(self.open().get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY)

    async def connect(self) -> bool:
        """Wait until it is connected (True) or known to be down (False)."""
        channel = self.open()
        try:
            async with asyncio.timeout(CONNECT):
                while True:
                    state = channel.get_state(try_to_connect=True)
                    if state is grpc.ChannelConnectivity.READY:
                        return True
                    if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                        return False
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            return False

    def unary(self, path: str, response: type[Message]) -> Any:
        call = self.calls.get(path)
        if call is None:
            call = self.open().unary_unary(path, _serialize, response.FromString)
            self.calls[path] = call
        return call

    def stream(self, path: str, response: type[Message]) -> Any:
        return self.open().unary_stream(path, _serialize, response.FromString)


def _options(lasting: bool) -> list[tuple[str, int]]:
    own = {"grpc.keepalive_time_ms": int(LASTING * 1000)} if lasting else {}
    return list({**dict(_OPTIONS), **own}.items())


async def _answer(call: Any) -> Any:
    """What a call of one answer brings. Raises ``Unknown`` when its connection was closed under it.

    A cancelled task must see the very ``CancelledError`` that was meant for it: anyio knows its time limits again by
    it. gRPC forwards another one (grpc/aio/_call.py: ``_invoke`` ends the call, and with it its own task), so that a
    limit around a call would end everything around the limit. Therefore the call is waited for from the side.
    """
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        call.cancel()
        if cancelled.from_outside():
            raise
        raise Unknown("the connection was closed before the answer") from None


def _consistency(stale: bool) -> api_pb2.Consistency.ValueType:
    return api_pb2.Stale if stale else api_pb2.Linearizable


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _check_size(request: Message) -> None:
    """Raises ``TooLarge`` for what no server would read: gRPC's own words for it help nobody."""
    if (size := request.ByteSize()) > MESSAGE_BYTES:
        limit = f"at most {MESSAGE_BYTES >> 20} MiB: split it"
        raise TooLarge(f"the request is {size / 2**20:.1f} MiB large: {limit}")


def _shun(server: _Server | None, error: HasysError | None = None) -> None:
    """It failed: the next attempts begin with others."""
    if server is not None:
        server.shunned = asyncio.get_running_loop().time() + SHUN
        if isinstance(error, NoMajority):
            server.cut_off = server.shunned


class Client:
    """``async with Client(context) as client: await client.list("Group")``. Every call takes ``timeout`` in seconds."""

    def __init__(self, context: Context, *, lasting: bool = False) -> None:
        """``lasting``: connected for as long as the node runs; a frozen server is noticed after :data:`LASTING`."""
        self._context = context
        self._lasting = lasting
        self._identity = Identity(context.ca, context.certificate, context.key)
        self._servers = [self._server(target) for target in context.servers]
        self._known = {server.target: server for server in self._servers}
        self._preferred = self._servers[0]
        self._closed = False
        self._retired: set[asyncio.Task[None]] = set()
        """Connections to servers that are asked no more."""

    def _server(self, target: str) -> _Server:
        return _Server(target, self._identity, lasting=self._lasting)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. A watch that somebody reads meanwhile ends as if it were cancelled."""
        self._closed = True
        for server in self._servers:
            self._retired |= server.retired
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        for server in self._servers:
            if server.channel is not None:
                await server.channel.close(None)
                server.channel = None

    def set_servers(self, targets: Sequence[str]) -> None:
        """Ask these from now on, in this order. Calls that others still work on end there."""
        dropped = [server for target, server in self._known.items() if target not in targets]
        self._servers = [self._known.get(target) or self._server(target) for target in targets]
        self._known = {server.target: server for server in self._servers}
        if self._preferred not in self._servers or not self._context.follow_leader:
            self._preferred = self._servers[0]
        self._context = replace(self._context, servers=tuple(targets))
        for server in dropped:
            server.retire()
            self._retired |= server.retired

    # ------------------------------------------------------------ Resources

    async def apply(
        self, objects: Sequence[pb.Object], *, dry_run: bool = False, prune: bool = False, timeout: float = TIMEOUT
    ) -> api_pb2.ApplyResponse:
        """All objects or none. Raises ``hasys.api.errors.Invalid`` with the faults."""
        request = api_pb2.ApplyRequest(objects=objects, dry_run=dry_run, prune=prune)
        return await self._call(
            "/hasys.v1.Resources/Apply", request, api_pb2.ApplyResponse, timeout, changes=not dry_run
        )

    async def get(
        self, kind: str, name: str, group: str = "", *, stale: bool = False, timeout: float = TIMEOUT
    ) -> pb.Object:
        """One object. Raises ``NotFound``. With ``stale``: as the asked server has it, however old."""
        request = api_pb2.GetRequest(key=pb.Key(kind=kind, group=group, name=name), consistency=_consistency(stale))
        return await self._call("/hasys.v1.Resources/Get", request, pb.Object, timeout)

    async def list(
        self, kind: str = "", group: str = "", *, limit: int = 0, stale: bool = False, timeout: float = TIMEOUT
    ) -> api_pb2.ListResponse:
        """Objects of a kind (empty: all) about a group (empty: all). With ``stale``: as the asked server has them,
        without a leader or majority."""
        request = api_pb2.ListRequest(kind=kind, group=group, limit=limit, consistency=_consistency(stale))
        return await self._call("/hasys.v1.Resources/List", request, api_pb2.ListResponse, timeout)

    async def delete(self, ref: Ref, *, version: int = 0, timeout: float = TIMEOUT) -> api_pb2.DeleteResponse:
        """Ask for deletion; with a version only if that is the object's. Raises ``NotFound``."""
        request = api_pb2.DeleteRequest(key=ref.key(), resource_version=version)
        return await self._call(
            "/hasys.v1.Resources/Delete", request, api_pb2.DeleteResponse, timeout, changes=True,
            absent=lambda: api_pb2.DeleteResponse(),
        )  # fmt: skip

    async def report(
        self,
        node: str,
        statuses: Sequence[api_pb2.StatusReport] = (),
        events: Sequence[pb.Event] = (),
        *,
        runs: Sequence[api_pb2.RunReport] = (),
        results: Sequence[api_pb2.MonitorReport] = (),
        figures: mpb.NodeFigures | None = None,
        timeout: float = TIMEOUT,
    ) -> api_pb2.ReportResponse:
        """What a node sees; the answer names the refused items."""
        request = api_pb2.ReportRequest(
            node=node, statuses=statuses, events=events, monitors=results, figures=figures, runs=runs,
            patience=duration(timeout), sent=duration(time.monotonic()), session=_SESSION,
        )  # fmt: skip
        return await self._call("/hasys.v1.Resources/Report", request, api_pb2.ReportResponse, timeout, changes=True)

    async def watch(self, kinds: Sequence[str] = (), group: str = "") -> AsyncIterator[api_pb2.WatchResponse]:
        """Changes for ever: what there is as ADDED, SYNCED, then each change. A lost connection is resumed. When the
        history is gone it lists again by itself and gives only the differences (DELETED for what went meanwhile).
        Raises what repeating cannot mend (``Denied``, ``Invalid``), and ``Unavailable`` when even the first answer does
        not come within the context's patience."""
        merger, backoff, patience = Merger(), Backoff(), Patience(self._context.patience)
        while True:
            request = api_pb2.WatchRequest(kinds=kinds, group=group, **{"from": merger.version})
            try:
                server, alive = await self._find(), False
                call = server.stream("/hasys.v1.Resources/Watch", api_pb2.WatchResponse)(request)
                homeward = self._homeward(server, call)
                try:
                    async for answer in call:
                        backoff.reset()
                        alive = True
                        patience.answered()
                        merged = merger.merge(answer)
                        if merged.changes:
                            yield merged
                except grpc.aio.AioRpcError as e:
                    error = from_status(e)
                    if not alive:
                        _shun(server, error)
                    raise error from None
                except asyncio.CancelledError:
                    if cancelled.from_outside() or self._closed:
                        raise
                    continue  # our own server serves again, or the connection was retired
                finally:
                    if homeward is not None:
                        homeward.cancel()
                    call.cancel()
            except Relist:
                merger.begin_again()
                continue
            except (Unavailable, Unknown) as e:
                patience.check(e)
            if merger.version == 0:
                merger.begin_again()
            await backoff.pause()

    # ------------------------------------------------------------ Operations and Status

    async def create_operation(self, spec: pb.OperationSpec, *, timeout: float = TIMEOUT) -> pb.Operation:
        """Ask for an operation; done at most once however often the connection breaks."""
        request = api_pb2.CreateOperationRequest(spec=spec, request_id=secrets.token_hex(12))
        return await self._call("/hasys.v1.Operations/Create", request, pb.Operation, timeout, changes=True)

    async def list_operations(
        self, group: str = "", *, limit: int = 0, timeout: float = TIMEOUT
    ) -> api_pb2.ListOperationsResponse:
        """Newest first."""
        request = api_pb2.ListOperationsRequest(group=group, limit=limit)
        return await self._call("/hasys.v1.Operations/List", request, api_pb2.ListOperationsResponse, timeout)

    async def status(self, group: str = "", *, timeout: float = TIMEOUT) -> api_pb2.StatusResponse:
        """What ``hasys status`` shows; without a majority (``cluster.quorum``) what one server has stored."""
        request = api_pb2.StatusRequest(group=group)
        return await self._call(
            "/hasys.v1.Status/Get", request, api_pb2.StatusResponse, timeout,
            best=lambda answer: bool(answer.cluster.quorum),
        )  # fmt: skip

    # ------------------------------------------------------------ Maintenance

    async def members(self, *, timeout: float = TIMEOUT) -> api_pb2.ListMembersResponse:
        """Who belongs to the cluster."""
        request = api_pb2.ListMembersRequest()
        return await self._call("/hasys.v1.Maintenance/ListMembers", request, api_pb2.ListMembersResponse, timeout)

    async def add_member(
        self, name: str, spec: pb.NodeSpec, *, timeout: float = MEMBERS_TIMEOUT
    ) -> api_pb2.ChangeMemberResponse:
        """Take a member in, or change its addresses. Raises ``Refused`` with the reason."""
        request = api_pb2.AddMemberRequest(name=name, spec=spec)
        return await self._call(
            "/hasys.v1.Maintenance/AddMember", request, api_pb2.ChangeMemberResponse, timeout, changes=True
        )

    async def remove_member(self, name: str, *, timeout: float = MEMBERS_TIMEOUT) -> api_pb2.ChangeMemberResponse:
        """Let a member go. Raises ``Refused`` with the reason, ``NotFound``."""
        request = api_pb2.RemoveMemberRequest(name=name)
        return await self._call(
            "/hasys.v1.Maintenance/RemoveMember", request, api_pb2.ChangeMemberResponse, timeout, changes=True,
            absent=lambda: api_pb2.ChangeMemberResponse(),
        )  # fmt: skip

    async def backup(self) -> AsyncIterator[api_pb2.BackupResponse]:
        """The whole state: header, data, checksum. Not resumed when the connection breaks."""
        server = await self._find()
        call = server.stream("/hasys.v1.Maintenance/Backup", api_pb2.BackupResponse)(api_pb2.BackupRequest())
        try:
            async for part in call:
                yield part
        except grpc.aio.AioRpcError as e:
            raise from_status(e) from None
        except asyncio.CancelledError:
            if cancelled.from_outside():
                raise
            raise Unknown("the connection was closed before the end") from None
        finally:
            call.cancel()

    async def watch_status(self, group: str = "") -> AsyncIterator[api_pb2.StatusResponse]:
        """The status now, after each change, and each second; resumed for ever. Raises as ``watch`` does."""
        backoff, patience = Backoff(), Patience(self._context.patience)
        while True:
            try:
                server, alive = await self._find(), False
                call = server.stream("/hasys.v1.Status/Watch", api_pb2.StatusResponse)(
                    api_pb2.StatusRequest(group=group)
                )
                try:
                    async for answer in call:
                        backoff.reset()
                        alive = True
                        patience.answered()
                        yield answer
                except grpc.aio.AioRpcError as e:
                    error = from_status(e)
                    if not alive:
                        _shun(server, error)
                    raise error from None
                except asyncio.CancelledError:
                    if cancelled.from_outside() or self._closed:
                        raise
                    continue  # the connection was retired
                finally:
                    call.cancel()
            except (Unavailable, Unknown) as e:
                patience.check(e)
            await backoff.pause()

    # ------------------------------------------------------------ finding a server, repeating

    async def _call(
        self,
        path: str,
        request: Message,
        response: type[Answer],
        timeout: float,
        *,
        changes: bool = False,
        absent: Callable[[], Answer] | None = None,
        best: Callable[[Answer], bool] | None = None,
    ) -> Answer:
        """One unary RPC, repeated until the deadline while servers are unavailable. One that ``changes`` something has
        a number, by which servers know that they have done it already; ``absent`` answers for a deletion whose first
        attempt was lost. A refusal after a lost attempt does not tell that nothing changed: raises ``TimedOut`` then.
        An answer that is not ``best`` is taken only when no other server has a better one."""
        _check_size(request)
        number = ((REQUEST, secrets.token_hex(12)),) if changes else None
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + timeout
        second_best: Answer | None = None
        last: HasysError | None = None
        lost, backoff = False, Backoff()
        while (left := deadline - loop.time()) > 0:
            server: _Server | None = None
            try:
                server = await self._find()
                call = server.unary(path, response)(
                    request, timeout=max(0.001, min(left, deadline - loop.time())), metadata=number
                )
                answer: Answer = await _answer(call)
                if best is None or best(answer) or loop.time() - started >= ELSEWHERE:
                    if self._context.follow_leader:
                        await self._learn_leader(call)
                    return answer
                second_best = answer
                _shun(server, NoMajority())
            except grpc.aio.AioRpcError as e:
                error = from_status(e)
                if e.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    _shun(server)  # it may be frozen while another one is not
                    why = f" ({last})" if last is not None else ""
                    raise TimedOut(f"no answer within {timeout:g} s; the request may still be done{why}") from None
                if isinstance(error, NotFound) and lost and absent is not None:
                    return absent()
                if e.code() not in _AGAIN:
                    if lost and changes and isinstance(error, Refused):
                        why = f"an earlier attempt may have been done: its answer was lost; sent again: {error}"
                        raise TimedOut(why) from None
                    raise error from None
                lost = lost or isinstance(error, Unknown)
                last = error
                _shun(server, error)
                if isinstance(error, NoMajority) and loop.time() - started >= ELSEWHERE:
                    break
            except Unknown as e:
                if self._closed:
                    raise
                lost, last = True, e
            except Unavailable as e:
                last = e
                if self._context.patience is not None and not lost and loop.time() - started >= NOBODY:
                    break
            await backoff.pause(at_most=deadline - loop.time())
        if second_best is not None:
            return second_best
        if lost:
            waited = min(timeout, loop.time() - started)
            raise TimedOut(f"no answer within {waited:.1f} s; the request may have been done: {last}")
        raise last if last is not None else TimedOut(f"no server answered within {timeout:g} s")

    async def _learn_leader(self, call: Any) -> None:
        pairs: Any = await call.trailing_metadata() or ()
        for key, value in pairs:
            if key != LEADER:
                continue
            for target in value.split(","):
                if target in self._known:
                    self._preferred = self._known[target]
                    return

    def _homeward(self, server: _Server, call: Any) -> asyncio.Task[None] | None:
        """Ends a watch that ``server`` serves as soon as our own node's server serves again, which notices first when a
        network is lost. None when there is nothing to go back to."""
        if self._context.follow_leader or server is self._preferred:
            return None

        async def until_home() -> None:
            loop = asyncio.get_running_loop()
            while self._preferred.shunned > loop.time() or not self._preferred.ready():  # noqa: ASYNC110  (no event)
                await asyncio.sleep(HOME)
            call.cancel()

        return asyncio.ensure_future(until_home())

    def _order(self, now: float) -> Sequence[_Server]:
        """Whom to ask first: the preferred one; last those that failed, and of these whoever did so last."""
        order = [self._preferred, *(server for server in self._servers if server is not self._preferred)]
        return sorted(order, key=lambda server: max(server.shunned, now))

    async def _find(self) -> _Server:
        """A connected server: the preferred one if it is; else whichever answers first, begun one after the other.
        Raises ``Unavailable`` when none does."""
        now = asyncio.get_running_loop().time()
        self._identity.look()
        order = self._order(now)
        for server in order:
            known = server is order[0] or (server.channel is not None and server.cut_off <= now)
            if known and server.ready():
                return server
        waiting: dict[asyncio.Task[bool], _Server] = {}
        left = list(order)
        try:
            while left or waiting:
                if left:
                    server = left.pop(0)
                    waiting[asyncio.ensure_future(server.connect())] = server
                done, _ = await asyncio.wait(
                    waiting, timeout=STAGGER if left else CONNECT, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    server = waiting.pop(task)
                    if task.result():
                        if self._context.follow_leader:
                            self._preferred = server
                        return server
        finally:
            for task in waiting:
                task.cancel()
        raise Unreached(f"no server reached: tried {', '.join(self._context.servers)}")
