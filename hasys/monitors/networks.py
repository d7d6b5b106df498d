"""Watches the interfaces that this node's groups use, and says what is wrong with them.

Three witnesses: the link (a kernel event: told at once), the default gateways and the other members on the same link
(asked a few times a second). On the same ears it hears a foreign machine that answers for one of our addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import anyio
from anyio import to_thread

from hasys.model.arp import Told
from hasys.model.networks import Trouble
from hasys.monitors import routes
from hasys.monitors.ears import ArpEar, Ear, NeighbourEar
from hasys.monitors.health import Health, Neighbour

log = logging.getLogger(__name__)

PERIOD, HURRY = 0.6, 0.2
"""Seconds between two questions to a neighbour; while one is missed that is not silent yet. Who falls silent is so told
1.2 to 1.8 s later, after a hiccup of 1.2 s at the least."""
EACH_CLAIM = 2
"""In each so many rounds it is asked who else has an address of ours."""


class Link(Protocol):
    """A network interface."""

    @property
    def index(self) -> int: ...
    @property
    def mac(self) -> bytes: ...
    @property
    def up(self) -> bool: ...
    @property
    def carrier(self) -> bool: ...


class Links(Protocol):
    """The interfaces of this machine; ``revision`` grows when anything about them or their addresses changed."""

    @property
    def revision(self) -> int: ...

    def link(self, name: str) -> Link | None: ...

    def on(self, name: str) -> Sequence[tuple[str, int]]:
        """(address, prefix length) of each address on the interface."""
        ...

    async def changed(self, since: int, address: str | None = None) -> None:
        """Wait for a change after revision ``since``; with an empty address: of an interface."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """What the node's groups need."""

    interfaces: frozenset[str]
    virtual: frozenset[str] = frozenset()
    """Addresses of groups: they come and go, so nobody is asked in their name."""
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The other members of the cluster and their addresses."""


Challenged = Callable[[str], None]
"""Called with the MAC address of a foreign machine."""


@dataclass(slots=True)
class _Interface:
    """One watched interface and its ears."""

    health: Health
    index: int = 0
    ears: dict[int, Ear] = field(default_factory=dict)
    """By IP version."""
    neighbours: tuple[Neighbour, ...] = ()
    own: tuple[str, ...] = ()
    """Its addresses that are nobody else's, with their prefix lengths."""


class NetworkMonitor:
    """One per agent. ``watched`` answers None while it is not known."""

    def __init__(
        self,
        links: Links,
        watched: Callable[[], Watched | None],
        tell: Callable[[tuple[Trouble, ...]], Awaitable[None]],
    ) -> None:
        self._links = links
        self._watched = watched
        self._tell = tell
        self._routes: dict[str, tuple[str, ...]] = {}
        self._interfaces: dict[str, _Interface] = {}
        self._matched: tuple[object, ...] | None = None
        """What the interfaces and their ears were made for; None: some are missing."""
        self._defended: dict[tuple[str, str], Challenged] = {}
        self._told: tuple[Trouble, ...] | None = None
        self._untold: tuple[Trouble, ...] | None = None
        self._news = anyio.Event()
        self._to_tell = anyio.Event()

    # ------------------------------------------------------------ for drivers
    @contextmanager
    def defended(self, interface: str, address: str, challenged: Challenged) -> Iterator[None]:
        """As long as the block lasts: hear of machines that claim this address of ours."""
        key = interface, address
        self._defended[key] = challenged
        self._matched = None
        try:
            yield
        finally:
            if self._defended.get(key) is challenged:
                del self._defended[key]
                self._matched = None

    # ------------------------------------------------------------ life
    def look(self) -> None:
        """What is watched may have changed."""
        self._news.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        self._routes = await to_thread.run_sync(routes.gateways)
        async with anyio.create_task_group() as tasks:
            for follow in (self._follow_links, self._follow_routes, self._follow_news, self._telling):
                tasks.start_soon(follow)
            try:
                await self._rounds()
            finally:
                for one in self._interfaces.values():
                    _close(one)

    async def _rounds(self) -> None:
        number = 0
        while True:
            self._look(anyio.current_time(), ask=True, claims=number % EACH_CLAIM == 0)
            number += 1
            await anyio.sleep(self._pause)

    @property
    def _pause(self) -> float:
        return HURRY if any(one.health.doubtful for one in self._interfaces.values()) else PERIOD

    async def _follow_news(self) -> None:
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            self._look(anyio.current_time())

    def _look(self, now: float, *, ask: bool = False, claims: bool = False) -> None:
        watched = self._watched()
        if watched is not None:
            self._match(watched)
            self._hear()
            if ask:
                self._ask(claims=claims)
            self._judge(now)

    async def _follow_routes(self) -> None:
        over, loop = threading.Event(), asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1)
        try:
            while True:
                self._routes = await loop.run_in_executor(thread, routes.changed, self._routes, over)
                self.look()
        finally:
            over.set()
            thread.shutdown(wait=False)

    async def _follow_links(self) -> None:
        revision = self._links.revision
        while True:
            await self._links.changed(revision, "")  # addresses of groups come and go by the hundred
            revision = self._links.revision
            self.look()

    async def _telling(self) -> None:
        while True:
            await self._to_tell.wait()
            self._to_tell = anyio.Event()
            if self._untold is not None:
                await self._tell(self._untold)

    # ------------------------------------------------------------ what there is
    def _match(self, watched: Watched) -> None:
        """Health and ears for what is watched now."""
        wanted = watched, self._links.revision, self._routes
        if wanted == self._matched:
            return
        complete = True
        for name in self._interfaces.keys() - watched.interfaces:
            _close(self._interfaces.pop(name))
        for name in watched.interfaces:
            one = self._interfaces.setdefault(name, _Interface(Health(name)))
            one.own = tuple(f"{a}/{prefix}" for a, prefix in self._links.on(name) if a not in watched.virtual)
            one.neighbours = self._neighbours(name, one, watched)
            link = self._links.link(name)
            if one.index != (link.index if link else 0):
                _close(one)
                one.index = link.index if link else 0
            if link is not None and link.up:
                complete &= self._listen(name, one)
        self._matched = wanted if complete else None

    def _neighbours(self, name: str, one: _Interface, watched: Watched) -> tuple[Neighbour, ...]:
        found = [Neighbour(address) for address in self._routes.get(name, ())]
        nets = [_interface(own).network for own in one.own]
        for member, addresses in watched.members.items():
            on_link = [a for a in addresses if any(_address(a) in net for net in nets)]
            found += [Neighbour(address, member) for address in on_link[:1]]
        return tuple(sorted(found))

    def _listen(self, name: str, one: _Interface) -> bool:
        """Open the ears that are needed and can be opened; False: there are others, to be tried again in the next
        round."""
        needed = {_version(n.address) for n in one.neighbours}
        needed |= {_version(address) for interface, address in self._defended if interface == name}
        for version in needed - one.ears.keys():
            try:
                ear: Ear = ArpEar(name) if version == 4 else NeighbourEar(name)
            except OSError as e:
                log.debug("%s: cannot listen: %s", name, e)
                continue
            one.ears[version] = ear
        return needed <= one.ears.keys()

    def _hear(self) -> None:
        """All that was said since the last round. Nothing waits for it sooner: it is judged in rounds."""
        for name, one in self._interfaces.items():
            for ear in one.ears.values():
                try:
                    for told in ear.hear():
                        self._heard(name, one, told)
                except OSError as e:  # the link went down: the next one tells that it is up
                    log.debug("%s: cannot hear: %s", name, e)

    # ------------------------------------------------------------ rounds
    def _ask(self, *, claims: bool) -> None:
        for name, one in self._interfaces.items():
            link = self._links.link(name)
            if link is None or not (link.up and link.carrier):
                continue
            for neighbour in one.neighbours:
                if _asked(one, neighbour.address, link.mac):
                    one.health.asked(neighbour)
            for interface, address in self._defended if claims else ():
                if interface == name:
                    _asked(one, address, link.mac, in_nobodys_name=True)

    def _heard(self, name: str, one: _Interface, told: Told) -> None:
        one.health.answered(told.address)
        challenged = self._defended.get((name, told.address))
        link = self._links.link(name)
        if challenged is not None and link is not None and told.mac != link.mac.hex(":"):
            challenged(told.mac or "a machine that does not name itself")

    def _judge(self, now: float) -> None:
        found = []
        for name, one in sorted(self._interfaces.items()):
            trouble = one.health.look(self._link_trouble(name), one.neighbours, now)
            if trouble is not None:
                found.append(trouble)
        if tuple(found) != self._told:
            self._told = self._untold = tuple(found)
            self._to_tell.set()

    def _link_trouble(self, name: str) -> str:
        link = self._links.link(name)
        if link is None:
            return f"interface {name} does not exist"
        if not link.up:
            return f"interface {name} is down: ip link set {name} up"
        return "" if link.carrier else f"interface {name} has no carrier: cable or switch port"


def _asked(one: _Interface, target: str, mac: bytes, *, in_nobodys_name: bool = False) -> bool:
    """Did a question leave? One that cannot even be asked proves nothing."""
    version = _version(target)
    ear, sender = one.ears.get(version), _sender(one.own, target, in_nobodys_name)
    if ear is None or len(mac) != 6 or (version == 6 and not sender):
        return False
    try:
        ear.ask(target, sender, mac)
    except OSError:
        return False
    return True


@lru_cache(maxsize=1024)
def _sender(own: tuple[str, ...], target: str, in_nobodys_name: bool) -> str:
    """Which of our own addresses asks; empty: none does."""
    ours = [_interface(text) for text in own]
    if _version(target) == 6:
        ours = [i for i in ours if i.version == 6 and i.is_link_local]
    else:
        ours = [i for i in ours if _address(target) in i.network and not in_nobodys_name]
    return str(ours[0].ip) if ours else ""


@lru_cache(maxsize=1024)
def _interface(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    return ipaddress.ip_interface(text)


@lru_cache(maxsize=1024)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _close(one: _Interface) -> None:
    for ear in one.ears.values():
        ear.socket.close()
    one.ears.clear()
