"""The kernel-held lease of addresses: an address speaks only while the kernel's own timer says so.

What the guard does not refresh in time the kernel mutes by itself, though every process of the node be frozen or dead.

No un-mute and no refresh can happen after a freeze, wherever the process is stopped and however often. Each is one
transaction, and the kernel refuses it as a whole when

- the *fuse* has burnt down: an element with a timeout of :data:`FUSE`, lit right before the clock was read. So a
  transaction is done at most that long after the reading from which its timeouts were computed, or not at all;
- an element that it extends has expired: deleting it is part of the transaction.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hasys.guard import ruleset
from hasys.guard.elements import Operation
from hasys.guard.nft import STATELESS, TERSE, NftError

FUSE = 0.02
"""Seconds. Longest time from reading the clock to the end of the transaction that was computed from it. A multiple of
every kernel's tick (at most 10 ms), which is how finely the kernel counts it."""
MARGIN = FUSE
"""Seconds. A timeout is this much shorter than the grant: what the fuse lets pass is still in time."""
NOT_WORTH_IT = 0.01
"""Seconds. A refresh that gains less is left out: every grant comes once per network."""
ATTEMPTS = 5
"""Fuses in a row that may burn down before the lease counts as over."""
SHORTEST = 0.01
"""Seconds. Less than this is not worth a refresh: the lease counts as over."""


Script = Callable[[Mapping[str, int]], list[Operation]]
"""Content of one transaction, given the milliseconds that each group has left."""


class Commands(Protocol):
    """The part of :class:`hasys.guard.nft.Nft` that the gate uses. ``run`` raises ``NftError``."""

    def run(self, commands: str, *, flags: int = 0) -> str: ...


class Batches(Protocol):
    """The part of :class:`hasys.guard.elements.Elements` that the gate uses. ``run`` raises ``NftError``."""

    def run(self, operations: Sequence[Operation]) -> None: ...


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
    """Transactions that the kernel refused because the fuse had burnt down."""
    reinstalled: int = 0
    """Times that the table had been changed or removed by somebody else."""
    last_open: float = 0.0
    """Seconds from noticing the last such change until the gate was closed again."""
    longest_open: float = 0.0


class Gate:
    """One per node. Times are seconds of ``clock``, which must be CLOCK_MONOTONIC as the kernel's timers."""

    def __init__(self, nft: Commands, elements: Batches, table: str, clock: Callable[[], float]) -> None:
        self.table = table
        self.counts = GateCounts()
        self.gated: frozenset[str] = frozenset()
        self.held: dict[str, frozenset[str]] = {}
        """Group -> its live addresses, as the kernel was told; what was not extended in time has expired there."""
        self._nft = nft
        self._elements = elements
        self._clock = clock
        self.named: frozenset[str] = frozenset()
        self.others: frozenset[str] = frozenset()
        self._installed = ""
        self._ends: dict[str, float] = {}
        """Group -> when its elements expire, at the latest."""
        self._closed_at = 0.0
        """When the kernel took the rules last."""

    # ---- structure

    def adopt(self, groups: Mapping[str, Collection[str]]) -> dict[str, float]:
        """Read what an earlier guard left, given its groups and their addresses. Call before :meth:`install`.

        Returns until when (seconds of the clock) the kernel still carries each group; those not named it carries not.
        """
        try:
            marks = ruleset.elements(self._list("held"))
            self.gated = frozenset((*ruleset.elements(self._list("gated4")), *ruleset.elements(self._list("gated6"))))
            live = {**ruleset.elements(self._list("live4")), **ruleset.elements(self._list("live6"))}
        except NftError as e:
            if e.missing:
                return {}
            raise GateFailed(f"gate: {e}") from None
        now = self._clock()
        for group, addresses in groups.items():
            left = marks.get(f"0x{ruleset.mark(group):08x}")
            if left:
                self.held[group] = frozenset(a for a in addresses if live.get(a))
                self._ends[group] = now + left / 1000
        return dict(self._ends)

    def probe(self) -> None:
        """Whether this kernel has what the gate needs: try the rules in a table of their own. Raises ``NftError``."""
        table = f"{self.table}_probe"
        script = ruleset.interface_chains(table, "lo", named=False)
        self._nft.run(f"{ruleset.base(table)}\n{script}\ndelete table netdev {table}")

    def install(
        self, named: Collection[str], others: Collection[str], gated: Collection[str], *, anew: bool = False
    ) -> None:
        """Gate ``gated`` on the interfaces: one transaction, never open in between. Live addresses stay live.

        ``named`` interfaces carry addresses, ``others`` get the rules for this host's own traffic. All must exist.
        ``anew`` throws away what is there, live addresses too. Raises :class:`GateFailed`.
        """
        named, others, wanted = frozenset(named), frozenset(others) - frozenset(named) - {"lo"}, frozenset(gated)
        script = [f"add table netdev {self.table}\ndelete table netdev {self.table}"] if anew else []
        script.append(ruleset.base(self.table))
        script += [ruleset.interface_chains(self.table, i, named=True) for i in sorted(named)]
        script += [ruleset.interface_chains(self.table, i, named=False) for i in sorted(others)]
        script += ruleset.gate(self.table, sorted(wanted))
        self._run("\n".join(script))
        self._closed_at = self._clock()
        dropped = frozenset[str]() if anew else self.gated - wanted
        self._change(
            [o for a in dropped for s in (ruleset.live_set, ruleset.gated_set) for o in _gone(s(a), ruleset.key(a))]
        )
        self.named, self.others = named, others
        self.gated = wanted
        self.held = {group: live & wanted for group, live in self.held.items()}
        self._drop_old_chains()
        self._installed = self._structure()

    @property
    def installed(self) -> bool:
        return bool(self._installed)

    def intact(self) -> bool:
        """Whether table, chains, rules and gated addresses are what was installed. Reads the kernel (0.2 ms)."""
        try:
            if self._structure() != self._installed:
                return False
            held = {*ruleset.elements(self._list("gated4")), *ruleset.elements(self._list("gated6"))}
        except NftError:
            return False
        return held == self.gated

    def repair(self, named: Collection[str], others: Collection[str], noticed: float) -> None:
        """Install again what somebody removed, then make live again what was and whose time has not come.

        ``noticed``: when the change was first seen. From then until the kernel took the rules the gate counts as open:
        what is read and compared afterwards is no part of it.
        """
        held, ends = self.held, self._ends
        self.held, self._ends = {}, {}
        self.install(named, others, self.gated, anew=True)
        self.counts.reinstalled += 1
        self.counts.last_open = self._closed_at - noticed
        self.counts.longest_open = max(self.counts.longest_open, self.counts.last_open)
        for group, addresses in held.items():
            if ends[group] - self._clock() >= SHORTEST + MARGIN:
                self.hold(group, addresses, ends[group])

    # ---- the lease

    def hold(self, group: str, addresses: Collection[str], until: float) -> None:
        """Carry a group until then, and let these addresses of it speak; others of it fall silent.

        The only way in which an address begins to speak. Raises :class:`LeaseOver`, :class:`GateChanged`.
        """
        wanted = frozenset(addresses)
        if not wanted <= self.gated:
            raise GateFailed(f"gate: not gated: {', '.join(sorted(wanted - self.gated))}")
        mark, silent = _mark(group), self.held.get(group, frozenset()) - wanted
        self._timed(
            {group: until},
            lambda ms: [
                *_gone("held", mark),
                Operation(True, "held", mark, ms[group]),
                *(o for a in wanted | silent for o in _gone(ruleset.live_set(a), ruleset.key(a))),
                *(Operation(True, ruleset.live_set(a), ruleset.key(a), ms[group]) for a in wanted),
            ],
        )
        self.held[group] = wanted

    def extend(self, until: Mapping[str, float]) -> dict[str, GateFailed]:
        """Extend held groups, each to its own time; earlier than before is allowed. Never creates anything.

        Returns what failed, by group: :class:`LeaseOver` when its time had come, :class:`GateChanged` when somebody
        else removed it. A group that is about to end is left to end, one that would gain next to nothing as it is.
        """
        soonest = self._clock() + MARGIN + SHORTEST
        wanted = {
            group: t
            for group, t in until.items()
            if group in self.held and t > soonest and t - MARGIN - self._ends.get(group, 0.0) > NOT_WORTH_IT
        }
        if not wanted:
            return {}
        try:
            self._timed(wanted, lambda ms: [o for g, t in ms.items() for o in _renewal(g, self.held[g], t)])
            return {}
        except GateFailed as e:
            if len(wanted) == 1:
                return dict.fromkeys(wanted, e)
        failed = {}
        for group, t in wanted.items():  # the transaction failed as a whole: find out whose fault it was
            failed.update(self.extend({group: t}))
        return failed

    def drop(self, groups: Collection[str]) -> None:
        """Hold these groups no longer: silence their addresses now. Raises :class:`GateFailed`."""
        addresses = frozenset[str]().union(*(self.held.pop(group, ()) for group in groups))
        for group in groups:
            self._ends.pop(group, None)
        self.mute(addresses, groups)

    def mute(self, addresses: Iterable[str], groups: Iterable[str] = ()) -> None:
        """Silence addresses now, and end the kernel's lease of groups, whatever their state.

        Raises :class:`GateFailed`.
        """
        muted = frozenset(addresses)
        marks = [o for group in groups for o in _gone("held", _mark(group))]
        self._change([*marks, *(o for a in muted for o in _gone(ruleset.live_set(a), ruleset.key(a)))])
        self.held = {group: live - muted for group, live in self.held.items()}

    # ---- inside

    def _timed(self, until: Mapping[str, float], script: Script) -> None:
        """Run a transaction whose timeouts end by ``until``; anew when it came too late and was refused for that."""
        for _ in range(ATTEMPTS):
            self._change([*_gone("held", _FUSE), Operation(True, "held", _FUSE, int(FUSE * 1000))])
            started = self._clock()
            left = {group: t - started - MARGIN for group, t in until.items()}
            if min(left.values()) < SHORTEST:
                break
            ms = {group: int(t * 1000) for group, t in left.items()}
            try:
                self._elements.run([Operation(False, "held", _FUSE), *script(ms)])
            except NftError as e:
                if e.missing and self._clock() - started >= FUSE / 2:
                    self.counts.overslept += 1
                    continue
                raise self._failure(e, until) from None
            self._ends.update((group, started + t) for group, t in left.items())
            return
        self._undo(until)
        raise LeaseOver("gate: the lease could not be extended in time")

    def _undo(self, groups: Iterable[str]) -> None:
        for group in groups:
            if group in self.held:
                self.mute(self.held[group], [group])
            self._ends[group] = 0.0

    def _failure(self, error: NftError, groups: Iterable[str]) -> GateFailed:
        if not error.missing:
            return GateFailed(f"gate: {error}")
        if self._clock() < min(self._ends.get(group, float("inf")) for group in groups):
            return GateChanged("gate: an element, a set or the table is gone before its time")
        return LeaseOver("gate: the lease had ended in the kernel")

    def _structure(self) -> str:
        return self._nft.run(f"list table netdev {self.table}", flags=STATELESS | TERSE)

    def _list(self, set_name: str) -> str:
        return self._nft.run(f"list set netdev {self.table} {set_name}")

    def _drop_old_chains(self) -> None:
        wanted = {ruleset.chain_suffix(i) for i in self.named | self.others}
        for suffix in sorted(ruleset.chain_suffixes(self._structure()) - wanted):
            self._run(ruleset.remove_chains(self.table, suffix))

    def _run(self, commands: str) -> None:
        try:
            self._nft.run(commands)
        except NftError as e:
            raise GateFailed(f"gate: {e}") from None

    def _change(self, operations: list[Operation]) -> None:
        if not operations:
            return
        try:
            self._elements.run(operations)
        except NftError as e:
            raise (GateChanged if e.missing else GateFailed)(f"gate: {e}") from None


def _mark(group: str) -> bytes:
    return _host_order(ruleset.mark(group))


def _host_order(mark: int) -> bytes:
    return struct.pack("=I", mark)


_FUSE = _host_order(ruleset.FUSE)


def _renewal(group: str, addresses: Iterable[str], ms: int) -> list[Operation]:
    """Delete and add again: fails, and with it the whole transaction, when one has expired."""
    elements = [("held", _mark(group)), *((ruleset.live_set(a), ruleset.key(a)) for a in addresses)]
    return [o for name, key in elements for o in (Operation(False, name, key), Operation(True, name, key, ms))]


def _gone(set_name: str, key: bytes) -> list[Operation]:
    """Whether it is there or not: added and deleted in the same transaction, never visible."""
    return [Operation(True, set_name, key), Operation(False, set_name, key)]
