"""S1a under an operator's oath: it holds while the oath is true; and the checker sees what a false one does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from hasys.lease.facts import Authority
from hasys.lease.granting import Granter
from hasys.lease.keeping import Effect, Keeper, Oath
from hasys.lease.wire import KeepAlive
from tests.sim.grants.history import Parts
from tests.sim.grants.oaths import FalseOath, OathHistory, QuietReturn
from tests.sim.grants.world import Violation

HISTORIES = 300


def play_all(kind: type[OathHistory], parts: Callable[[], Parts] = Parts) -> None:
    for seed in range(HISTORIES):
        kind(seed, parts()).run()


@pytest.mark.slow
def test_a_true_oath_never_makes_two_nodes_speak_and_ends_in_one_that_serves() -> None:
    play_all(OathHistory)


@pytest.mark.slow
def test_the_histories_are_eventful() -> None:
    """Oaths are sworn, serve, and are taken over: else silence of the checker would mean little."""
    stories = [OathHistory(seed, trace=True) for seed in range(60)]
    for story in stories:
        story.run()
    assert sum(story.spoke for story in stories) > 20
    assert sum(any(re.search("above=[1-9]", line) for line in story.world.trace) for story in stories) > 15


@pytest.mark.slow
def test_what_serves_on_an_operators_word_goes_on_when_the_others_return_whatever_order_datagrams_take() -> None:
    play_all(QuietReturn)


@pytest.mark.slow
def test_a_false_oath_makes_two_nodes_speak() -> None:
    with pytest.raises(Violation, match="S1a"):
        play_all(FalseOath)


class BeginsAtOnce(Keeper):
    """The oath does not wait until earlier leases have ended."""

    def swear(self, group: str, epoch: int, now: float) -> Oath:
        oath = super().swear(group, epoch, now)
        self._oaths[group] = replace(oath, start=now)
        return self._oaths[group]


class SleepsAndGoesOn(Keeper):
    """A node that overslept believes its oath still."""

    def expire(self, now: float) -> list[Effect]:
        for group, oath in self._oaths.items():
            if oath.free:
                h = self._holdings[group]
                self._holdings[group] = replace(h, until=max(h.until, now + 2 * self._budget), permitted=None)
        return super().expire(now)


class RenewsBesideALeader(Keeper):
    """The first answer of a leader does not end the renewal."""

    def renew(self, now: float) -> list[Effect]:
        taken = self._oaths
        self._oaths = {group: replace(oath, free=True) for group, oath in taken.items()}
        effects = super().renew(now)
        self._oaths = taken
        return effects


class CountsOathsFromRounds(Granter):
    """What an oath renewed until the first answer arrived is not counted, only this leader's own grants are."""

    def _count_oaths(self, guard: object, keepalive: KeepAlive, now: float) -> None:
        return


class ForgetsOaths(Granter):
    """What was heard of oaths before this store led is forgotten."""

    def lead(self, authority: Authority) -> None:
        super().lead(authority)
        for guard in self._guards.values():
            guard.sworn = {}


BROKEN: Mapping[str, Callable[[], Parts]] = {
    "begins-at-once": lambda: Parts(keeper=BeginsAtOnce),
    "sleeps-and-goes-on": lambda: Parts(keeper=SleepsAndGoesOn),
    "renews-beside-a-leader": lambda: Parts(keeper=RenewsBesideALeader),
    "counts-from-rounds": lambda: Parts(granter=CountsOathsFromRounds),
    "forgets-oaths": lambda: Parts(granter=ForgetsOaths),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_rule_is_caught(fault: str) -> None:
    with pytest.raises(Violation):
        play_all(OathHistory, BROKEN[fault])
