"""The lease service of a store: keep-alives in, grants out, by datagrams on every network of this member.

All rules are in :class:`hasys.lease.granting.Granter`; here are sockets, timers and callbacks. Everything runs in the
event loop that runs the engine, and on its clock (``loop.time()`` is CLOCK_MONOTONIC).

A store that does not lead passes keep-alives on to the leader, and grants back: a guard that is cut from the leader
alone keeps its lease. Nothing trusts the store between: both ends verify, and a grant is counted from the sending of
the keep-alive that it echoes, however long the way was.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hasys.config import ARBITER, Member, NodeConfig
from hasys.lease.arbiter import LIFE, ArbiterGranter
from hasys.lease.assignments import Assignments
from hasys.lease.facts import NodeFacts
from hasys.lease.granting import Granter
from hasys.lease.tokens import TokenGranter
from hasys.lease.wire import (
    LARGEST,
    DatagramRefused,
    Grant,
    Hint,
    KeepAlive,
    decode,
    derive_key,
    encode,
    parse_secret,
)
from hasys.model.timing import Timing
from hasys.store.port import Engine

log = logging.getLogger(__name__)

BIND_RETRY = 1.0
"""Seconds between attempts to bind an address that is not there yet."""
_BATCH = 64
"""Refused datagrams read per wake-up and socket: a flood is read fast, and nothing else starves."""
ROOM = 2 * 1024 * 1024
"""Bytes of unread datagrams that the kernel keeps per socket: a burst of garbage does not push keep-alives out."""
_RCVBUFFORCE = 33  # SO_RCVBUFFORCE, socket(7)
_FREEBIND = 15  # IP_FREEBIND, ip(7): an address may be bound before its interface is up

Route = tuple[socket.socket, tuple[Any, ...]]
"""(own socket, the guard's address as recvfrom gave it)"""
_GRANTERS: Mapping[str, type[Granter]] = {"": Granter, ARBITER: ArbiterGranter}
"""By policy; the others hold by tokens alone."""


@dataclass(slots=True)
class _Peer:
    """One node's guard, as datagrams know it."""

    member: Member
    key: bytes
    datagram: bytes = b""
    """Last verified keep-alive; the same bytes again are its copy from another network."""
    before: bytes = b""
    """The one before: its copy may come late, and needs no answer any more."""
    answer: bytes = b""
    routes: dict[int, Route] = field(default_factory=dict)
    """Own socket's number -> where the last keep-alive came from."""
    relay: Route | None = None
    """The store that passed the last keep-alive on; None: it came directly."""


class LeaseServer:
    """Answers the guards while this store leads; hints at the leader otherwise.

    ``assignments`` gives the applied state's part in grants: the same object while nothing changed in it.
    """

    def __init__(
        self,
        config: NodeConfig,
        engine: Engine,
        assignments: Callable[[], Assignments],
        timing: Timing,
        ttl_max: float = 0.0,
    ) -> None:
        secret = parse_secret(config.lease_secret.read_bytes())
        self.config = config
        self.refused: Counter[str] = Counter()
        """Datagrams that were refused, by reason."""
        granter = _GRANTERS.get(config.policy, TokenGranter)
        self.granter = granter(
            config.cluster_id, config.name, [m.name for m in config.members if m.runs_groups], timing, ttl_max
        )
        self.granter.seed_ttl = config.seed_timing().ttl
        if isinstance(self.granter, TokenGranter):
            self.granter.policy = config.policy
        if isinstance(self.granter, ArbiterGranter):
            self.granter.longest = LIFE * config.seed_timing().ttl
        self._engine = engine
        self._assignments = assignments
        self._seen: Assignments | None = None
        self._secret = secret
        self._peers: dict[str, _Peer] = {}
        self._stores: frozenset[tuple[str, int]] = frozenset()
        self._members: dict[str, Member] = {}
        self.set_members(config.members)
        self._sockets: dict[str, socket.socket] = {}
        """By own address."""
        self._callbacks: list[Callable[[], None]] = []
        self._silent: frozenset[str] = frozenset()
        self._push_timer: asyncio.TimerHandle | None = None
        self._silence_timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        engine.on_change(self._authority_changed)
        engine.on_applied(lambda _: self.look())

    # ------------------------------------------------------------------ for controllers and status

    def facts(self, now: float) -> Mapping[str, NodeFacts]:
        """What the leader knows of each node's guard; meaningful while this store leads."""
        return self.granter.facts(now)

    def may_hold(self, group: str, now: float) -> frozenset[str]:
        """Nodes that may still hold the group by any grant."""
        return self.granter.may_hold(group, now)

    def settled(self, now: float) -> bool:
        """Grants of another TTL than the present one are over: ``ttl_max`` may be lowered to it."""
        return self.granter.settled(now)

    def handed(self) -> list[tuple[str, str, int, float]]:
        """Group, node, epoch and time of every grant since the last call that named a group for a new holder."""
        found = list(self.granter.handed)
        self.granter.handed.clear()
        return found

    def retime(self, timing: Timing, ttl_max: float) -> None:
        """Use other timings from the next grant on."""
        self.granter.retime(timing, ttl_max)
        if self._loop is not None:
            self._watch_silence()

    def set_members(self, members: Iterable[Member]) -> None:
        """Serve the guards of these nodes from now on, and no others; pass on to these stores."""
        self._members = {m.name: m for m in members}
        self._stores = frozenset((a, m.lease_port) for m in self._members.values() if m.votes for a in m.addresses)
        for name in [n for n, p in self._peers.items() if self._members.get(n) != p.member]:
            del self._peers[name]
        for member in self._members.values():
            if member.runs_groups and member.name not in self._peers:
                self._peers[member.name] = _Peer(member, derive_key(self._secret, member.name))
                self.granter.add_member(member.name)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back at once when facts change materially: a guard is new, back, or silent beyond suspicion; it
        released or holds other groups; its health changed; this store began or ceased to lead."""
        self._callbacks.append(callback)

    def look(self) -> None:
        """Push what the assignments now allow or revoke. Cheap when they are the same object as before."""
        assignments = self._assignments()
        if assignments is not self._seen:
            self._seen = assignments
            self._push()

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Serve until cancelled."""
        self._loop = asyncio.get_running_loop()
        waiting = list(self.config.me.addresses)
        said: set[str] = set()
        self._authority_changed()
        try:
            while True:
                waiting = [a for a in waiting if not self._bound(a, said)]
                if not waiting:
                    await asyncio.Event().wait()
                await asyncio.sleep(BIND_RETRY)
        finally:
            self._close()

    def _bound(self, address: str, said: set[str]) -> bool:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_IP, _FREEBIND, 1)
            _roomy(sock)
            sock.bind((address, self.config.me.lease_port))
        except OSError as e:
            sock.close()
            if address not in said:
                said.add(address)
                log.warning("leases: cannot use %s yet: %s; trying again", address, e.strerror)
            return False
        assert self._loop is not None
        self._sockets[address] = sock
        self._loop.add_reader(sock, self._readable, sock)
        return True

    def _close(self) -> None:
        assert self._loop is not None
        for timer in (self._push_timer, self._silence_timer):
            if timer is not None:
                timer.cancel()
        for sock in self._sockets.values():
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
        for peer in self._peers.values():
            peer.routes.clear()

    def _now(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    # ------------------------------------------------------------------ datagrams

    def _readable(self, sock: socket.socket) -> None:
        """One datagram that is good for something; the event loop calls again while there are more."""
        for _ in range(_BATCH):
            try:
                datagram, source = sock.recvfrom(LARGEST + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:  # an ICMP error of an earlier answer
                self._refuse(f"socket: {e.strerror}")
                return
            try:
                self._received(datagram, (sock, source), source[0])
                return
            except DatagramRefused as e:
                self._refuse(e.reason)

    def _received(self, datagram: bytes, route: Route, address: str) -> None:
        for peer in self._peers.values():
            if datagram and peer.datagram == datagram:
                self._copy(peer, route, address)
                return
            if datagram and peer.before == datagram:
                return
        message = decode(datagram, self.config.cluster_id, self._key)
        peer = self._peers[message.node]
        if not isinstance(message, KeepAlive) and route[1][:2] in self._stores:
            if isinstance(message, Grant):
                for back in peer.routes.values():
                    self._send(back, datagram)
            return
        if not isinstance(message, KeepAlive):
            raise DatagramRefused("not-a-keepalive")
        assignments = self._assignments()
        grant = self.granter.heard(message, self._now(), self._engine.authority(), assignments)
        peer.before, peer.datagram = peer.datagram, datagram
        self._silent -= {message.node}
        if address in peer.member.addresses:
            peer.routes[route[0].fileno()] = route
            peer.relay = None
        elif route[1][:2] in self._stores:
            peer.relay = route
        if grant is None:
            hint = self._hint(message)
            self._answer(peer, route, encode(hint, peer.key))
            if address in peer.member.addresses:
                self._pass_on(datagram, message.node, hint.leader)
            return
        self._answer(peer, route, encode(grant, peer.key))
        if grant.withheld and not grant.probe:
            self._arm_push(assignments)
        if self.granter.take_news():
            self._push()
            self._tell()

    def _copy(self, peer: _Peer, route: Route, address: str) -> None:
        """The same keep-alive from the other network: the same answer goes back that way too."""
        if address in peer.member.addresses and peer.routes.get(route[0].fileno()) != route:
            peer.routes[route[0].fileno()] = route
        elif address not in peer.member.addresses and route[1][:2] not in self._stores:
            raise DatagramRefused("replayed")
        if peer.answer:
            self._send(route, peer.answer)

    def _pass_on(self, datagram: bytes, node: str, leader: str) -> None:
        """To the leader, on each network. Not for the own node: its guard reaches what this store reaches; and only
        what came from the guard itself, so that no two stores pass it to and fro."""
        if leader in ("", self.config.name, node) or node == self.config.name:
            return
        to = self._members.get(leader)
        if to is None:
            return
        for own, theirs in zip(self.config.me.addresses, to.addresses, strict=False):
            if own in self._sockets:
                self._send((self._sockets[own], (theirs, to.lease_port)), datagram)

    def _answer(self, peer: _Peer, route: Route, answer: bytes) -> None:
        peer.answer = answer
        self._send(route, answer)

    def _send(self, route: Route, datagram: bytes) -> None:
        sock, address = route
        try:
            sock.sendto(datagram, address)
        except OSError as e:  # no route, buffer full: the next keep-alive asks again
            self.refused[f"unsent: {e.strerror}"] += 1

    def _hint(self, message: KeepAlive) -> Hint:
        leader = self._engine.status().leader or ""
        return Hint(message.cluster, message.node, message.seq, message.nonce, leader)

    def _key(self, node: str) -> bytes | None:
        peer = self._peers.get(node)
        return None if peer is None else peer.key

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1
        if self.refused[reason] == 1:
            log.warning("leases: refused a datagram: %s (counted, said once)", reason)

    # ------------------------------------------------------------------ pushes and callbacks

    def _push(self) -> None:
        """Send the grants that became possible, or that revoke; arm the timer for the next ones."""
        if self._loop is None:
            return
        assignments = self._assignments()
        for grant in self.granter.due(self._now(), self._engine.authority(), assignments):
            if grant.node in self._peers:  # else it was removed from the cluster
                self._push_one(self._peers[grant.node], grant)
        self._arm_push(assignments)

    def _push_one(self, peer: _Peer, grant: Grant) -> None:
        peer.answer = encode(grant, peer.key)
        for route in (*peer.routes.values(), *([peer.relay] if peer.relay else [])):
            self._send(route, peer.answer)

    def _arm_push(self, assignments: Assignments) -> None:
        assert self._loop is not None
        now = self._now()
        due = self.granter.next_due(now, assignments)
        if self._push_timer is not None:
            if due is not None and not self._push_timer.cancelled() and now < self._push_timer.when() <= due:
                return
            self._push_timer.cancel()
            self._push_timer = None
        if due is not None:
            self._push_timer = self._loop.call_at(due, self._push)

    def _authority_changed(self) -> None:
        if self._loop is None:
            return
        for peer in self._peers.values():
            peer.answer = b""
        if self._engine.authority() is None:
            self.granter.step_down()
        else:
            self._push()
            self._watch_silence()
        self.granter.take_news()
        self._tell()

    def _watch_silence(self) -> None:
        """Notice at once when a guard has been silent beyond suspicion."""
        assert self._loop is not None
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None
        if self._engine.authority() is None:
            return
        suspicion = self.granter.patience.suspicion
        quiet = {name: f.silent_for for name, f in self.facts(self._now()).items()}
        silent = frozenset(name for name, s in quiet.items() if s >= suspicion)
        newly, self._silent = silent - self._silent, silent
        wait = min((suspicion - s for name, s in quiet.items() if name not in silent), default=suspicion)
        self._silence_timer = self._loop.call_later(max(wait, 0.001), self._watch_silence)
        if newly:
            self._tell()

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback()


def _roomy(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, ROOM)
    except PermissionError:  # without root: as much as the system allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
