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
        self.standbys: Mapping[str, int] = {}
        """Groups that this node would take over -> an epoch above all that its agent knows."""
        self._heard = _NEVER
        """When another node's store last said anything."""

    def start(self) -> None:
        """Look from now on."""
        if self._keeper is not None:
            self._look(self._keeper)

    def heard(self) -> None:
        """Another node's store answered: it is there, whatever it says."""
        self._heard = self._guard.now()

    def _look(self, keeper: TokenKeeper) -> None:
        guard = self._guard
        if keeper.met and not guard.book.met:
            guard.save(replace(guard.book, met=True))
        if keeper.policy == ALONE_ALLOWED:
            for group, epoch in self.standbys.items():
                if not self.hindrance(keeper, group):
                    self._take(group, epoch, keeper)
        guard.parts.loop.at(guard.now() + LOOK, lambda: self._look(keeper))

    def hindrance(self, keeper: TokenKeeper, group: str) -> str:
        """Why the group is not taken over now; "" when it may be."""
        guard = self._guard
        now = guard.now()
        if keeper.busy(group) or guard.is_fencing(group):
            return "it is here, or on its way"
        if not (keeper.alone(now) and now - self._heard >= keeper.alone_after):
            return "the other node was heard a moment ago"
        if not guard.agent_here or guard.parts.gate is None:
            return "this node could not run it: it has no agent, or no gate"
        if (trouble := self._network_trouble()) is not None:
            return f"this node would serve nobody: {trouble.text}"
        if not guard.book.met and group not in guard.book.tokens:
            return "the other node was not seen since this machine started, and may know more"
        return ""

    def _network_trouble(self) -> Trouble | None:
        """What is wrong with an interface that carries addresses. That a peer is not heard proves nothing: it may be
        off."""
        carrying = {address.interface for address in self._guard.book.gate}
        for trouble in self._guard.networks or ():
            if trouble.interface in carrying and (trouble.fault is not Fault.SILENT or trouble.gateway):
                return trouble
        return None

    def _take(self, group: str, epoch: int, keeper: TokenKeeper) -> None:
        cause = f"policy {keeper.policy}: nothing was heard of the other node for {show(round(keeper.alone_after, 1))}"
        with contextlib.suppress(Refused, errors.Refused):  # asked again at the next look
            self._guard.oaths.swear(group, epoch, cause, by_policy=True)
