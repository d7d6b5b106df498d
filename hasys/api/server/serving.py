"""gRPC around the services: a server per own address, mutual TLS, every RPC served here (leader) or passed on."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hasys.api.auth import FORWARDED, Authenticator, Caller, request_of
from hasys.api.errors import to_status
from hasys.api.kinds import Ref
from hasys.api.server.calls import Call, Method, Writer
from hasys.api.server.forwarding import Forwarder, no_leader
from hasys.api.server.operations import OperationsService
from hasys.api.server.reads import accepts_stale, answer_confirmed, is_told_by_the_way, stale_request
from hasys.api.server.resources import Resources
from hasys.api.server.status import StatusService, StatusSource
from hasys.api.server.streams import Streams
from hasys.api.tls import SERVER_OPTIONS, server_credentials
from hasys.config import Member, NodeConfig
from hasys.model.errors import HasysError, Refused, Unavailable
from hasys.store.figures import Figures
from hasys.store.machine import Changed, Machine
from hasys.store.port import Engine
from hasys.store.watch import WatchHub
from hasys.v1 import api_pb2

SERVICES = ("hasys.v1.Resources", "hasys.v1.Operations", "hasys.v1.Status", "hasys.v1.Maintenance")
STATUS_GET, STATUS_WATCH = "/hasys.v1.Status/Get", "/hasys.v1.Status/Watch"
"""Answered by any member when there is no leader to ask."""
BIND_AGAIN = 1.0
"""Seconds between attempts to listen on an address that this machine does not have yet."""
CALLS = 2_048
"""Most calls at once; more are refused before they are read."""
STOP_GRACE = 0.5
"""Seconds that running calls get when the server stops."""


class ApiServer:
    """The API of one store process. ``run`` serves until cancelled."""

    def __init__(
        self,
        config: NodeConfig,
        engine: Engine,
        machine: Machine,
        hub: WatchHub,
        status_source: StatusSource,
        more: Callable[[Writer], Iterable[Method]] = lambda _: (),
        figures: Figures | None = None,
    ) -> None:
        """``more``: further RPCs, which the rest of the process provides (maintenance); ``figures`` takes what nodes
        tell beside the replicated state (None: it is not kept)."""
        self._config = config
        self._engine = engine
        self._hub = hub
        self._members = {m.name for m in config.members}
        self._auth = Authenticator(config.cluster_id, {m.name: m.votes for m in config.members})
        self._forwarder = Forwarder(config, engine)
        writer = Writer(engine, config.name)
        streams = Streams()
        self._status = StatusService(machine, status_source, streams)
        figures = figures or Figures(lambda: 0.0)
        resources = Resources(machine, hub, writer, streams, figures)
        services = (resources, OperationsService(machine, writer), self._status)
        methods = [method for service in services for method in service.methods()]
        self._router = _Router(self, (*methods, *more(writer)))
        self._led = False
        self.bound: dict[str, int] = {}
        """Address -> port, of what is listened on."""
        self.listening = asyncio.Event()
        """Set once there is one on every own address that this machine has."""
        engine.on_change(self._on_change)
        self._machine = machine
        machine.subscribe(self._on_applied)

    def set_members(self, members: Sequence[Member]) -> None:
        """Believe and reach these members from now on."""
        went = self._members - {m.name for m in members}
        self._members = {m.name for m in members}
        self._auth.set_members({m.name: m.votes for m in members})
        self._forwarder.set_members(members)
        if went:  # a watch asks who it is for at its beginning alone
            self._end_watches("a member was removed: ask again")

    def status_changed(self) -> None:
        """Tell watchers of the status at once about a change outside the replicated state (leases)."""
        self._status.poke()

    async def run(self) -> None:
        """Listen on every own address; one that is missing on this machine is tried again quietly. Raises ``Refused``
        when the port is taken."""
        servers: dict[str, grpc.aio.Server] = {}
        try:
            while True:
                for address in self._config.me.addresses:
                    if address not in servers and is_here(address, self._config.me.api_port):
                        servers[address] = await self._listen(address)
                if servers:
                    self.listening.set()
                if len(servers) == len(self._config.me.addresses):
                    await asyncio.Event().wait()
                await asyncio.sleep(BIND_AGAIN)
        finally:
            self._end_watches("the server stops")
            await asyncio.gather(*(server.stop(STOP_GRACE) for server in servers.values()))
            await self._forwarder.close()

    async def _listen(self, address: str) -> grpc.aio.Server:
        # Credentials of its own for each: gRPC asks for the first certificate once, and tells one server of a renewal.
        credentials = server_credentials(self._config.ca, self._config.certificate, self._config.key)
        server = grpc.aio.server(options=list(SERVER_OPTIONS), maximum_concurrent_rpcs=CALLS)
        server.add_generic_rpc_handlers((self._router,))
        checks = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        for service in ("", *SERVICES):
            await checks.set(service, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        host = f"[{address}]" if ":" in address else address
        try:
            port = server.add_secure_port(f"{host}:{self._config.me.api_port}", credentials)
        except RuntimeError:
            raise Refused(f"API: cannot listen on {address} port {self._config.me.api_port}") from None
        await server.start()
        self.bound[address] = port
        return server

    # ------------------------------------------------------------ leading or not

    def leads(self) -> bool:
        """May this member answer from its own state? Only with evidence of a majority, and of its own term."""
        return self._engine.authority() is not None

    def _on_change(self) -> None:
        leads = self.leads()
        if self._led and not leads:
            self._end_watches("this server leads no longer: ask another")
        self._led = leads
        self._look_for_detour()
        self._forwarder.leader_changed()
        self._status.poke()

    def _end_watches(self, reason: str) -> None:
        self._hub.end_all(reason)
        self._status.end_all(reason)

    def _on_applied(self, index: int, changes: Sequence[Changed]) -> None:
        if not changes or any(change.ref.kind == "Node" for change in changes):
            self._look_for_detour()

    def _look_for_detour(self) -> None:
        """A node that lost an interface is recorded within milliseconds; the silence of a connection takes a second."""
        ends = (self._config.name, self._engine.status().leader or "")
        nodes = [self._machine.get(Ref("Node", "", name)) for name in ends]
        self._forwarder.take_detour(any(node is not None and node.node.status.networks for node in nodes))

    def _alone(self) -> bool:
        """Is there nobody to ask, so that this member tells the status that it knows?"""
        return self._forwarder.leaderless() or not self._is_member()

    def _is_member(self) -> bool:
        """Who leads is one, on the word of a majority; the others ask their engine, which costs more."""
        return self.leads() or self._engine.status().member

    def _check_member(self) -> None:
        """Raises ``Unavailable`` on a member that was removed: what it has grows old, and nobody may go by it."""
        if not self._is_member():
            raise Unavailable(f"{self._config.name} is no member of the cluster any more: ask another server")

    # ------------------------------------------------------------ one call

    def caller(self, context: Any) -> Caller:
        """Who calls. Raises ``Denied``."""
        subjects = context.auth_context().get("x509_subject")
        forwarded = None
        for key, value in context.invocation_metadata() or ():
            if key == FORWARDED:
                forwarded = value
        return self._auth.caller(subjects[0] if subjects else None, forwarded)

    def unary(self, method: Method) -> Callable[[Message, Any], Any]:
        """The handler of a unary RPC on the leader."""
        serve = method.serve
        assert serve is not None

        async def handle(request: Message, context: Any) -> Message:
            try:
                number = request_of(context.invocation_metadata())
                call = Call(self.caller(context), context.time_remaining(), request=number)
                if accepts_stale(request):
                    return await serve(request, call)
                if not self.leads():
                    raise Unavailable(no_leader(self._engine))
                if is_told_by_the_way(request):
                    return await serve(request, call)
                return await answer_confirmed(self._engine, serve(request, call), call)
            except HasysError as e:
                await context.abort(*to_status(e))
                raise AssertionError("unreachable") from None

        return handle

    def stream(self, method: Method) -> Callable[[Message, Any], Any]:
        """The handler of a streaming RPC on the leader."""
        stream = method.stream
        assert stream is not None

        async def handle(request: Message, context: Any) -> AsyncIterator[Message]:
            try:
                call = Call(self.caller(context), context.time_remaining())
                async for answer in stream(request, call):
                    yield answer
            except HasysError as e:
                await context.abort(*to_status(e))

        return handle

    def forward_unary(self, method: Method) -> Callable[[bytes, Any], Any]:
        """The handler of a unary RPC on a follower. What may be stale is answered here."""
        path, serve = method.path, method.serve
        assert serve is not None

        async def handle(request: bytes, context: Any) -> bytes:
            try:
                if path == STATUS_GET and self._alone():
                    call = Call(self.caller(context), context.time_remaining())
                    status = await self._status.get(api_pb2.StatusRequest.FromString(request), call)
                    return status.SerializeToString()
                self._check_member()
                if (stale := stale_request(method, request)) is not None:
                    found = await serve(stale, Call(self.caller(context), context.time_remaining()))
                    return found.SerializeToString()
                return await self._forwarder.unary(path, request, self.caller(context), context)
            except HasysError as e:
                await context.abort(*to_status(e))
                raise AssertionError("unreachable") from None

        return handle

    def forward_stream(self, path: str) -> Callable[[bytes, Any], Any]:
        """The handler of a streaming RPC on a follower."""

        async def handle(request: bytes, context: Any) -> AsyncIterator[bytes]:
            try:
                if path == STATUS_WATCH and self._alone():
                    self.caller(context)
                    async for answer in self._status.alone(api_pb2.StatusRequest.FromString(request)):
                        yield answer.SerializeToString()
                        if not self._alone():
                            raise Unavailable("there is a leader again: ask anew")
                self._check_member()
                async for item in self._forwarder.stream(path, request, self.caller(context), context):
                    yield item
            except HasysError as e:
                await context.abort(*to_status(e))

        return handle


def is_here(address: str, port: int) -> bool:
    """Does this machine have the address? Raises ``Refused`` when it has, but the port is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                raise Refused(
                    f"API: {address} port {port} is in use: stop the other process, or change the port"
                ) from None
            return False
    return True


class _Router(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Chooses per call: served here, or passed on without even parsing it."""

    def __init__(self, server: ApiServer, methods: Iterable[Method]) -> None:
        self._leads = server.leads
        self._here: dict[str, Any] = {}
        self._away: dict[str, Any] = {}
        for method in methods:
            parse, write = method.request.FromString, method.response.SerializeToString
            if method.stream is None:
                self._here[method.path] = grpc.unary_unary_rpc_method_handler(server.unary(method), parse, write)
                self._away[method.path] = grpc.unary_unary_rpc_method_handler(server.forward_unary(method))
            else:
                self._here[method.path] = grpc.unary_stream_rpc_method_handler(server.stream(method), parse, write)
                self._away[method.path] = grpc.unary_stream_rpc_method_handler(server.forward_stream(method.path))

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a path; None for one that is not ours."""
        return (self._here if self._leads() else self._away).get(handler_call_details.method)
