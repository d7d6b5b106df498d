"""The whole store in simulated histories: no promise is broken; a seed replays; a failing one becomes small."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.sim.store.faults import FAULTS
from tests.sim.store.history import Counted, fails, play, shrink
from tests.sim.store.schedule import KINDS, draw

BUDGET = 60.0
"""Seconds of wall clock for random histories: more of them on a faster machine (``make sim`` runs for longer)."""
ENOUGH = 4
"""Histories at least, however slow the machine is."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_promise_is_broken_in_random_histories_and_a_healed_cluster_agrees() -> None:
    end, total = time.monotonic() + BUDGET, Counted()
    for seed in itertools.count():
        if seed >= ENOUGH and time.monotonic() >= end:
            break
        total += play(draw(seed))
    assert total.acknowledged > 400
    assert total.reads > 20
    assert total.elections > 20
    assert total.crashes > 20
    assert total.compactions > 4
    assert total.handovers > 4
    assert total.resumed + total.relists > 4


def test_a_seed_replays_exactly() -> None:
    plan = draw(3, 10.0)
    counted = [play(plan) for _ in range(2)]
    assert counted[0] == counted[1]
    fault = FAULTS["acknowledge before disk"].parts
    stories = [fails(draw(0, 20.0), fault, trace=True) for _ in range(2)]
    assert stories[0] is not None
    assert stories[1] is not None
    assert stories[0].world.trace == stories[1].world.trace
    assert str(stories[0]) == str(stories[1])


def test_a_failing_history_shrinks_to_the_steps_that_matter() -> None:
    fault = FAULTS["snapshot without fsync"].parts
    found = next(f for seed in range(20) if (f := fails(draw(seed, 20.0), fault)) is not None)
    small = shrink(found, fault, tries=60)
    assert small.sort() == found.sort()
    assert len(small.plan.steps) <= 3
    assert small.world.trace


def test_every_kind_of_trouble_is_drawn() -> None:
    drawn = {step.kind for seed in range(60) for step in draw(seed).steps}
    assert drawn == KINDS.keys()
