"""The agent's lasting connection to the guard: connects again for ever, remembers what the guard last said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import anyio

from hasys.guard.client import (
    GuardClient,
    GuardEvent,
    GuardGone,
    Known,
    LeaseChanged,
    Note,
    NoteTaken,
    OathEnded,
    OathReport,
    Permitted,
    Revoked,
    SwornTo,
    notes_of,
    reports_of,
)
from hasys.guard.protocol import Address, Plan, StoodBy, StoreAt
from hasys.model.errors import HasysError
from hasys.model.networks import Trouble

log = logging.getLogger(__name__)

RECONNECT = 0.1
"""Seconds between attempts: a guard that was killed is back in less than a second."""

Connect = Callable[[], AbstractAsyncContextManager[GuardClient]]


class GuardLink:
    """:class:`hasys.reconciler.ports.Guard` over the guard's socket.

    ``wake`` is called with a group's name when the guard said something about it, with None when it concerns all.
    """

    def __init__(self, connect: Connect, pid: int, cgroup: str, wake: Callable[[str | None], None]) -> None:
        self.session = 0
        self.untold = False
        """The guard has reports or notes that the store may not know."""
        self._connect = connect
        self._introduction = (pid, cgroup)
        self._networks: tuple[Trouble, ...] | None = None
        self._wake = wake
        self._client: GuardClient | None = None
        self._permitted: dict[str, int] = {}
        self._plans: dict[str, Plan] = {}
        self._released: dict[str, int] = {}
        self._oaths: dict[str, SwornTo] = {}
        self._tokens: frozenset[str] = frozenset()

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def run(self) -> None:
        """Stay connected until cancelled."""
        complained = ""
        while True:
            try:
                async with self._connect() as client:
                    self._begin(client, await client.hello(*self._introduction, self._networks))
                    complained = ""
                    async for event in client.events:
                        self._take(event)
            except HasysError as e:
                if str(e) != complained:
                    log.warning("%s", e)
                complained = str(e)
            finally:
                self._client = None
                self._permitted.clear()
            self._wake(None)
            await anyio.sleep(RECONNECT)

    def permits(self, group: str, epoch: int) -> bool:
        return self._permitted.get(group) == epoch

    def planned(self, group: str) -> Plan | None:
        return self._plans.get(group)

    def groups(self) -> frozenset[str]:
        """Groups of which this node may hold something."""
        return frozenset(self._plans)

    def released(self, group: str) -> int:
        return self._released.get(group, 0)

    def oath(self, group: str) -> SwornTo | None:
        return self._oaths.get(group)

    def sworn(self) -> frozenset[str]:
        """Groups that an operator's oath gives to this node."""
        return frozenset(self._oaths)

    def may_go_on(self, group: str) -> bool:
        """This node held the group last, and may hold it though no store answers."""
        return group in self._tokens

    async def reports(self) -> Sequence[OathReport]:
        """What happened under oaths and the store may not know."""
        return reports_of(await self._guard().status())

    async def notes(self) -> Sequence[Note]:
        """What the guard did, or found after a reset, and the store may not know."""
        return notes_of(await self._guard().status())

    async def noted(self, serial: int) -> None:
        await self._guard().noted(serial)

    async def told(self, serial: int) -> None:
        await self._guard().told(serial)
        self.untold = False

    async def networks(self, troubles: tuple[Trouble, ...]) -> None:
        """Every interface that is not well. A guard that is not there hears it when it comes."""
        self._networks = troubles
        if self._client is None:
            return
        try:
            await self._client.networks(troubles)
        except HasysError as e:
            log.warning("guard: not told of the networks: %s", e)

    async def gate(self, addresses: Iterable[Address]) -> None:
        await self._guard().gate(addresses)

    async def stores(self, stores: Iterable[StoreAt], level: int) -> None:
        await self._guard().stores(stores, level)

    async def standby(self, groups: Mapping[str, StoodBy]) -> None:
        await self._guard().standby(groups)

    async def plan(self, plan: Plan) -> bool:
        permitted = await self._guard().plan(plan)
        self._plans[plan.group] = plan
        self._note(plan.group, plan.epoch, permitted)
        return permitted

    async def permit(self, group: str, epoch: int) -> bool:
        permitted = await self._guard().permit(group, epoch)
        self._note(group, epoch, permitted)
        return permitted

    async def release(self, group: str, epoch: int) -> None:
        await self._guard().release(group, epoch)
        self._released[group] = max(epoch, self.released(group))
        self._permitted.pop(group, None)
        self._plans.pop(group, None)
        self._end_oath(group, epoch)

    def _end_oath(self, group: str, epoch: int) -> None:
        oath = self._oaths.get(group)
        if oath is not None and oath.epoch <= epoch:
            del self._oaths[group]
            self.untold = True

    def _guard(self) -> GuardClient:
        if self._client is None:
            raise GuardGone("guard: not connected: is 'hasys guard run' running?")
        return self._client

    def _begin(self, client: GuardClient, known: Known) -> None:
        self._client = client
        self.session += 1
        self._plans = {p.group: p for p in known.plans}
        self._permitted = dict(known.permitted)
        self._released = dict(known.released)
        self._oaths = {oath.group: oath for oath in known.oaths}
        self._tokens = known.tokens
        self.untold |= bool(known.reports or known.notes)
        log.info("guard: connected, %d groups planned, lease %s", len(known.plans), _valid(known.lease_valid))
        self._wake(None)

    def _take(self, event: GuardEvent) -> None:
        match event:
            case Permitted(group, epoch):
                self._permitted[group] = epoch
                self._wake(group)
            case Revoked(group, epoch, reason):
                self._permitted.pop(group, None)
                log.warning("guard: %s revoked at epoch %d: %s", group, epoch, reason)
                self._released[group] = max(epoch, self.released(group))
                self._end_oath(group, epoch)
                self._wake(group)
            case SwornTo(group, epoch, leaving):
                log.warning("guard: %s %s without a majority, epoch %d", group, "left" if leaving else "held", epoch)
                self._oaths[group], self.untold = event, True
                self._wake(group)
            case OathEnded(group, epoch):
                self._end_oath(group, epoch)
                self._wake(group)
            case NoteTaken():
                self.untold = True
                self._wake(None)
            case LeaseChanged(valid):
                log.info("guard: lease %s", _valid(valid))
                if not valid:
                    self._permitted.clear()
                self._wake(None)

    def _note(self, group: str, epoch: int, permitted: bool) -> None:
        if permitted:
            self._permitted[group] = epoch
        else:
            self._permitted.pop(group, None)


def _valid(valid: bool) -> str:
    return "valid" if valid else "not valid"
