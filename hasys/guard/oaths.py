"""Groups held by an operator's oath while there is no majority: what is kept on disk, said to the agent, reported.

The rules of the lease are in :mod:`hasys.lease.keeping`, the argument in docs/decisions/0005.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hasys.guard.parts import Refused
from hasys.guard.plan import Book, Sworn
from hasys.lease.keeping import Keeper
from hasys.lease.tokens import TokenKeeper

if TYPE_CHECKING:
    from hasys.guard.core import Guard


class Oaths:
    """One per guard, in its thread."""

    def __init__(self, guard: Guard, wall: Callable[[], float] = time.time) -> None:
        self._guard = guard
        self._wall = wall

    @property
    def _keeper(self) -> Keeper:
        return self._guard.parts.keeper

    def start(self) -> None:
        """End what an earlier guard promised and the kernel carries no more."""
        guard = self._guard
        for group, oath in guard.book.oaths.items():
            if group not in self._keeper.oaths() and group not in self._keeper.holdings():
                guard.remember(
                    self.ended(guard.book, group, "the guard was away for too long").without(group, oath.epoch)
                )

    def swear(self, group: str, epoch: int, cause: str, *, by_policy: bool = False) -> int:
        """Hold the group from now on; returns the epoch. ``by_policy``: no operator asked. Raises ``Refused``,
        ``Stale``; nothing has changed then."""
        guard = self._guard
        if guard.is_fencing(group):
            raise Refused(f"group {group} is being fenced here: wait for its end")
        known = guard.book.plans.get(group)
        epoch = max(epoch, guard.book.floors.get(group, 0) + 1, known.plan.epoch + 1 if known else 0)
        keeper = self._keeper
        swear = keeper.take if by_policy and isinstance(keeper, TokenKeeper) else keeper.swear
        sworn = Sworn(epoch, swear(group, epoch, guard.now()).start, by_policy=by_policy)
        try:
            guard.remember(guard.book.with_oath(group, sworn, cause, self._wall()))
        except Exception:
            guard.apply(self._keeper.give_up(group, "the oath could not be stored"))
            raise
        self._tell(group, sworn)
        guard.tick()
        return epoch

    def forswear(self, group: str, cause: str) -> None:
        """Let the agent stop the group in order; without an agent it is fenced. Raises ``Refused``."""
        guard = self._guard
        oath = guard.book.oaths.get(group)
        if oath is None:
            raise Refused(f"group {group} is not held here by an operator's oath")
        guard.remember(guard.book.with_oath(group, replace(oath, leaving=True)))
        guard.alone.let_go.add(group)
        if guard.agent_here:
            self._tell(group, guard.book.oaths[group])
        else:
            guard.apply(self._keeper.give_up(group, cause))

    def taken(self, group: str) -> Book:
        """The book with the fact that a leader answered: the oath renews itself no longer."""
        book = self._guard.book
        oath = book.oaths.get(group)
        return book if oath is None else book.with_oath(group, replace(oath, free=False))

    def ended(self, book: Book, group: str, cause: str) -> Book:
        """The book without the group's oath; the agent is told."""
        oath = book.oaths.get(group)
        if oath is None:
            return book
        self._guard.parts.push({"event": "oath-ended", "group": group, "epoch": oath.epoch})
        return book.with_oath(group, None, cause, self._wall())

    def told(self, serial: int) -> None:
        """The store knows these reports. Raises ``Refused``."""
        book = self._guard.book
        left = tuple(r for r in book.reports if r.serial > serial)
        if left != book.reports:
            self._guard.remember(replace(book, reports=left))

    def to_json(self) -> dict[str, Any]:
        """For the agent's hello."""
        book = self._guard.book
        return {
            "oaths": [_oath(group, oath) for group, oath in book.oaths.items()],
            "reports": [
                {"serial": r.serial, "time": r.time, "group": r.group, "epoch": r.epoch, "begun": r.begun,
                 "cause": r.cause, "since": r.since, "why": r.why}
                for r in book.reports
            ],
        }  # fmt: skip

    def _tell(self, group: str, oath: Sworn) -> None:
        self._guard.parts.push({"event": "oath", **_oath(group, oath)})


def _oath(group: str, oath: Sworn) -> Mapping[str, Any]:
    told = {"group": group, "epoch": oath.epoch, "leaving": oath.leaving, "free": oath.free}
    return {**told, "byPolicy": oath.by_policy}
