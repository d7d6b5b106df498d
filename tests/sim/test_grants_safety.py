"""S1a and liveness of the lease protocol: the real Granter and Keeper under every fault, checked at every step."""

from __future__ import annotations

import pytest

from hasys.model.timing import PROFILES
from tests.sim.grants.history import FOCI, History, Parts, play
from tests.sim.grants.scripts import SCRIPTS

HISTORIES = 290
"""Per focus: about 2,000 in all, half a minute on an idle core."""


@pytest.mark.slow
@pytest.mark.parametrize("focus", FOCI)
def test_no_two_nodes_ever_speak_and_a_healed_cluster_serves_every_group(focus: str) -> None:
    for seed in range(HISTORIES):
        play(seed, focus=focus)


class AsShipped(History):
    """With the timings of the default profile, where guards are led to the leader's rounds."""

    def draw(self) -> None:
        super().draw()
        self.timing = PROFILES["default"]


@pytest.mark.slow
def test_no_two_nodes_ever_speak_with_the_timings_of_the_default_profile() -> None:
    for seed in range(HISTORIES):
        AsShipped(seed).run()


@pytest.mark.slow
@pytest.mark.parametrize("fault", SCRIPTS)
def test_the_hand_written_histories_end_without_two_holders(fault: str) -> None:
    for seed in range(10):
        SCRIPTS[fault](seed, Parts()).run()


def test_a_seed_replays_exactly() -> None:
    stories = []
    for _ in range(2):
        history = History(12, trace=True)
        history.run()
        stories.append(history.world.trace)
    assert stories[0] == stories[1]
    assert len(stories[0]) > 3


@pytest.mark.slow
def test_the_histories_are_eventful() -> None:
    """Groups change hands, leaders change, leases end by themselves: else silence of the checker would mean little."""
    stories = []
    for seed in range(70):
        history = History(seed, trace=True)
        history.run()
        stories.append("\n".join(history.world.trace))
    assert sum(story.count(" leads term ") > 1 for story in stories) > 25
    assert sum(story.count(" permitted ") > 2 for story in stories) > 25
    assert sum(story.count(" revokes ") for story in stories) > 50
