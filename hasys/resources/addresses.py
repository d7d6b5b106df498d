"""The addresses and links of this machine: read from the kernel, never remembered.

The truth is a full dump, taken when :mod:`hasys.resources.hints` says that it may differ. All dumps and writes happen
in one worker thread, one at a time, with a deadline, so that the event loop never waits for the kernel's rtnl lock.
pyroute2 is imported on first use: it costs 10 MB and 0.1 s.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import anyio
from anyio import to_thread

from hasys.resources.hints import LOOK, LOOKS, Hints
from hasys.resources.port import Permanent, Temporary

BURST = 0.3
"""Most seconds for which own writes put off a look at what others may have changed."""
DEADLINE = 5.0
"""Seconds a netlink call may take before it is given up and named as the blocker."""

IFA_F_NODAD = 0x02
"""Skip duplicate address detection (IPv6): the lease already says that nobody else has it, and it costs 1 s or more."""
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface."""

    name: str
    index: int
    mac: bytes
    up: bool
    """Set up by the administrator."""
    carrier: bool
    """Cable in, or what counts as that for a virtual one."""


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """An address on an interface."""

    interface: str
    address: str
    """Canonical spelling, without prefix length."""
    prefix: int


class Addresses(Protocol):
    """What drivers need of the machine's addresses; tests bring their own."""

    revision: int
    """Grows when anything changed."""

    def link(self, name: str) -> Link | None: ...

    def holders(self, address: str) -> tuple[Held, ...]:
        """Where an address is; normally nowhere or in one place."""
        ...

    async def add(self, held: Held) -> None:
        """Put it there; no error when it is there already. Raises ``Permanent`` or ``Temporary``."""
        ...

    async def remove(self, held: Held) -> None:
        """Take it away; no error when it is gone already. Raises ``Permanent`` or ``Temporary``."""
        ...

    async def changed(self, since: int, address: str | None = None) -> None:
        """Wait until something changed after revision ``since``; with an address: this address, or an interface; with
        an empty one: an interface."""
        ...


class KernelAddresses:
    """:class:`Addresses` of the network namespace that this process lives in."""

    def __init__(self, on_change: Callable[[frozenset[str]], None] = lambda addresses: None) -> None:
        """``on_change`` gets the addresses that appeared or went."""
        self.revision = 0
        self._on_change = on_change
        self._links: dict[str, Link] = {}
        self._held: frozenset[Held] = frozenset()
        self._by_address: dict[str, tuple[Held, ...]] = {}
        self._news: dict[str | None, anyio.Event] = {}
        """By what somebody waits for."""
        self._last: dict[str, int] = {}
        """Address -> revision of its last change; empty: of the last change of an interface."""
        self._serial = anyio.Lock()
        self._writers = 0
        self._written = anyio.Event()
        self._kernel: Any = None
        self._hints = Hints()
        self._listener = ThreadPoolExecutor(1)
        """Not one of anyio's threads: pyroute2 keeps something in each thread that calls it, and they are few."""

    def link(self, name: str) -> Link | None:
        return self._links.get(name)

    def holders(self, address: str) -> tuple[Held, ...]:
        return self._by_address.get(address, ())

    def on(self, name: str) -> tuple[tuple[str, int], ...]:
        """(address, prefix length) of each address on an interface."""
        return tuple((h.address, h.prefix) for h in sorted(self._held) if h.interface == name)

    async def changed(self, since: int, address: str | None = None) -> None:
        while self._revision_of(address) <= since:
            await self._news.setdefault(address, anyio.Event()).wait()

    def _revision_of(self, address: str | None) -> int:
        return self.revision if address is None else max(self._last.get("", 0), self._last.get(address, 0))

    async def add(self, held: Held) -> None:
        link = self._links.get(held.interface)
        if link is None:
            raise Temporary(f"interface {held.interface} does not exist")
        async with self._writing(), self._serial:
            await self._call(lambda kernel: _add(kernel, link.index, held), f"add {held.address} to {held.interface}")
            self._take(self._held | {held})

    async def remove(self, held: Held) -> None:
        link = self._links.get(held.interface)
        async with self._writing(), self._serial:
            if link is not None:
                what = f"remove {held.address} from {held.interface}"
                await self._call(lambda kernel: _remove(kernel, link.index, held), what)
            self._take(self._held - {held})

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        self._writers += 1
        try:
            yield
        finally:
            self._writers -= 1
            if not self._writers:
                written, self._written = self._written, anyio.Event()
                written.set()

    async def _after_a_burst(self) -> None:
        """What is written here is known: a hundred addresses that come at once are read back once, not each time."""
        with anyio.move_on_after(BURST):
            while self._writers:
                await self._written.wait()

    async def read(self, *, links: bool = True) -> None:
        """Take a full dump now."""
        async with self._serial:
            if links:
                self._take_links(await self._call(_links, "list interfaces"))
            by_index = {link.index: link.name for link in self._links.values()}
            self._take(await self._call(lambda kernel: _held(kernel, by_index), "list addresses"))

    async def run(self) -> None:
        """Keep reading until cancelled."""
        async with self._closed_at_end():
            await self.read()
            while True:
                links = await self._heard()
                if links is not None:
                    await self._after_a_burst()
                    await self.read(links=links)

    async def _heard(self) -> bool | None:
        """Wait until the addresses may be others; True: the links too; None: they are not, and the kernel answers."""
        try:
            async with asyncio.timeout(LOOK * LOOKS + DEADLINE):
                return await asyncio.get_running_loop().run_in_executor(self._listener, self._hints.wait)
        except TimeoutError:
            raise Temporary("cannot list addresses: the kernel does not answer") from None
        except OSError as e:
            raise Temporary(f"cannot list addresses: {e.strerror or e}") from None

    def _take(self, held: frozenset[Held]) -> None:
        if held == self._held:
            return
        different = frozenset(h.address for h in held ^ self._held)
        for address in different:
            self._by_address.pop(address, None)
        for h in sorted(h for h in held if h.address in different):
            self._by_address[h.address] = (*self._by_address.get(h.address, ()), h)
        self._held = held
        self._tell(different)
        self._on_change(different)

    def _take_links(self, links: dict[str, Link]) -> None:
        if links != self._links:
            self._links = links
            self._tell(frozenset({""}))

    def _tell(self, changed: frozenset[str]) -> None:
        """Wake those who wait for one of these, and no others: with hundreds of addresses each change concerns one."""
        self.revision += 1
        self._last.update(dict.fromkeys(changed, self.revision))
        woken = list(self._news) if "" in changed else [None, *changed]
        for key in woken:
            news = self._news.pop(key, None)
            if news is not None:
                news.set()

    async def _call(self, work: Callable[[Any], T], what: str) -> T:
        """Run netlink work in a thread, on one socket that lives until a call fails."""
        try:
            # Shielded: a cancelled caller must not leave a write behind that happens after its own undoing.
            with anyio.fail_after(DEADLINE, shield=True):
                return await to_thread.run_sync(self._work, work, what, abandon_on_cancel=True)
        except TimeoutError:
            self._kernel = None  # the stuck thread keeps the old one
            raise Temporary(f"the kernel did not {what} within {DEADLINE:g} s") from None

    def _work(self, work: Callable[[Any], T], what: str) -> T:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        kernel, self._kernel = self._kernel, None
        try:
            if kernel is None:
                kernel = IPRoute()
            result = work(kernel)
        except NetlinkError as e:
            kernel.close()
            kind = Permanent if e.code in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP) else Temporary
            raise kind(f"cannot {what}: {e.args[1]}") from None
        except OSError as e:
            raise Temporary(f"cannot {what}: {e.strerror or e}") from None
        self._kernel = kernel
        return result

    @asynccontextmanager
    async def _closed_at_end(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Give the sockets back; nothing may be asked any more."""
        kernel, self._kernel = self._kernel, None
        self._listener.shutdown(wait=False)
        with anyio.move_on_after(DEADLINE, shield=True):
            await to_thread.run_sync(self._hints.close, abandon_on_cancel=True)  # a look may be under way
        if kernel is not None:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(kernel.close)  # it runs an event loop of its own: not inside ours


def _links(kernel: Any) -> dict[str, Link]:
    found = {}
    for m in kernel.get_links():
        mac = bytes.fromhex((m.get_attr("IFLA_ADDRESS") or "").replace(":", ""))
        name = m.get_attr("IFLA_IFNAME")
        flags = m["flags"]
        found[name] = Link(name, m["index"], mac, bool(flags & IFF_UP), bool(flags & IFF_LOWER_UP))
    return found


def _held(kernel: Any, names: dict[int, str]) -> frozenset[Held]:
    found = set()
    for m in kernel.get_addr():
        address = m.get_attr("IFA_LOCAL") or m.get_attr("IFA_ADDRESS")
        name = names.get(m["index"])
        if address and name:
            found.add(Held(name, str(ipaddress.ip_address(address)), m["prefixlen"]))
    return frozenset(found)


def _add(kernel: Any, index: int, held: Held) -> None:
    flags = {"flags": IFA_F_NODAD} if ":" in held.address else {}
    with _tolerating(errno.EEXIST):
        kernel.addr("add", index=index, address=held.address, prefixlen=held.prefix, **flags)


def _remove(kernel: Any, index: int, held: Held) -> None:
    with _tolerating(errno.EADDRNOTAVAIL, errno.ENODEV):
        kernel.addr("del", index=index, address=held.address, prefixlen=held.prefix)


class _tolerating:  # noqa: N801  # reads like contextlib.suppress
    """Swallow netlink errors that say "it is so already"."""

    def __init__(self, *codes: int) -> None:
        self.codes = codes

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return getattr(error, "code", None) in self.codes
