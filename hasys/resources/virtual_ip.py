"""VirtualIP: an address that is on the right interface while this node has the group, and nowhere on it otherwise.

The address may be added before the permit: the guard's gate keeps it silent. Drift (removed by hand, a second copy on
another interface) is repaired as soon as the kernel tells of it, and by the periodic dump if it does not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Protocol

import anyio

from hasys.resources import announce, settings
from hasys.resources.addresses import Addresses, Held, Link
from hasys.resources.port import AddressTrace, Driver, State, Surroundings, Temporary, Trace
from hasys.v1 import objects_pb2

LINK_GRACE = 1.0
"""Seconds for which a missing or unplugged interface changes nothing: boot, a bouncing switch port. An interface that
was set down by hand is not forgiven: nobody does that by accident."""
CLAIM_GRACE = 0.5
"""Seconds after the first announcement in which another claim may be a late word of the node that had it before."""
DEFEND = 0.25
"""Shortest time in seconds between two announcements against a foreign machine."""
CLAIM_OVER = 60.0
"""Seconds of silence after which a foreign machine that speaks again is an event again."""
CLAIM_EVENTS = 10.0
"""Shortest time in seconds between two events, however many machines are forged."""

RETRY = 0.2
"""Seconds until the next attempt when the kernel refuses."""


class Claims(Protocol):
    """Hears who else claims an address."""

    def defended(self, interface: str, address: str, challenged: Callable[[str], None]) -> AbstractContextManager[None]:
        """``challenged`` is called with the MAC address of a foreign machine that claims it, while the block lasts."""
        ...


class Unheard:
    """:class:`Claims` where nobody listens."""

    def defended(self, interface: str, address: str, challenged: Callable[[str], None]) -> AbstractContextManager[None]:
        return nullcontext()


class VirtualIP(Driver):
    """See the module."""

    kind = "VirtualIP"

    def __init__(
        self,
        around: Surroundings,
        spec: objects_pb2.VirtualIPSpec,
        addresses: Addresses,
        send: Callable[[str, Link], None] | None = None,
        claims: Claims | None = None,
    ) -> None:
        super().__init__(around)
        parsed = ipaddress.ip_interface(spec.address)
        interface = settings.interface_on(spec, around.place.node)
        self.wanted = Held(interface, str(parsed.ip), parsed.network.prefixlen)
        self._addresses = addresses
        self._send = send or announce.Announcer().send
        self._schedule = announce.Schedule(settings.seconds(spec, "announce_interval"))
        self._link_lost: float | None = None
        self._claims = claims or Unheard()
        self._claim_told = ("", float("-inf"))
        """The foreign machine of the last event, and when that was."""
        self._claim_heard = self._defended = float("-inf")

    def traces(self) -> tuple[Trace, ...]:
        if not self.wanted.interface:
            return ()
        return (AddressTrace(self.wanted.interface, self.wanted.address),)

    async def adopt(self) -> bool:
        return self.wanted in self._addresses.holders(self.wanted.address)

    async def prepare(self) -> None:
        link = self._addresses.link(self.wanted.interface)
        if link is not None and link.up and not await self.adopt():
            await self._addresses.add(self.wanted)

    async def run(self) -> None:
        if not self.wanted.interface:
            node = self.around.place.node
            self.become(State.FAILED, f"no interface is named for {node}: add {node} to spec.interface")
            return
        if self.condition.state is not State.RUNNING:
            self.become(State.STARTING)
        with self._claims.defended(self.wanted.interface, self.wanted.address, self._challenged):
            while True:
                revision = self._addresses.revision
                wait = await self._settle(anyio.current_time())
                with anyio.move_on_after(wait):
                    await self._addresses.changed(revision, self.wanted.address)

    def continues(self, earlier: Driver) -> bool:
        return isinstance(earlier, VirtualIP) and earlier.wanted == self.wanted

    def announce(self) -> None:
        link = self._addresses.link(self.wanted.interface)
        if self.condition.state is State.RUNNING and link is not None:
            with suppress(OSError):  # the link went away: its event is on the way
                self._send(self.wanted.address, link)

    async def stop(self, *, force: bool) -> None:
        self._link_lost = None
        for held in self._addresses.holders(self.wanted.address):
            await self._addresses.remove(held)

    async def _settle(self, now: float) -> float | None:
        """Make it so, as far as possible; returns the seconds after which to look again."""
        trouble, grace = self._trouble(now)
        if trouble:
            self._schedule.begun = None  # to be announced anew when the link is back
            # Not a failure of the resource: whether another node is better off is the leader's to judge.
            forgiven = grace > 0 and self.condition.state is State.RUNNING
            self.become(State.RUNNING if forgiven else State.STARTING, f"waiting: {trouble}")
            return grace if forgiven else None
        try:
            await self._place()
        except Temporary as e:
            self.become(State.STARTING, str(e))
            return RETRY if e.delay is None else e.delay
        self._announce(now)
        self.become(State.RUNNING)
        due = self._schedule.next()
        return None if due is None else max(0.0, due - anyio.current_time())

    def _trouble(self, now: float) -> tuple[str, float]:
        """What is wrong with the interface ("" nothing), and for how many seconds more that is forgiven."""
        name = self.wanted.interface
        link = self._addresses.link(name)
        if link is not None and link.up and link.carrier:
            self._link_lost = None
            return "", 0.0
        if self._link_lost is None:
            self._link_lost = now
        left = max(0.0, self._link_lost + LINK_GRACE - now)
        if link is None:
            return f"interface {name} does not exist", left
        if not link.up:
            return f"interface {name} is down: ip link set {name} up", 0.0
        return f"interface {name} has no carrier: cable or switch port", left

    async def _place(self) -> None:
        """On the right interface, with the right prefix, and nowhere else."""
        holders = self._addresses.holders(self.wanted.address)
        for held in holders:
            if held != self.wanted:
                await self._addresses.remove(held)
                where = f"{held.address}/{held.prefix} was on {held.interface}"
                self.around.record("ForeignAddressRemoved", where)
        if self.wanted not in holders:
            await self._addresses.add(self.wanted)
            if self.condition.state is State.RUNNING:
                missing = f"{self.wanted.address} was missing on {self.wanted.interface}"
                self.around.record("DriftRepaired", missing)
            self._schedule.begun = None

    def _announce(self, now: float) -> None:
        if self._schedule.begun is None:
            self._schedule.restart(now)
        link = self._addresses.link(self.wanted.interface)
        if link is None or not self._schedule.due(now):
            return
        try:
            self._send(self.wanted.address, link)
        except OSError:
            return  # the link went away: its event is on the way, the schedule repeats

    def _challenged(self, mac: str) -> None:
        """A foreign machine claims the address: neighbours hear at once where it really is, and an operator too."""
        now, begun = anyio.current_time(), self._schedule.begun
        if self.condition.state is not State.RUNNING or begun is None or now < begun + CLAIM_GRACE:
            return
        told, told_at = self._claim_told
        again = now > self._claim_heard + CLAIM_OVER
        self._claim_heard = now
        if now >= self._defended + DEFEND:
            self._defended = now
            self.announce()
        if (mac != told or again) and now >= told_at + CLAIM_EVENTS:
            self._claim_told = mac, now
            self.around.record("AddressTaken", f"{mac} on {self.wanted.interface} claims {self.wanted.address}")
