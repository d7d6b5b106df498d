"""Takes groups over by itself where the policy of two nodes says so, and only there (docs/two-nodes.md).

The agent says which groups this node would run in their Active's place. The rules that speak against it are here: a
peer that can be heard, a network of this node that is not well, an agent that is not there, and a machine that has not
seen its peer since it was started, for then only what ran here last may begin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from hasys.config import ALONE_ALLOWED
from hasys.guard.parts import Refused
from hasys.guard.protocol import StoodBy
from hasys.lease.arbiter import ArbiterKeeper
from hasys.lease.tokens import TokenKeeper
from hasys.model import errors
from hasys.model.networks import Fault, Trouble
from hasys.model.timing import show

if TYPE_CHECKING:
    from hasys.guard.core import Guard

LOOK = 0.5
"""Seconds between looks."""
_NEVER = float("-inf")


class Alone:
    """One per guard, in its thread; without such a policy it does nothing."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        keeper = guard.parts.keeper
        self._keeper = keeper if isinstance(keeper, TokenKeeper) else None
        self.standbys: Mapping[str, StoodBy] = {}
        """Groups that this node would take over."""
        self.let_go: set[str] = set()
        """What an operator took from this node while it was alone: not taken again before a leader is heard."""
        self._heard = _NEVER
        """When another node's store last said anything; a guard that starts does not know, and counts from then."""

    def start(self) -> None:
        """Look from now on."""
        if self._keeper is not None:
            self._heard = self._guard.now()
            self._look_again()

    def heard(self) -> None:
        """Another node's store answered: it is there, whatever it says."""
        self._heard = self._guard.now()

    def _look_again(self) -> None:
        self.look()
        self._guard.parts.loop.at(self._guard.now() + LOOK, self._look_again)

    def look(self) -> None:
        """Take over what may be taken over now."""
        keeper, guard = self._keeper, self._guard
        if keeper is not None and keeper.lease(guard.now())[0]:
            self.let_go.clear()
        wanted = {group: by for group, by in self.standbys.items() if group not in self.let_go}
        if isinstance(keeper, ArbiterKeeper):
            if keeper.met != guard.book.met:
                guard.save(replace(guard.book, met=keeper.met))
            able = self._able()
            keeper.standbys = {group: by.outlives for group, by in wanted.items() if able}
            for group in keeper.won(guard.now()):
                self._take(group, "the other node stands still on the arbiter's disk", keeper)
        elif keeper is not None:
            if keeper.met and not guard.book.met:
                guard.save(replace(guard.book, met=True))
            if keeper.policy == ALONE_ALLOWED:
                silence = f"nothing was heard of the other node for {show(round(keeper.alone_after, 1))}"
                for group in wanted:
                    if self._may_take(group, keeper):
                        self._take(group, silence, keeper)

    def _may_take(self, group: str, keeper: TokenKeeper) -> bool:
        """Policy alone-allowed."""
        guard, now = self._guard, self._guard.now()
        last = group in guard.book.tokens  # it ran here last: nothing that the other node had lives on
        wait = keeper.alone_after if last else max(keeper.alone_after, self.standbys[group].outlives)
        silent = keeper.alone(now) and now - max(self._heard, keeper.answered_at) >= wait
        known = guard.book.met or last
        return silent and known and self._able() and not keeper.busy(group) and not guard.is_fencing(group)

    def _able(self) -> bool:
        """This node could serve: it has an agent and a gate, and its network is well."""
        return self._guard.agent_here and self._guard.parts.gate is not None and self._network_trouble() is None

    def _network_trouble(self) -> Trouble | None:
        """What is wrong with an interface that carries addresses. That a peer is not heard proves nothing: it may be
        off."""
        carrying = {address.interface for address in self._guard.book.gate}
        for trouble in self._guard.networks or ():
            if trouble.interface in carrying and (trouble.fault is not Fault.SILENT or trouble.gateway):
                return trouble
        return None

    def _take(self, group: str, why: str, keeper: TokenKeeper) -> None:
        cause = f"policy {keeper.policy}: {why}"
        with contextlib.suppress(Refused, errors.Refused):  # asked again at the next look
            self._guard.oaths.swear(group, self.standbys[group].epoch, cause, by_policy=True)
