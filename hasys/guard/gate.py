"""The kernel-held lease of addresses: an address speaks only while the kernel's own timer says so.

What the guard does not refresh in time the kernel mutes by itself, though every process of the node be frozen or dead.

No un-mute can happen after a freeze. Every change that makes an address speak, or speak longer, is one transaction that
deletes elements which must not have expired: the addresses themselves for a refresh, the element of the set ``lease``
for a first un-mute. A freeze that is shorter than what was left is seen afterwards, by re-reading the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from hasys.guard import ruleset
from hasys.guard.nft import STATELESS, TERSE, NftError

MARGIN = 0.005
"""Seconds. A timeout is this much shorter than the grant; a transaction that returns later than this is corrected."""
SHORTEST = 0.01
"""Seconds. Less than this is not worth a refresh: the lease counts as over."""


class Commands(Protocol):
    """The part of :class:`hasys.guard.nft.Nft` that the gate uses. ``run`` raises ``NftError``."""

    def run(self, commands: str, *, flags: int = 0) -> str: ...


class GateFailed(Exception):
    """The kernel does not hold what the guard asked for; the text says why. Addresses are muted, or must be fenced."""


class LeaseOver(GateFailed):
    """The lease had ended, by the kernel's clock or by ours, before it could be extended."""


class GateChanged(GateFailed):
    """Something of the table was missing though its time had not come: somebody else removed it. Repair it."""


@dataclass
class GateCounts:
    """For status: what went not as it should."""

    overslept: int = 0
    """Transactions that returned more than ``MARGIN`` late."""
    reinstalled: int = 0
    """Times that the table had been changed or removed by somebody else."""
    last_open: float = 0.0
    """Seconds from noticing the last such change until the gate was closed again."""
    longest_open: float = 0.0


class Gate:
    """One per node. Times are seconds of ``clock``, which must be CLOCK_MONOTONIC as the kernel's timers."""

    def __init__(self, nft: Commands, instance: str, clock: Callable[[], float]) -> None:
        self.table = ruleset.table_name(instance)
        self.counts = GateCounts()
        self.gated: frozenset[str] = frozenset()
        self.live: frozenset[str] = frozenset()
        self.leased = False
        """Whether the kernel was told of a lease that it has not been told the end of; it may have expired."""
        self._nft = nft
        self._clock = clock
        self._named: frozenset[str] = frozenset()
        self._others: frozenset[str] = frozenset()
        self._installed = ""
        self._ends = 0.0

    # ---- structure

    def adopt(self) -> float:
        """Read what an earlier guard left; returns the seconds that the kernel still gives the lease (0: none).

        Call before :meth:`install`.
        """
        try:
            held = ruleset.elements(self._list("lease"))
            gated = {**ruleset.elements(self._list("gated4")), **ruleset.elements(self._list("gated6"))}
            live = {**ruleset.elements(self._list("live4")), **ruleset.elements(self._list("live6"))}
        except NftError as e:
            if e.missing:
                return 0.0
            raise GateFailed(f"gate: {e}") from None
        self.gated = frozenset(gated)
        remaining = held.get(ruleset.LEASE) or 0
        self.live = frozenset(live) if remaining else frozenset()
        self.leased = remaining > 0
        self._ends = self._clock() + remaining / 1000
        return remaining / 1000

    def install(self, named: Collection[str], others: Collection[str], gated: Collection[str]) -> None:
        """Gate ``gated`` on the interfaces: one transaction, never open in between. Live addresses stay live.

        ``named`` interfaces carry addresses, ``others`` get the rules for this host's own traffic. All must exist.
        Raises :class:`GateFailed`.
        """
        named, others, wanted = frozenset(named), frozenset(others) - frozenset(named) - {"lo"}, frozenset(gated)
        script = [ruleset.base(self.table)]
        script += [ruleset.interface_chains(self.table, i, named=True) for i in sorted(named)]
        script += [ruleset.interface_chains(self.table, i, named=False) for i in sorted(others)]
        script += ruleset.add(self.table, sorted(wanted))
        for address in sorted(self.gated - wanted):
            for set_name in (ruleset.live_set(address), ruleset.gated_set(address)):
                script += ruleset.remove(self.table, set_name, [ruleset.element(address)])
        self._run("\n".join(script))
        self._named, self._others = named, others
        self.gated, self.live = wanted, self.live & wanted
        self._drop_old_chains()
        self._installed = self._structure()

    def intact(self) -> bool:
        """Whether table, chains, rules and gated addresses are what was installed. Reads the kernel (0.2 ms)."""
        try:
            if self._structure() != self._installed:
                return False
            held = {*ruleset.elements(self._list("gated4")), *ruleset.elements(self._list("gated6"))}
        except NftError:
            return False
        return held == self.gated

    def repair(self, until: float | None, noticed: float) -> None:
        """Install again what somebody removed, then make live again what was, if the lease lasts ``until``.

        ``noticed``: when the change was first seen, for the count of how long the gate was open.
        """
        live, self.live, self.leased = self.live, frozenset(), False
        self._run(f"add table netdev {self.table}\ndelete table netdev {self.table}")
        self.install(self._named, self._others, self.gated)
        self.counts.reinstalled += 1
        self.counts.last_open = self._clock() - noticed
        self.counts.longest_open = max(self.counts.longest_open, self.counts.last_open)
        if until is not None:
            self.extend(until)
            self.unmute(live, until)

    # ---- the lease

    def extend(self, until: float) -> None:
        """Give the lease and every live address the time ``until``; earlier than before is allowed.

        Begins the lease when there is none: that alone makes nothing speak. Raises :class:`LeaseOver`.
        """
        if self.leased:
            self._timed(until, self._renewal, self._renewal)
        else:
            self._timed(until, lambda ms: [ruleset.add_lease(self.table, ms)], self._renewal)
            self.leased = True

    def unmute(self, addresses: Collection[str], until: float) -> None:
        """Let gated addresses speak for the first time. Only within a lease that the kernel still holds."""
        new = frozenset(addresses) - self.live
        if not new <= self.gated:
            raise GateFailed(f"gate: not gated: {', '.join(sorted(new - self.gated))}")
        if not self.leased:
            raise LeaseOver("gate: no lease to un-mute within")
        if new:
            first = lambda ms: [*self._renewal(ms), *ruleset.add(self.table, sorted(new), ms)]  # noqa: E731
            again = lambda ms: [*self._renewal(ms), *ruleset.renew(self.table, sorted(new), ms)]  # noqa: E731
            self._timed(until, first, again)
            self.live |= new

    def mute(self, addresses: Iterable[str]) -> None:
        """Silence addresses now, whatever their state. Raises :class:`GateFailed`."""
        commands: list[str] = []
        muted = frozenset(addresses)
        for address in sorted(muted):
            commands += ruleset.remove(self.table, ruleset.live_set(address), [ruleset.element(address)])
        if commands:
            self._run("\n".join(commands))
        self.live -= muted

    def mute_all(self) -> None:
        """Silence everything and end the lease in the kernel. Raises :class:`GateFailed`."""
        self._run("\n".join(f"flush set netdev {self.table} {s}" for s in ("live4", "live6", "lease")))
        self.live, self.leased = frozenset(), False

    # ---- inside

    def _renewal(self, ms: int) -> list[str]:
        return [ruleset.renew_lease(self.table, ms), *ruleset.renew(self.table, sorted(self.live), ms)]

    def _timed(self, until: float, first: Callable[[int], list[str]], again: Callable[[int], list[str]]) -> None:
        """Run a transaction whose timeouts end by ``until``; one that came late is corrected at once, or muted."""
        script = first
        for _ in range(2):
            started = self._clock()
            left = until - started - MARGIN
            if left < SHORTEST:
                break
            try:
                self._nft.run("\n".join(script(int(left * 1000))))
            except NftError as e:
                raise self._failure(e, started) from None
            if self._clock() - started <= MARGIN:
                self._ends = started + left
                return
            self.counts.overslept += 1
            script = again
        self.mute_all()
        raise LeaseOver("gate: the lease could not be extended in time")

    def _failure(self, error: NftError, started: float) -> GateFailed:
        if not error.missing:
            return GateFailed(f"gate: {error}")
        if started < self._ends:
            return GateChanged("gate: an element, a set or the table is gone before its time")
        return LeaseOver("gate: the lease had ended in the kernel")

    def _structure(self) -> str:
        return self._nft.run(f"list table netdev {self.table}", flags=STATELESS | TERSE)

    def _list(self, set_name: str) -> str:
        return self._nft.run(f"list set netdev {self.table} {set_name}")

    def _drop_old_chains(self) -> None:
        wanted = {ruleset.chain_suffix(i) for i in self._named | self._others}
        for suffix in sorted(ruleset.chain_suffixes(self._structure()) - wanted):
            self._run(ruleset.remove_chains(self.table, suffix))

    def _run(self, commands: str) -> None:
        try:
            self._nft.run(commands)
        except NftError as e:
            raise GateFailed(f"gate: {e}") from None
