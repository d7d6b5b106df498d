"""A guard without a kernel: virtual time, a gate and a machine made of sets, and a leader that grants by hand."""

from __future__ import annotations

import errno
import heapq
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from hasys.config import Watchdog
from hasys.guard.arbiter import Port
from hasys.guard.core import Guard
from hasys.guard.gate import Gate, GateCounts, GateFailed
from hasys.guard.loop import Loop
from hasys.guard.netlink import Link
from hasys.guard.notes import Notebook
from hasys.guard.parts import Parts
from hasys.guard.plan import Agent, Book
from hasys.guard.protocol import MountEntry, StoreAt
from hasys.guard.tokens import Disk
from hasys.guard.watchdog import WatchdogKeeper
from hasys.lease.arbiter import ArbiterKeeper
from hasys.lease.keeping import Keeper, KeeperState, Planned
from hasys.lease.tokens import TokenKeeper
from hasys.lease.wire import Grant, KeepAlive, decode, encode
from hasys.model.timing import PROFILES

KEY = bytes(32)
TIMING = PROFILES["default"]


class VirtualLoop(Loop):
    """Timers only, run by :meth:`advance`."""

    def __init__(self) -> None:
        self.time = 100.0
        super().__init__(lambda: self.time)
        self._epoll.close()

    def advance(self, seconds: float) -> None:
        """Let so much time pass, timer by timer."""
        end = self.time + seconds
        while self._timers and self._timers[0].when <= end:
            timer = heapq.heappop(self._timers)
            self.time = max(self.time, timer.when)
            if timer.call is not None:
                timer.call()
        self.time = end


class FakeGate(Gate):
    """Remembers what is held and until when; fails when told to."""

    def __init__(self) -> None:
        self.table = "fake"
        self.counts = GateCounts()
        self.gated = frozenset()
        self.held = {}
        self.named = self.others = frozenset()
        self.until: dict[str, float] = {}
        self.fails: GateFailed | None = None
        """Raised by the next hold, or returned by the next extend."""
        self.broken = False
        self.unchanged = True
        self._installed = ""

    def install(
        self, named: Collection[str], others: Collection[str], gated: Collection[str], *, anew: bool = False
    ) -> None:
        if self.broken:
            raise GateFailed("gate: no memory")
        self.named, self.others, self.gated = frozenset(named), frozenset(others), frozenset(gated)
        self._installed = "yes"

    def intact(self) -> bool:
        return self.unchanged

    def repair(self, named: Collection[str], others: Collection[str], noticed: float) -> None:
        if self.broken:
            self.held = {}
        self.install(named, others, self.gated)
        self.counts.reinstalled += 1
        self.unchanged = True

    def hold(self, group: str, addresses: Collection[str], until: float) -> None:
        self._fail()
        assert frozenset(addresses) <= self.gated
        self.held[group], self.until[group] = frozenset(addresses), until

    def extend(self, until: Mapping[str, float]) -> dict[str, GateFailed]:
        wanted = {g: t for g, t in until.items() if g in self.held}
        try:
            self._fail()
        except GateFailed as e:
            return dict.fromkeys(wanted, e)
        self.until.update(wanted)
        return {}

    def drop(self, groups: Collection[str]) -> None:
        for group in groups:
            self.held.pop(group, None)

    def mute(self, addresses: Iterable[str], groups: Iterable[str] = ()) -> None:
        muted = frozenset(addresses)
        self.held = {g: live - muted for g, live in self.held.items()}

    def _fail(self) -> None:
        fails, self.fails = self.fails, None
        if fails is not None:
            raise fails


class FakeMachine:
    """What is on interfaces and in cgroups, and what was killed."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        """Addresses on an interface, populated cgroups and mount points."""
        self.immortal: set[str] = set()
        self.agent = True
        self.agents_killed = 0

    def kill_agent(self, agent: Agent) -> None:
        self.agents_killed += 1
        self.agent = False

    def agent_alive(self, agent: Agent) -> bool:
        return self.agent

    def remove_addresses(self, addresses: Iterable[str]) -> None:
        self.there -= set(addresses)

    def present(self, addresses: Iterable[str]) -> list[str]:
        return sorted(set(addresses) & self.there)

    def kill_cgroup(self, path: str) -> None:
        if path not in self.immortal:
            self.there.discard(path)

    def populated(self, path: str) -> bool:
        return path in self.there

    def unmount(self, entry: MountEntry) -> None:
        if entry.path not in self.immortal:
            self.there.discard(entry.path)

    def mounted(self, entry: MountEntry) -> bool:
        return entry.path in self.there


class FakeStore:
    """The disk."""

    def __init__(self) -> None:
        self.saved = Book()
        self.full = False

    def save(self, book: Book) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.saved = book


class FakeLinks:
    def __init__(self) -> None:
        self.found = [Link(1, "lo", False), Link(2, "eth0", False), Link(3, "eth1", False), Link(4, "port0", True)]

    def links(self) -> list[Link]:
        return self.found


class FakeNetwork:
    """The leader at the other end: it sees every keep-alive, and grants while ``granting``."""

    def __init__(self) -> None:
        self.sent: list[KeepAlive] = []
        self.to: list[tuple[str, ...]] = []
        """To whom each of them went."""
        self.everywhere: list[bool] = []
        """Whether each of them went over every network."""
        self.stores: tuple[StoreAt, ...] = ()

    def set_stores(self, stores: Iterable[StoreAt]) -> None:
        self.stores = tuple(stores)

    def send(self, stores: Iterable[str], datagram: bytes, now: float, *, everywhere: bool = True) -> None:
        message = decode(datagram, "demo", lambda _: KEY)
        assert isinstance(message, KeepAlive)
        self.sent.append(message)
        self.to.append(tuple(stores))
        self.everywhere.append(everywhere)


class FakeWatchdog:
    """The watchdog of a machine: remembers when it was petted, so that a test can ask when it would bark."""

    def __init__(self, clock: Callable[[], float], *, there: bool = True, stoppable: bool = True) -> None:
        self.timeout, self.stoppable = 10.0, stoppable
        self.clock = clock
        self.there, self.armed = there, False
        self.opened = False
        self.pets: list[float] = []

    def open(self, settings: Watchdog) -> FakeWatchdog:
        if not self.there or settings.device.name not in ("watchdog", "watchdog0"):
            raise FileNotFoundError(2, "No such file or directory")
        if self.opened:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.opened = True
        self.armed, self.timeout = True, float(settings.timeout)
        self.pets.append(self.clock())
        return self

    def pet(self) -> None:
        if not self.there:
            raise OSError(19, "No such device")
        self.pets.append(self.clock())

    def close(self) -> None:
        self.opened = False

    def disarm(self) -> None:
        self.armed, self.opened = not self.stoppable, False

    @property
    def barks(self) -> float:
        """When it resets the machine."""
        return self.pets[-1] + self.timeout


class FakeDisk(Disk):
    """Where the guard's notes are: written at once, or never, or with an error."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.content: Mapping[str, Any] = {}
        self.hangs = hangs
        self.error: OSError | None = None

    def book(self, boot: str, *, barked: bool = False) -> Notebook:
        """What a guard of this boot of the machine finds."""
        return Notebook(self, boot, json.loads(json.dumps(self.content)), barked)

    def put(self, tokens: Mapping[str, Any], done: Callable[[OSError | None], None]) -> None:
        if self.hangs:
            return
        if self.error is None:
            self.content = dict(tokens)
        done(self.error)


class Bench:
    """A guard and everything around it."""

    def __init__(
        self,
        book: Book | None = None,
        remaining: Mapping[str, float] | None = None,
        *,
        disk: Disk | None = None,
        kept: Mapping[str, int] | None = None,
        watchdog: FakeWatchdog | None = None,
        mode: str = "off",
        notes: Notebook | None = None,
        policy: str = "safe",
        arbiter: Port | None = None,
    ) -> None:
        book = book or Book()
        self.loop, self.gate, self.machine = VirtualLoop(), FakeGate(), FakeMachine()
        self.store, self.links, self.network = FakeStore(), FakeLinks(), FakeNetwork()
        self.store.saved = book
        self.device = watchdog or FakeWatchdog(lambda: self.loop.time)
        self.watchdog = WatchdogKeeper(Watchdog(mode), self.loop, TIMING.ttl / 2, self.device.open)
        self.pushed: list[Mapping[str, Any]] = []
        nonces = itertools.count(1)
        permitted = {g: Planned(s.plan.epoch, s.plan.version) for g, s in book.plans.items() if s.permitted}
        ends = {g: self.loop.time + t for g, t in (remaining or {}).items()}
        make: Callable[..., Keeper] = Keeper if disk is None else partial(TokenKeeper, tokens=kept or {}, policy=policy)
        if arbiter is not None:
            make = partial(ArbiterKeeper, tokens=kept or {})
        self.keeper = make(
            "demo",
            "n1",
            ("n1", "n2", "w"),
            TIMING,
            "boot",
            lambda: next(nonces),
            KeeperState(book.floors, permitted),
            ends,
        )
        parts = Parts(
            cluster="demo", node="n1", key=KEY, version="1", agent_grace=TIMING.agent_grace,
            clock=lambda: self.loop.time, loop=self.loop, keeper=self.keeper, gate=self.gate, gateless="",
            machine=self.machine, links=self.links, store=self.store, network=self.network, watchdog=self.watchdog,
            push=self.pushed.append, tokens=disk, arbiter=arbiter, notes=notes,
        )  # fmt: skip
        self.guard = Guard(parts, book)
        self._version = 0

    def grant(self, **groups: tuple[int, int]) -> None:
        """The leader answers the last keep-alive: these groups at (epoch, version)."""
        last = self.network.sent[-1]
        self._version += 1
        named = tuple((g, e, v) for g, (e, v) in groups.items())
        grant = Grant("demo", "n2", 1, "n1", last.seq, last.nonce, self._version, 0.0, TIMING.ttl, named)
        self.guard.datagram(encode(grant, KEY))

    def advance(self, seconds: float, **groups: tuple[int, int]) -> None:
        """Time passes, and the leader answers every keep-alive."""
        end = self.loop.time + seconds
        while self.loop.time < end:
            self.guard.agent_seen = self.loop.time
            self.loop.advance(min(0.02, end - self.loop.time))
            self.grant(**groups)

    def events(self, kind: str) -> list[Mapping[str, Any]]:
        return [e for e in self.pushed if e["event"] == kind]
