"""Two voters by tokens: S1a at every step of every history, the rows of two nodes, and a checker that bites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from hasys.lease.assignments import GroupAssignment
from hasys.lease.durable import TokenDropped
from hasys.lease.granting import Granter, Guard, Naming, Verdict
from hasys.lease.keeping import Effect
from hasys.lease.tokens import TokenGranter, TokenKeeper
from hasys.lease.wire import Grant, KeepAlive
from tests.sim.grants.history import Parts
from tests.sim.grants.rows import Row
from tests.sim.grants.state import Assign
from tests.sim.grants.tokens import TWO_NODES, Impatient, TwoNodes
from tests.sim.grants.world import Violation

HISTORIES = 60
"""Per focus; longer runs: ``python -m tests.sim.grants --two-nodes``."""
BREAKING = 400


def play_all(kind: type[TwoNodes], seeds: int, parts: Parts | None = None) -> None:
    for seed in range(seeds):
        kind(seed, parts).run()


@pytest.mark.slow
@pytest.mark.parametrize("focus", TWO_NODES)
def test_no_two_nodes_ever_speak_and_two_that_see_each_other_again_serve_every_group(focus: str) -> None:
    for seed in range(HISTORIES):
        TwoNodes(seed, focus=focus).run()


# ---------------------------------------------------------------------- the rows


@pytest.fixture(params=range(5))
def row(request: pytest.FixtureRequest) -> Row:
    made = Row(request.param)
    made.begin()
    return made


def test_a_cut_link_stops_nothing_and_starts_nothing(row: Row) -> None:
    row.cut_link()
    row.always("n1", 20.0)
    row.world.cuts.clear()
    row.always("n1", 5.0)


def test_a_lost_active_is_not_taken_over_and_serves_again_when_it_is_back(row: Row) -> None:
    row.power("n1", on=False)
    row.always(None, 20.0)
    row.power("n1", on=True)
    assert row.wait(2.0) == "n1"


def test_a_store_that_is_away_on_the_node_that_is_left_stops_nothing(row: Row) -> None:
    row.power("n2", on=False)
    row.restart_store("n1")
    row.always("n1", 20.0)


def test_a_node_that_slept_goes_on_by_itself(row: Row) -> None:
    row.power("n2", on=False)
    guard = row.machines["n1"].guard
    assert guard is not None
    guard.freeze(5.0)
    assert row.wait(2.0) is None
    assert row.wait(6.0) == "n1"


# ---------------------------------------------------------------------- seeded faults


class FreesByTime(TokenGranter):
    """The end of a grant frees a group, as where a majority of three renews leases."""

    def _verdict(self, guard: Guard, keepalive: KeepAlive, group: str, a: GroupAssignment, now: float) -> Verdict:
        return Granter._verdict(self, guard, keepalive, group, a, now)

    def _over(self, node: str, boot: str, group: str, naming: Naming, now: float) -> bool:
        return Granter._over(self, node, boot, group, naming, now)


class TakesSilenceForAbsence(TokenGranter):
    """A guard that said nothing in this term has nothing."""

    def _absent(self, node: str, group: str) -> bool:
        return self._guards[node].last is None or super()._absent(node, group)


class RemembersEarlierTerms(TokenGranter):
    """What a guard said to this store in an earlier term still counts."""

    def lead(self, authority: Any) -> None:
        kept = {node: guard.last for node, guard in self._guards.items()}
        super().lead(authority)
        for node, last in kept.items():
            self._guards[node].last = last

    def step_down(self) -> None:
        self._authority = None


class ForgetsWhatItSent(TokenGranter):
    """A grant on its way is not counted."""

    def _over(self, node: str, boot: str, group: str, naming: Naming, now: float) -> bool:
        return True


class SaysGoneTooEarly(Impatient):
    """The token is said to be gone before the disk has forgotten it."""

    def _drop_tokens(self, grant: Grant) -> list[Effect]:
        effects = super()._drop_tokens(grant)
        for effect in effects:
            if isinstance(effect, TokenDropped):
                self._tokens.pop(effect.group, None)
        return effects


class StartsWhatItKnew(Impatient):
    """Alone, a node starts what its agent last knew as its own, with a token or without."""

    def renew(self, now: float) -> list[Effect]:
        if self.alone(now):
            for group, plan in self._plans.items():
                self._tokens.setdefault(group, plan.epoch)
        return super().renew(now)


class HidesWhatItHolds(Impatient):
    """What is held, being fenced, or waits with a token is not said."""

    def keepalive(self, now: float, *args: Any) -> Any:
        message, stores = super().keepalive(now, *args)
        return replace(message, held=(), bound=()), stores


BROKEN: Mapping[str, tuple[Callable[..., Granter], Callable[..., TokenKeeper]]] = {
    "frees-by-time": (FreesByTime, Impatient),
    "takes-silence-for-absence": (TakesSilenceForAbsence, Impatient),
    "says-gone-too-early": (TokenGranter, SaysGoneTooEarly),
    "starts-what-it-knew": (TokenGranter, StartsWhatItKnew),
    "hides-what-it-holds": (TokenGranter, HidesWhatItHolds),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_rule_is_caught(fault: str) -> None:
    granter, keeper = BROKEN[fault]
    with pytest.raises(Violation, match=r"S1a|two disks"):
        play_all(TwoNodes, BREAKING, Parts(granter=granter, keeper=keeper))


class GrantOnItsWay(Row):
    """n1 leads and gives ``web`` to n2; the grant is late, and what follows to n2 is lost. The move back to n1 must
    wait for n2's own word that it will not use it: n2 has the plan, and takes two seconds to stop what never ran."""

    late = False

    def wanted(self, store: Any, group: str) -> Any:
        return None

    def stop_takes(self) -> float:
        return 2.0

    def deliver(self, leader: str, grant: Grant) -> None:
        if grant.node == "n2" and self.late:
            return
        if grant.node == "n2" and grant.groups:
            self.late = True
            self.later(0.6, lambda: super(GrantOnItsWay, self).deliver(leader, grant))
        else:
            super().deliver(leader, grant)

    def run(self) -> None:
        self.world.at(1.9, self.stores["n1"].campaign)
        self.world.at(3.0, lambda: self.stores["n1"].propose(Assign("web", 0, "n2", True)))
        self.world.at(3.2, lambda: self.stores["n1"].propose(Assign("web", 1, "n1", False)))
        self.world.run(6.0)


class TwoTermsAgo(Row):
    """n2's guard tells n1, which leads, that it has nothing; then n2 leads and gives itself ``web``; then its guard
    freezes, n1 leads again and moves ``web``. What n2 said two terms ago is no word about its token."""

    def wanted(self, store: Any, group: str) -> Any:
        return None

    def run(self) -> None:
        self.world.at(1.9, self.stores["n1"].campaign)
        self.world.at(2.5, self.stores["n2"].campaign)
        self.world.at(3.0, lambda: self.stores["n2"].propose(Assign("web", 0, "n2", True)))
        self.world.run(3.6)
        assert self.disks == {"n1": {}, "n2": {"web": 1}}
        guard = self.machines["n2"].guard
        assert guard is not None
        guard.freeze(3.0)
        self.world.at(3.7, self.stores["n1"].campaign)
        self.world.at(4.0, lambda: self.stores["n1"].propose(Assign("web", 1, "n1", True)))
        self.world.run(6.5)
        assert self.world.holder("web") is None
        self.world.run(9.0)
        assert self.world.holder("web") == "n1"


def test_what_was_said_in_an_earlier_term_is_no_word_about_a_token() -> None:
    with pytest.raises(Violation, match="S1a"):
        play_all(TwoTermsAgo, 10, Parts(granter=RemembersEarlierTerms, keeper=Impatient))
    play_all(TwoTermsAgo, 10)


def test_a_grant_on_its_way_is_counted() -> None:
    parts = Parts(granter=ForgetsWhatItSent, keeper=Impatient)
    with pytest.raises(Violation, match="S1a"):
        play_all(GrantOnItsWay, 10, parts)
    play_all(GrantOnItsWay, 10)
