"""Messages between voters over every network they share: mutual TLS, bounded, no path better than another.

A message goes over the network on which its receiver was heard last; the core asks for all networks when an answer is
missing. So the loss of one network costs one heartbeat period, and its return costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from hasys.config import Member, NodeConfig
from hasys.model import level
from hasys.model.errors import HasysError
from hasys.store.raft.foundation import Outgoing
from hasys.store.raft.links import (
    PROTOCOL,
    BadPeer,
    NoMember,
    Receiver,
    ReceiverOwner,
    Sender,
    TlsContexts,
    frame,
)
from hasys.v1 import raft_pb2 as pb

log = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_LAST = 0.05, 1.0
CONNECT_TIMEOUT = 3.0
"""With the handshake; a busy machine takes its time."""
HANDSHAKE_TIMEOUT = 5.0
GREETING_TIMEOUT = 5.0
"""Who showed a certificate greets within this time: connections that say nothing do not pile up."""
MAX_HANDSHAKES = 64
"""Connections that have not shown a certificate yet; more are closed at once."""
STEADY = 2.0
"""A connection that lasted so long is followed by the first back-off again."""
REFUSAL_LINES = 1.0
"""At most one line in the log in this time; the count is complete."""
SILENT = 1.5
"""A path on which we sent, and whose peer is heard elsewhere or nowhere for so long, is dialled anew."""
WATCH_PERIOD = 0.5
SETTLED = 2.0
"""A network counts as lost, or as back, when that has been so for as long: a restart is no news."""
IP_FREEBIND, IPV6_FREEBIND = 15, 78
"""Linux: listen on an address before the interface has it."""


class CannotListen(HasysError):
    """An own address or port is taken or unusable; the text names it."""


@dataclass(slots=True)
class Path:
    """The way to one peer over one network."""

    address: str
    port: int
    sender: Sender | None = None
    sent: float = 0.0
    """When something was sent first that no message from there has followed; 0: nothing."""
    heard: float = float("-inf")
    open: bool = False
    changed: float = 0.0
    """When ``open`` changed last, or dialling began."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """The peer has just been heard there: dial without waiting."""
    trouble: str = ""
    """Why it cannot be dialled, as last said in the log."""


@dataclass(slots=True)
class Peer:
    """Another member."""

    name: str
    paths: list[Path]
    member: Member
    dialling: list[asyncio.Task[None]] = field(default_factory=list)
    receivers: set[Receiver] = field(default_factory=set)
    process: int = 0
    """Its process, as it said when it greeted last."""
    level: int = 0
    """What it understands, as it said then; 0: not known."""

    @property
    def reachable(self) -> bool:
        return any(p.open for p in self.paths)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the transport tells its owner, in the event loop."""

    message: Callable[[str, pb.Message, int], None]
    connected: Callable[[str], None]
    disconnected: Callable[[str], None]
    closed: Callable[[str], None]
    """Every connection from that member was closed by its end."""
    failed: Callable[[BaseException], None]
    networks: Callable[[], None] = lambda: None
    """What :meth:`Transport.cut` says has changed."""
    log_state: Callable[[], tuple[int, bool]] = lambda: (0, True)
    """History of our log, and whether it is empty."""
    named: Callable[[], bool] = lambda: False
    """Does our log name the members?"""


class Transport(ReceiverOwner):
    """Listens on every own address, dials every other voter on every address."""

    def __init__(self, config: NodeConfig, contexts: TlsContexts, callbacks: Callbacks) -> None:
        self._config = config
        self._call = callbacks
        self._tls = contexts
        self._members: set[str] = set()
        """Addresses of members: their connections are not kept out by strangers'."""
        self.peers: dict[str, Peer] = {}
        self._listening = False
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._handshakes: Counter[str] = Counter()
        self._process = secrets.randbits(64)
        self._stopping = False
        self._last_line = float("-inf")
        self.unwanted_by: frozenset[str] = frozenset()
        """Who says that this one is no member."""
        self.refusals = 0
        """Connections closed because they were not from a member, or sent no frames."""

    # ------------------------------------------------------------ life
    async def start(self) -> None:
        """Listen and begin to dial. Raises :class:`CannotListen`."""
        for address in self._config.me.addresses:
            self._servers.append(await self._listen(address))
        self._listening = True
        for peer in self.peers.values():
            self._begin(peer)
        self._spawn(self._watch())

    async def stop(self) -> None:
        self._stopping = True
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers.values():
            for receiver in list(peer.receivers):
                receiver.abort()
            for path in peer.paths:
                if path.sender is not None:
                    path.sender.abort()
        await asyncio.sleep(0)  # let the aborted connections report their end

    def set_members(self, members: Iterable[Member]) -> None:
        """Dial and listen to these from now on, and to nobody else."""
        wanted = {m.name: m for m in members if m.name != self._config.name}
        self._members = {address for m in wanted.values() for address in m.addresses} | set(self._config.me.addresses)
        for name, peer in list(self.peers.items()):
            if wanted.get(name) != peer.member:
                self._forget(peer)
        for name, member in wanted.items():
            if name not in self.peers:
                self.peers[name] = _peer(member)
                if self._listening:
                    self._begin(self.peers[name])

    def _begin(self, peer: Peer) -> None:
        for network, path in enumerate(peer.paths):
            path.changed = asyncio.get_running_loop().time()
            peer.dialling.append(self._spawn(self._keep_dialling(peer, network, path)))

    def _forget(self, peer: Peer) -> None:
        was = peer.reachable
        self.unwanted_by -= {peer.name}
        del self.peers[peer.name]
        for task in peer.dialling:
            task.cancel()
        for path in peer.paths:
            path.open = False
            if path.sender is not None:
                path.sender.abort()
        for receiver in list(peer.receivers):
            receiver.abort()
        if was:
            self._call.disconnected(peer.name)

    def _spawn(self, job: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._call.failed(error)

    # ------------------------------------------------------------ accepting
    async def _listen(self, address: str) -> asyncio.Server:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            level, option = (
                (socket.IPPROTO_IPV6, IPV6_FREEBIND) if family == socket.AF_INET6 else (socket.IPPROTO_IP, IP_FREEBIND)
            )
            sock.setsockopt(level, option, 1)
            sock.bind((address, self._config.me.raft_port))
            return await asyncio.get_running_loop().create_server(lambda: _Accepted(self), sock=sock, backlog=64)
        except OSError as e:
            sock.close()
            raise CannotListen(f"{address} port {self._config.me.raft_port}: {e.strerror}: cannot listen there") from e

    def accepted(self, transport: asyncio.Transport) -> None:
        """A connection without TLS yet. Strangers share one bound, so that they cannot keep members out."""
        source = (transport.get_extra_info("peername") or ("?",))[0]
        strangers = sum(n for address, n in self._handshakes.items() if address not in self._members)
        full = self._handshakes[source] if source in self._members else strangers
        if full >= MAX_HANDSHAKES or self._stopping:
            self.refused(transport, BadPeer("too many connections at once"))
            transport.abort()
            return
        self._handshakes[source] += 1
        self._spawn(self._shake_hands(transport, source))

    async def _shake_hands(self, transport: asyncio.Transport, source: str) -> None:
        receiver = Receiver(self)
        self._tls.look()
        try:
            encrypted = await asyncio.get_running_loop().start_tls(
                transport, receiver, self._tls.server, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
            )
        except (OSError, ConnectionError) as e:
            self.refused(transport, e)
            transport.abort()
            return
        finally:
            self._handshakes[source] -= 1
            self._handshakes += Counter()  # forget sources without one
        if encrypted is not None:
            receiver.connection_made(encrypted)
            asyncio.get_running_loop().call_later(GREETING_TIMEOUT, receiver.must_have_greeted)

    def check_member(self, name: str) -> None:
        if name not in self.peers:
            raise (NoMember if self._call.named() else BadPeer)(f"{name} is no other member of the store")

    def greeted(self, receiver: Receiver, hello: pb.Hello) -> int:
        if hello.protocol != PROTOCOL:
            raise BadPeer(f"{receiver.name} speaks protocol {hello.protocol}, this is {PROTOCOL}")
        if hello.cluster_id != self._config.cluster_id or hello.name != receiver.name:
            raise BadPeer(f"{receiver.name} greets as {hello.name} of cluster {hello.cluster_id}")
        self.check_member(receiver.name)
        self._check_history(hello)
        peer = self.peers[receiver.name]
        network = min(hello.network, len(peer.paths) - 1)
        earlier = [r for r in peer.receivers if r.network == network]
        peer.receivers.add(receiver)
        peer.level = level.common([hello.level])
        self._note_restart(peer, hello.process)
        if not peer.paths[network].open:
            peer.paths[network].hurry.set()
        for old in earlier:  # its other end is gone, even if that was never said
            old.abort()
        return network

    def _check_history(self, hello: pb.Hello) -> None:
        """Two logs of different histories would overwrite each other."""
        history, blank = self._call.log_state()
        if not blank and not hello.blank and history != hello.history:
            raise BadPeer(
                f"{hello.name} and this member have logs of different histories: one of them is from before a restore;"
                " stop it and remove its data folder"
            )

    def _note_restart(self, peer: Peer, process: int) -> None:
        """What we dialled to the process before leads nowhere, and without data to send we would not notice."""
        earlier, peer.process = peer.process, process
        if earlier not in (0, process):
            for path in peer.paths:
                path.hurry.set()
                if path.open and path.sender is not None:
                    path.sender.abort()

    def message(self, peer: str, message: pb.Message, network: int) -> None:
        known = self.peers.get(peer)
        if known is None:
            return
        path = known.paths[min(network, len(known.paths) - 1)]
        path.heard = asyncio.get_running_loop().time()
        path.sent = 0.0
        self._call.message(peer, message, network)

    def gone(self, receiver: Receiver) -> None:
        peer = self.peers.get(receiver.name)
        if peer is None or receiver not in peer.receivers:
            return
        peer.receivers.discard(receiver)
        if not peer.receivers:
            peer.level = 0
        if not peer.receivers and not self._stopping:
            self._call.closed(peer.name)

    def refused(self, transport: asyncio.BaseTransport | None, why: Exception) -> None:
        self.refusals += 1
        now = asyncio.get_running_loop().time()
        if now - self._last_line < REFUSAL_LINES:
            return
        self._last_line = now
        where = transport.get_extra_info("peername") if transport is not None else None
        log.warning("connection from %s refused: %s (%d so far)", where[0] if where else "?", why, self.refusals)

    # ------------------------------------------------------------ dialling
    async def _keep_dialling(self, peer: Peer, network: int, path: Path) -> None:
        pause = BACKOFF_FIRST
        while True:
            path.hurry.clear()
            sender = Sender(peer.name, self._hello(network), lambda: self._opened(peer, path))
            begun = asyncio.get_running_loop().time()
            why = await sender.closed if await self._dial(path, sender) else None
            if isinstance(why, NoMember):
                self._unwanted(peer, why)
            self._closed(peer, path)
            if isinstance(why, NoMember):
                await path.hurry.wait()  # who takes us for a member again dials us
                self.unwanted_by -= {peer.name}
                pause = BACKOFF_FIRST
                continue
            if asyncio.get_running_loop().time() - begun > STEADY or path.hurry.is_set():
                pause = BACKOFF_FIRST
                path.hurry.clear()
            if isinstance(why, BadPeer):
                log.warning("%s: %s", peer.name, why)
                pause = BACKOFF_LAST
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await path.hurry.wait()
            pause = min(2 * pause, BACKOFF_LAST)

    def _unwanted(self, peer: Peer, why: NoMember) -> None:
        if peer.name not in self.unwanted_by:
            self.unwanted_by |= {peer.name}
            log.warning("%s: stop hasys here and remove its folder, or add it again", why)

    def _hello(self, network: int) -> pb.Hello:
        history, blank = self._call.log_state()
        return pb.Hello(
            cluster_id=self._config.cluster_id,
            name=self._config.name,
            network=network,
            protocol=PROTOCOL,
            process=self._process,
            history=history,
            blank=blank,
            level=level.LEVEL,
        )

    async def _dial(self, path: Path, sender: Sender) -> bool:
        loop = asyncio.get_running_loop()
        try:
            path.sender = sender
            self._tls.look()
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await loop.create_connection(
                    lambda: sender, path.address, path.port, ssl=self._tls.client, server_hostname=""
                )
        except (OSError, TimeoutError) as e:
            self._note_trouble(path, e)
            sender.abort()
            return False
        return True

    def _note_trouble(self, path: Path, error: Exception) -> None:
        """Say why a peer cannot be reached, once per reason."""
        trouble = str(error) or "no answer"
        if trouble != path.trouble:
            path.trouble = trouble
            level = logging.WARNING if isinstance(error, ssl.SSLError) else logging.INFO
            log.log(level, "cannot reach %s port %d: %s", path.address, path.port, trouble)

    def _opened(self, peer: Peer, path: Path) -> None:
        was = peer.reachable
        path.open = True
        path.changed = asyncio.get_running_loop().time()
        path.trouble = ""
        path.sent = 0.0
        if not was:
            self._call.connected(peer.name)

    def _closed(self, peer: Peer, path: Path) -> None:
        was, path.open = path.open, False
        if was:
            path.changed = asyncio.get_running_loop().time()
        if was and not peer.reachable and not self._stopping and self.peers.get(peer.name) is peer:
            self._call.disconnected(peer.name)

    # ------------------------------------------------------------ sending
    def send(self, out: Outgoing) -> None:
        """Hand a message to the best path, or to all; what cannot be sent is dropped.

        Silence after one that asks for no answer says nothing about the path."""
        peer = self.peers.get(out.peer)
        if peer is None:
            return
        data = frame(out.message)
        now = asyncio.get_running_loop().time()
        for path in self._choose(peer, out):
            sent = path.sender is not None and path.sender.send(data, bulk=out.bulk)
            if sent and not path.sent and not out.message.heartbeat.quiet:
                path.sent = now

    def _choose(self, peer: Peer, out: Outgoing) -> list[Path]:
        usable = [p for p in peer.paths if p.open]
        if out.everywhere or len(usable) <= 1:
            return usable
        if out.network is not None and out.network < len(peer.paths) and peer.paths[out.network].open:
            return [peer.paths[out.network]]
        return [max(usable, key=lambda p: p.heard)]

    def cut(self) -> dict[str, tuple[str, ...]]:
        """For each peer that is reached: its addresses that are not; a peer whose paths have just changed is left out.
        Ourselves: the addresses on whose network nobody is reached."""
        now = asyncio.get_running_loop().time()
        settled = [
            peer
            for peer in self.peers.values()
            if peer.reachable and all(now - p.changed >= SETTLED for p in peer.paths)
        ]
        found = {peer.name: tuple(p.address for p in peer.paths if not p.open) for peer in settled}
        if settled:
            used = {network for peer in settled for network, p in enumerate(peer.paths) if p.open}
            shared = {network for peer in settled for network in range(len(peer.paths))}
            own = self._config.me.addresses
            found[self._config.name] = tuple(a for n, a in enumerate(own) if n in shared - used)
        return found

    def levels(self) -> dict[str, int]:
        """What each member that is heard understands, and this one."""
        told = {peer.name: peer.level for peer in self.peers.values() if peer.level}
        return {**told, self._config.name: level.LEVEL}

    async def _watch(self) -> None:
        """Dial anew where we send and hear nothing: after a cut the old connection would come back only slowly."""
        told: dict[str, tuple[str, ...]] = {}
        while True:
            await asyncio.sleep(WATCH_PERIOD)
            if (cut := self.cut()) != told:
                told = cut
                self._call.networks()
            now = asyncio.get_running_loop().time()
            for peer in self.peers.values():
                for path in peer.paths:
                    if path.open and path.sent and now - path.sent > SILENT and path.sender is not None:
                        path.sender.abort()


class _Accepted(asyncio.Protocol):
    """A connection before TLS: reads nothing itself."""

    def __init__(self, owner: Transport) -> None:
        self._owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        self._owner.accepted(transport)


def _peer(member: Member) -> Peer:
    return Peer(member.name, [Path(address, member.raft_port) for address in member.addresses], member)
