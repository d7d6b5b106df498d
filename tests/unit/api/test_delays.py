"""How long a report was under way, found without a common clock."""

from __future__ import annotations

import itertools
import random

from hasys.api.server.clocks import ROUNDED, SLICE, WINDOW, Delays

OFFSET = 1_000_000.0
"""Seconds that the receiver's clock is ahead of the sender's."""


class Wire:
    """Reports of one node, sent at a time of the sender's clock and under way for so long."""

    def __init__(self) -> None:
        self.now = 0.0
        self.delays = Delays(lambda: self.now)

    def arrives(self, sent: float, way: float, session: str = "a", spent: float = 60.0, node: str = "n1") -> float:
        self.now = sent + OFFSET + way
        return self.delays.of(node, session, sent, spent)


def test_the_first_report_has_no_delay_to_compare_with() -> None:
    assert Wire().arrives(0.0, 0.5) == 0.0


def test_a_late_report_is_dated_by_the_fastest_of_the_last_minute() -> None:
    wire = Wire()
    wire.arrives(0.0, 0.001)
    assert abs(wire.arrives(3.0, 0.250) - 0.249) < 1e-6
    assert abs(wire.arrives(6.0, 0.001)) < 1e-6


def test_whatever_comes_the_error_is_the_fastest_way_and_never_makes_a_report_younger() -> None:
    rng, wire, ways = random.Random(1), Wire(), []
    for turn in range(500):
        way = rng.choice((0.0005, 0.002, 0.05, 0.4)) * rng.uniform(1, 2)
        ways.append((turn * 3.0, way))
        found = wire.arrives(turn * 3.0, way)
        lately = [w for at, w in ways if at >= turn * 3.0 - WINDOW + SLICE]
        assert -1e-6 <= found <= way + 1e-6
        assert found >= way - min(lately) - 1e-6


def test_a_clock_that_drifts_or_stood_still_is_followed_within_the_window() -> None:
    wire = Wire()
    wire.arrives(0.0, 0.001)
    paused = 30.0  # the sender's clock did not move for so long
    assert wire.arrives(3.0, 0.001 + paused, spent=0.002) <= 0.002 + ROUNDED
    for turn in itertools.count(2):
        at = turn * 3.0
        found = wire.arrives(at, 0.001 + paused)
        if at > WINDOW + SLICE:
            break
    assert abs(found) < 1e-6


def test_another_process_and_another_node_begin_anew() -> None:
    wire = Wire()
    wire.arrives(1_000.0, 0.001)
    assert wire.arrives(5.0, 0.001, session="b") == 0.0, "its machine was started again: a clock from zero"
    assert wire.arrives(7.0, 0.5, node="n2") == 0.0
