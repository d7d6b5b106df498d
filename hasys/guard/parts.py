"""What a guard is made of: ports to kernel, disk, network and time. Tests put fakes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hasys.guard.arbiter import Port
from hasys.guard.fence import Machine
from hasys.guard.gate import Gate
from hasys.guard.loop import Loop
from hasys.guard.netlink import Link
from hasys.guard.notes import Notebook
from hasys.guard.plan import Book
from hasys.guard.protocol import StoreAt
from hasys.guard.tokens import Disk
from hasys.guard.watchdog import WatchdogKeeper
from hasys.lease.keeping import Keeper


class Store(Protocol):
    """Where the book is kept. ``save`` raises ``OSError``."""

    def save(self, book: Book) -> None: ...


class Links(Protocol):
    """Which interfaces there are. Raises ``OSError``."""

    def links(self) -> list[Link]: ...


class Sender(Protocol):
    """Carries datagrams to stores by name."""

    def send(self, stores: Iterable[str], datagram: bytes, now: float, *, everywhere: bool = True) -> None: ...

    def set_stores(self, stores: Iterable[StoreAt]) -> None: ...


@dataclass
class Parts:
    """What a guard is made of; tests put fakes in."""

    cluster: str
    node: str
    key: bytes
    version: str
    agent_grace: float
    """Seconds that the lease is kept without an agent."""
    clock: Callable[[], float]
    loop: Loop
    keeper: Keeper
    gate: Gate | None
    """None: this machine cannot gate addresses; ``gateless`` says why."""
    gateless: str
    machine: Machine
    links: Links
    store: Store
    network: Sender
    watchdog: WatchdogKeeper
    push: Callable[[Mapping[str, Any]], None]
    """Say something to the agent, if it is there."""
    tokens: Disk | None = None
    """Two nodes without a third voter: where tokens outlive the machine's power."""
    notes: Notebook | None = None
    """Where the guard writes down what it holds, for the time after a reset."""
    arbiter: Port | None = None
    """Policy arbiter: the disk that decides."""
    note: Callable[[], str] = lambda: ""
    """What else is wrong with this node and does not concern the guard: it says so in keep-alives."""


class Refused(Exception):
    """A plan or release that cannot be taken now; one line."""
