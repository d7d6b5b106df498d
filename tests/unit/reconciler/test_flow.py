"""B7: The order of a flow (hasys/placement/flow.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasys.placement.flow import Progress, Step, layers, startable, stoppable, waits_for


def step(name: str, progress: Progress = Progress.WAITING, after: str = "", tolerated: bool = False) -> Step:
    return Step(name, progress, frozenset(after.split()), tolerated)


def test_only_what_has_everything_before_it_up_starts() -> None:
    steps = [step("a", Progress.UP), step("b", Progress.BUSY), step("c", after="a"), step("d", after="a b"), step("e")]
    assert startable(steps) == ("c", "e")


def test_a_failure_holds_up_what_comes_after_unless_tolerated() -> None:
    assert startable([step("a", Progress.FAILED), step("b", after="a")]) == ()
    assert startable([step("a", Progress.FAILED, tolerated=True), step("b", after="a")]) == ("b",)


def test_a_name_that_is_no_step_holds_nobody_up() -> None:
    assert startable([step("b", after="deleted")]) == ("b",)


def test_a_step_stops_when_nothing_that_needs_it_is_left() -> None:
    steps = [step("a", Progress.UP), step("b", Progress.UP, after="a"), step("c", Progress.FAILED)]
    assert stoppable(steps) == ("b", "c")
    assert stoppable([steps[0], step("b", after="a")]) == ("a",)


def test_the_reason_of_a_wait_is_named_a_failure_first() -> None:
    steps = [step("a", Progress.FAILED), step("b", Progress.BUSY), step("c", after="a b"), step("d", after="b")]
    assert waits_for("c", steps) == "not started: a failed"
    assert waits_for("d", steps) == "waiting for b"
    assert waits_for("b", steps) == ""


def test_a_cycle_is_named() -> None:
    with pytest.raises(ValueError, match="cycle among a, b"):
        layers([step("a", after="b"), step("b", after="a"), step("c")])


NAMES = "abcdefgh"
GRAPHS = st.builds(
    lambda arrows: [step(n, after=" ".join(b for b in NAMES[:i] if (b, n) in arrows)) for i, n in enumerate(NAMES)],
    st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES))),
)


@given(GRAPHS)
def test_running_the_flow_visits_every_step_after_its_predecessors(steps: list[Step]) -> None:
    up: list[str] = []
    while len(up) < len(steps):
        now = startable([step(s.name, Progress.UP if s.name in up else s.progress, " ".join(s.after)) for s in steps])
        assert now
        assert all(s.after <= set(up) for s in steps if s.name in now)
        up += now
    assert {name for layer in layers(steps) for name in layer} == set(up)
