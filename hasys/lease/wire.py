"""Lease datagrams: keep-alives (guard to stores), grants and hints (store to guard).

Layout, big endian: magic ``HSL``, format 2, kind, length of the node's name, tag of the cluster id (8 bytes), sequence
number, nonce, name, JSON body, HMAC-SHA256 cut to 16 bytes over all before it. Everything that decides whether a
datagram is worth parsing stands in the fixed header; the body is parsed only after the HMAC was right.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from hasys.model.errors import Refused
from hasys.model.networks import Fault, Trouble

LARGEST = 60_000
"""Bytes; longer datagrams are refused before anything is read."""
MAC_LENGTH = 16
_HEADER = struct.Struct(">3sBBB8sQQ")
_MAGIC, _FORMAT = b"HSL", 2
_KEEPALIVE, _GRANT, _HINT = 1, 2, 3
_SMALLEST = _HEADER.size + 1 + MAC_LENGTH
_MOST_GROUPS = 2_000
_LONGEST_TEXT = 1_000
_MOST_NETWORKS = 32
_MICRO = 1_000_000

Named = tuple[str, int]
"""(group, epoch)"""


class DatagramRefused(Refused):
    """The only way a datagram fails. ``reason`` is one of a few words and is what gets counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"lease datagram refused: {reason}{': ' if detail else ''}{detail}")
        self.reason = reason


DISK_NOTE = "disk: "
"""How the note begins that a store leaves for its guard when it ended because its disk takes no writes."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a guard says about itself; for display and placement, never for authority."""

    armed: bool = True
    """The gate and what else fencing needs are in place."""
    watchdog: str = "none"
    lag: float = 0.0
    """Seconds by which the guard woke late, worst of the last minute."""
    agent: bool = False
    """The agent is connected."""
    version: str = ""
    message: str = ""
    """Why it is not armed, or why it last fenced."""
    networks: tuple[Trouble, ...] = ()
    """Interfaces that are not well, as the agent told."""
    disk_failed: bool = False
    """The store ended because its disk takes no writes; ``message`` has its words."""

    @property
    def watchdog_timeout(self) -> float:
        """Seconds of the armed watchdog, which is told as ``NAME 10s``; 0 for ``none``."""
        timeout = self.watchdog.rpartition(" ")[2]
        try:
            return max(0.0, float(timeout.removesuffix("s"))) if timeout.endswith("s") else 0.0
        except ValueError:
            return 0.0


UNKNOWN_HEALTH = Health(armed=False)
"""Of a guard that said nothing yet."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """ "I am here, this is what I hold, this is what I let go of." """

    cluster: str
    node: str
    boot: str
    """New for each start of the guard: orders ``seq``, and binds ``released`` to the guard that promised it."""
    seq: int
    """Grows by one with each keep-alive of this boot."""
    nonce: int
    """64 random bits; a grant that echoes them is counted from before this keep-alive was sent."""
    confirmed: tuple[int, int] | None
    """Newest grant received: (term, sequence number it echoed)."""
    confirmed_age: float | None
    """Seconds, on the guard's clock, since that grant arrived."""
    held: tuple[Named, ...] = ()
    """Named by a grant that had not ended when this was sent."""
    released: tuple[Named, ...] = ()
    """Floors: this guard never acts again for the group at this epoch or a lower one. Durable before it is said."""
    health: Health = UNKNOWN_HEALTH
    sworn: tuple[tuple[str, int, bool], ...] = ()
    """Held by an operator's oath, not by a grant (docs/decisions/0005): (group, epoch that no leader gave, whether it
    still renews itself because no leader has answered)."""
    bound: tuple[Named, ...] | None = None
    """Where tokens decide (``hasys.lease.tokens``): every group that this node may still act for, or may start again by
    itself, with its epoch. None: leases decide."""
    policy: str = ""
    """With ``bound``: the policy of two nodes that this guard follows; empty: safe."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Authority for the groups it names, until ``send time of the echoed keep-alive - age + ttl`` (guard's clock)."""

    cluster: str
    leader: str
    term: int
    node: str
    seq: int
    """Of the keep-alive it echoes."""
    nonce: int
    version: int
    """Index of the leader's applied state."""
    age: float
    """Seconds from ``t_q`` to the making of this grant, on the leader's clock."""
    ttl: float
    groups: tuple[tuple[str, int, int], ...] = ()
    """(group, epoch, version of its resources) that this node may act for."""
    withheld: tuple[Named, ...] = ()
    """Belong to this node, but may not be named now: what it holds of them stays until its own end."""
    probe: bool = False
    """Nothing is named because this node confirmed no grant for ``leader_fallback``: confirm this one at once."""
    keepalive: float = 0.0
    """Seconds between keep-alives that the leader's timing asks for; 0: as before."""
    fence_budget: float = 0.0
    """Seconds before the end at which the guard must begin to give up; 0: as before."""
    kept: tuple[Named, ...] = ()
    """Sworn groups that the leader takes over: from now on they live by its grants alone."""

    @property
    def epoch(self) -> int:
        """Epoch of the node's lease: the term of the leader that grants it."""
        return self.term


@dataclass(frozen=True, slots=True)
class Hint:
    """From a store that does not lead: who does, as far as it knows. Only makes the guard ask again sooner."""

    cluster: str
    node: str
    seq: int
    nonce: int
    leader: str
    """Empty: not known."""


Message = KeepAlive | Grant | Hint


def derive_key(cluster_secret: bytes, node: str) -> bytes:
    """The key of one node's datagrams, from the cluster's lease secret (32 bytes)."""
    return hmac.digest(cluster_secret, b"hasys lease key 1\0" + node.encode(), "sha256")


def parse_secret(content: bytes) -> bytes:
    """The content of lease.secret or node.secret: 64 hex digits. Raises :class:`hasys.model.errors.Refused`."""
    try:
        secret = bytes.fromhex(content.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise Refused("secret: expected 64 hexadecimal digits, as 'hasys init' writes them")
    return secret


@functools.lru_cache(maxsize=8)
def cluster_tag(cluster: str) -> bytes:
    """Eight bytes that tell clusters apart before any key is looked up."""
    return hashlib.sha256(cluster.encode()).digest()[:8]


def encode(message: Message, key: bytes) -> bytes:
    """The datagram. Raises :class:`DatagramRefused` (``too-long``) when it would exceed :data:`LARGEST`."""
    kind, body = _body(message)
    name = message.node.encode()
    header = _HEADER.pack(_MAGIC, _FORMAT, kind, len(name), cluster_tag(message.cluster), message.seq, message.nonce)
    signed = header + name + json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    if len(signed) + MAC_LENGTH > LARGEST:
        raise DatagramRefused("too-long", f"{len(signed) + MAC_LENGTH} bytes to send, at most {LARGEST}")
    return signed + _mac(key, signed)


def decode(datagram: bytes, cluster: str, key_of: Callable[[str], bytes | None]) -> Message:
    """The message, verified. ``key_of`` gives a node's key, or None for a node that is no member.

    Raises :class:`DatagramRefused` with reason ``too-long``, ``not-ours``, ``foreign-cluster``, ``unknown-node``,
    ``wrong-key`` or ``malformed``; nothing else, whatever the bytes are.
    """
    if len(datagram) > LARGEST:
        raise DatagramRefused("too-long", f"{len(datagram)} bytes, at most {LARGEST}")
    if len(datagram) < _SMALLEST or datagram[:4] != _MAGIC + bytes((_FORMAT,)):
        raise DatagramRefused("not-ours")
    _, _, kind, length, tag, seq, nonce = _HEADER.unpack_from(datagram)
    if tag != cluster_tag(cluster):
        raise DatagramRefused("foreign-cluster")
    end = _HEADER.size + length
    if length == 0 or end + MAC_LENGTH > len(datagram):
        raise DatagramRefused("malformed", "length of the name")
    try:
        node = datagram[_HEADER.size : end].decode()
    except UnicodeDecodeError:
        raise DatagramRefused("unknown-node") from None
    key = key_of(node)
    if key is None:
        raise DatagramRefused("unknown-node")
    if not hmac.compare_digest(_mac(key, datagram[:-MAC_LENGTH]), datagram[-MAC_LENGTH:]):
        raise DatagramRefused("wrong-key", node)
    try:
        body = json.loads(datagram[end:-MAC_LENGTH])
    except (ValueError, RecursionError):
        raise DatagramRefused("malformed", "body is no JSON") from None
    return _Body(cluster, node, seq, nonce, body).message(kind)


@functools.lru_cache(maxsize=256)
def _prepared(key: bytes) -> hmac.HMAC:
    """HMAC-SHA-256 (RFC 2104) that has taken the key in: to look the digest up anew is most of a cold one's cost."""
    return hmac.new(key, digestmod="sha256")


def _mac(key: bytes, signed: bytes) -> bytes:
    mac = _prepared(key).copy()
    mac.update(signed)
    return mac.digest()[:MAC_LENGTH]


def _body(m: Message) -> tuple[int, list[Any]]:
    if isinstance(m, KeepAlive):
        h = m.health
        confirmed = None if m.confirmed is None else [*m.confirmed, _up(m.confirmed_age or 0.0)]
        health: list[Any] = [h.armed, _plain(h.watchdog), _up(h.lag), h.agent, _plain(h.version), _plain(h.message)]
        if h.networks or h.disk_failed:  # left out else: stores of a version that does not know it understand the rest
            health.append([_told(t) for t in h.networks[:_MOST_NETWORKS]])
        if h.disk_failed:
            health.append(True)
        bound: list[Any] = [] if m.bound is None else [m.bound, m.policy] if m.policy else [m.bound]
        return _KEEPALIVE, [m.boot, confirmed, m.held, m.released, health, m.sworn, *bound]
    if isinstance(m, Grant):
        times = [_up(m.age), _down(m.ttl), _up(m.keepalive), _up(m.fence_budget)]
        return _GRANT, [m.leader, m.term, m.version, times, m.groups, m.withheld, m.probe, m.kept]
    return _HINT, [m.leader]


def _plain(text: str) -> str:
    """Free text as a receiver accepts it: one printable, bounded line."""
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_TEXT])


def _told(t: Trouble) -> list[Any]:
    return [_plain(t.interface), int(t.fault), _plain(t.text), t.unheard, t.gateway]


def _up(seconds: float) -> int:
    """Microseconds, rounded against the guard: an age, a delay."""
    return math.ceil(seconds * _MICRO)


def _down(seconds: float) -> int:
    """Microseconds, rounded against the guard: a life."""
    return math.floor(seconds * _MICRO)


class _Body:
    """Reads one JSON body strictly: exact lengths, exact types, bounded numbers."""

    def __init__(self, cluster: str, node: str, seq: int, nonce: int, body: object) -> None:
        self.cluster, self.node, self.seq, self.nonce, self.body = cluster, node, seq, nonce, body

    def message(self, kind: int) -> Message:
        if kind == _KEEPALIVE:
            return self.keepalive()
        if kind == _GRANT:
            return self.grant()
        if kind == _HINT:
            (leader,) = self.items(self.body, 1)
            return Hint(self.cluster, self.node, self.seq, self.nonce, self.text(leader))
        return self.refuse("kind")

    def keepalive(self) -> KeepAlive:
        more = max(0, min(2, len(self.body) - 6)) if isinstance(self.body, list) else 0
        boot, confirmed, held, released, health, sworn, *bound = self.items(self.body, 6 + more)
        term_seq: tuple[int, int] | None = None
        age: float | None = None
        if confirmed is not None:
            term, seq, micros = self.items(confirmed, 3)
            term_seq, age = (self.number(term), self.number(seq)), self.seconds(micros)
        networks: object = []
        disk_failed: object = False
        if isinstance(health, list) and len(health) == 8:
            *health, disk_failed = health
        if isinstance(health, list) and len(health) == 7:
            *health, networks = health
        armed, watchdog, lag, agent, version, message = self.items(health, 6)
        return KeepAlive(
            self.cluster, self.node, self.text(boot), self.seq, self.nonce, term_seq, age,
            self.named(held), self.named(released),
            Health(
                self.flag(armed), self.text(watchdog), self.seconds(lag), self.flag(agent), self.text(version),
                self.text(message), self.troubles(networks), self.flag(disk_failed),
            ),
            self.oaths(sworn), self.named(bound[0]) if bound else None,
            self.text(bound[1]) if len(bound) == 2 else "",
        )  # fmt: skip

    def grant(self) -> Grant:
        leader, term, version, times, groups, withheld, probe, kept = self.items(self.body, 8)
        age, ttl, keepalive, fence_budget = (self.seconds(t) for t in self.items(times, 4))
        named = []
        for entry in self.many(groups):
            group, epoch, resources = self.items(entry, 3)
            named.append((self.text(group), self.number(epoch), self.number(resources)))
        return Grant(
            self.cluster, self.text(leader), self.number(term), self.node, self.seq, self.nonce, self.number(version),
            age, ttl, tuple(named), self.named(withheld), self.flag(probe), keepalive, fence_budget, self.named(kept),
        )  # fmt: skip

    def refuse(self, what: str) -> NoReturn:
        raise DatagramRefused("malformed", what)

    def items(self, value: object, count: int) -> list[Any]:
        if not isinstance(value, list) or len(value) != count:
            self.refuse(f"expected {count} values")
        return value

    def many(self, value: object) -> list[Any]:
        if not isinstance(value, list) or len(value) > _MOST_GROUPS:
            self.refuse("expected a list of groups")
        return value

    def named(self, value: object) -> tuple[Named, ...]:
        pairs = []
        for entry in self.many(value):
            group, epoch = self.items(entry, 2)
            pairs.append((self.text(group), self.number(epoch)))
        return tuple(pairs)

    def oaths(self, value: object) -> tuple[tuple[str, int, bool], ...]:
        found = []
        for entry in self.many(value):
            group, epoch, free = self.items(entry, 3)
            found.append((self.text(group), self.number(epoch), self.flag(free)))
        return tuple(found)

    def troubles(self, value: object) -> tuple[Trouble, ...]:
        found = []
        for entry in self.many(value):
            interface, fault, text, unheard, gateway = self.items(entry, 5)
            if type(fault) is not int or fault not in tuple(Fault):
                self.refuse("expected a fault")
            names = tuple(self.text(name) for name in self.many(unheard))
            found.append(Trouble(self.text(interface), Fault(fault), self.text(text), names, self.flag(gateway)))
        return tuple(found)

    def text(self, value: object) -> str:
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not value.isprintable():
            self.refuse("expected a short printable text")
        return value

    def number(self, value: object) -> int:
        if type(value) is not int or not 0 <= value < 1 << 64:
            self.refuse("expected a number")
        return value

    def seconds(self, value: object) -> float:
        return self.number(value) / _MICRO

    def flag(self, value: object) -> bool:
        if not isinstance(value, bool):
            self.refuse("expected true or false")
        return value
