"""When an interface counts as lost, how badly, and when it is trusted again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hasys.model.networks import Fault, Trouble
from hasys.monitors.health import CALM, MISSES, STEADY_FIRST, STEADY_MOST, Health, Neighbour, Steadiness

GATEWAY, N2, W = Neighbour("10.0.0.254"), Neighbour("10.0.0.2", "n2"), Neighbour("10.0.0.3", "w")


def after_questions(neighbours: Sequence[Neighbour], answering: Sequence[Neighbour], times: int) -> Trouble | None:
    health = Health("eth0")
    for _ in range(times):
        for neighbour in neighbours:
            health.asked(neighbour)
        for neighbour in answering:
            health.answered(neighbour.address)
    return health.look("", neighbours, 10.0)


@pytest.mark.parametrize(
    ("neighbours", "answering", "fault"),
    [
        ([GATEWAY, N2, W], [GATEWAY], None),
        ([GATEWAY, N2, W], [N2], Fault.GATEWAY),
        ([GATEWAY, N2, W], [], Fault.SILENT),
        ([GATEWAY], [], Fault.SILENT),
        ([N2, W], [W], None),
        ([N2, W], [], Fault.SILENT),
        ([], [], None),
    ],
)
def test_who_answers_says_what_is_lost(
    neighbours: list[Neighbour], answering: list[Neighbour], fault: Fault | None
) -> None:
    found = after_questions(neighbours, answering, MISSES + 1)
    assert (found.fault if found else None) == fault


def test_silence_names_who_was_asked() -> None:
    found = after_questions([GATEWAY, N2, W], [], MISSES + 1)
    assert found is not None
    assert (found.unheard, found.gateway) == (("n2", "w"), True)
    assert found.text == "nobody answers on eth0, asked were gateway 10.0.0.254, n2, w"


def test_lost_answers_below_the_limit_prove_nothing() -> None:
    assert after_questions([GATEWAY, N2], [], MISSES) is None


def test_an_answer_ends_the_silence_of_its_address_alone() -> None:
    health = Health("eth0")
    for _ in range(MISSES + 1):
        health.asked(N2)
    health.answered("10.9.9.9")
    assert health.look("", [N2], 10.0) is not None
    health.answered(N2.address)
    assert health.look("", [N2], 20.0) is None


def test_a_lost_link_counts_before_all_else_and_everybody_gets_time_when_it_is_back() -> None:
    health = Health("eth0")
    for _ in range(MISSES + 1):
        health.asked(N2)
    found = health.look("interface eth0 is down", [N2], 1.0)
    assert found == Trouble("eth0", Fault.LINK, "interface eth0 is down")
    assert health.look("", [N2], 2.0) is None  # it was never well before: nothing to distrust


def test_a_neighbour_that_is_none_any_more_is_forgotten() -> None:
    health = Health("eth0")
    for _ in range(MISSES + 1):
        health.asked(GATEWAY)
    assert health.look("", [N2], 1.0) is None


def test_what_comes_back_is_unsteady_first() -> None:
    health = Health("eth0")
    assert health.look("", [], 0.0) is None
    health.look("no carrier", [], 100.0)
    found = health.look("", [], 101.0)
    assert found is not None
    assert found.fault is Fault.UNSTEADY
    assert health.look("", [], 101.0 + STEADY_FIRST) is None


def test_a_bouncing_link_is_distrusted_longer_each_time_and_not_for_ever() -> None:
    steadiness = Steadiness()
    now = 0.0
    waits = []
    for _ in range(10):
        steadiness.seen(True, now)
        steadiness.seen(False, now + 0.1)
        steadiness.seen(True, now + 0.2)
        back = now + 0.2
        wait = next(w for w in range(1, 1000) if steadiness.seen(True, back + w))
        waits.append(wait)
        now = back + 0.3
        steadiness.since = now  # bounces on before it was steady
    assert waits[0] == STEADY_FIRST
    assert waits == sorted(waits)
    assert waits[-1] == STEADY_MOST


def test_a_long_calm_forgets_earlier_losses() -> None:
    steadiness = Steadiness()
    steadiness.seen(True, 0.0)
    for at in (1.0, 2.0, 3.0):
        steadiness.seen(False, at)
        steadiness.seen(True, at + 0.5)
    steadiness.seen(False, 3.5 + CALM)
    steadiness.seen(True, 4.5 + CALM)
    assert not steadiness.seen(True, 4.5 + CALM + STEADY_FIRST - 0.1)
    assert steadiness.seen(True, 4.5 + CALM + STEADY_FIRST)
