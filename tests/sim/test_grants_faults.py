"""The checker bites: each rule of the lease protocol, broken on purpose, ends in a violation that it reports."""

from __future__ import annotations

import pytest

from tests.sim.grants.faults import FAULTS
from tests.sim.grants.history import play
from tests.sim.grants.scripts import SCRIPTS
from tests.sim.grants.world import Violation

BY_CHANCE = {
    "counts-from-receipt": ("freezes", "S1a"),
    "ignores-age": ("freezes", "S1a"),
    "any-nonce": ("freezes", "S1a"),
    "older-grants": ("moves", "authority goes back"),
    "looks-afterwards": ("freezes", "S1a"),
    "creates-first": ("freezes", "S1a"),
    "mutes-never": ("freezes", "S1a"),
    "ignores-silence": ("moves", "S1a"),
    "forgets-own-grants": ("freezes", "S1a"),
    "short-count": ("freezes", "S1a"),
    "grants-before-its-term": ("elections", "S1a"),
    "grants-without-rounds": ("elections", "S1a"),
}
"""Seeded fault -> which histories reach it soon, and which promise it breaks."""
HISTORIES = 250


def play_all(fault: str, focus: str) -> None:
    for seed in range(HISTORIES):
        play(seed, FAULTS[fault](), focus)


def play_scripts(fault: str) -> None:
    for seed in range(10):
        SCRIPTS[fault](seed, FAULTS[fault]()).run()


@pytest.mark.slow
@pytest.mark.parametrize("fault", BY_CHANCE)
def test_a_broken_rule_is_caught_in_random_histories(fault: str) -> None:
    focus, promise = BY_CHANCE[fault]
    with pytest.raises(Violation, match=promise):
        play_all(fault, focus)


@pytest.mark.slow
@pytest.mark.parametrize("fault", SCRIPTS)
def test_a_broken_rule_is_caught_in_the_history_that_needs_it(fault: str) -> None:
    with pytest.raises(Violation, match="S1a"):
        play_scripts(fault)


def test_every_seeded_fault_is_played() -> None:
    assert FAULTS.keys() == BY_CHANCE.keys() | SCRIPTS.keys()
