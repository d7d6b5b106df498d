"""The checker bites: each rule of the store, broken on purpose, ends in a violation within a few random histories."""

from __future__ import annotations

import re

import pytest

from tests.sim.store.faults import FAULTS
from tests.sim.store.history import Failed, play
from tests.sim.store.schedule import draw

HISTORIES = 200
SECONDS = 30.0


def first_caught(name: str) -> tuple[int, Failed | None]:
    """How many histories it takes."""
    for seed in range(HISTORIES):
        try:
            play(draw(seed, SECONDS, FAULTS[name].focus), FAULTS[name].parts)
        except Failed as failed:
            return seed + 1, failed
    return HISTORIES, None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_rule_is_caught(name: str) -> None:
    count, failed = first_caught(name)
    assert failed is not None, f"{name}: not caught in {count} histories"
    assert re.match(FAULTS[name].caught_by, str(failed.cause)), str(failed)
