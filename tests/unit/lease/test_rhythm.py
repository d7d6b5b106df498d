"""Guards are led to the leader's rounds, and never asked to wait longer than the timings say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasys.lease.rhythm import period
from hasys.model.timing import PROFILES, Timing

DEFAULT = PROFILES["default"]


@given(st.floats(0, 10), st.integers(0, 1000), st.sampled_from(list(PROFILES.values())))
def test_no_guard_waits_longer_than_the_timings_say_or_asks_much_more_often(
    since: float, place: int, timing: Timing
) -> None:
    assert 0.7 * timing.keepalive <= period(timing, since, place) <= timing.keepalive


@given(st.floats(0, DEFAULT.heartbeat), st.integers(0, 120))
def test_wherever_a_guard_begins_it_asks_a_moment_before_a_round_within_three_seconds(since: float, place: int) -> None:
    now = since
    while now < 3.0:
        now += period(DEFAULT, now, place)
    assert -now % DEFAULT.heartbeat == pytest.approx(0.003 + 0.001 * (place % 100), abs=1e-6)
    assert period(DEFAULT, now, place) == pytest.approx(DEFAULT.heartbeat)


@pytest.mark.parametrize("profile", ["fast", "wan"])
def test_where_rounds_are_much_more_frequent_the_period_stays_as_it_is(profile: str) -> None:
    timing = PROFILES[profile]
    assert {period(timing, since / 100, 0) for since in range(100)} == {timing.keepalive}
