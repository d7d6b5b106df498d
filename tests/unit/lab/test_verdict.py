"""The judgement over records: exact on made-up times, complete and free of false alarms on generated ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasys.lab.records import Question
from hasys.lab.verdict import outage, overlaps, pauses
from hasys.lab.watch import PERIOD


def asked(start: float, end: float, period: float = 0.005, latency: float = 0.0001) -> list[Question]:
    """Questions from start to end, all answered."""
    return [
        Question(start + i * period, start + i * period + latency) for i in range(1 + round((end - start) / period))
    ]


def watched(held: list[tuple[float, float]], until: float, offset: float = 0.0) -> list[Question]:
    """One machine's questions over [0, until], answered exactly while it held the address."""
    questions = []
    t = offset
    while t < until:
        answer = t + 0.0001
        questions.append(Question(t, answer if any(a <= t and answer <= b for a, b in held) else None))
        t += PERIOD
    return questions


def test_outage_is_the_longest_time_between_two_answers() -> None:
    seen = outage([*asked(0, 1), *asked(2.2, 3)], start=0.5, end=2.9)
    assert seen.longest == pytest.approx(1.2, abs=0.0001)
    assert seen.begin == pytest.approx(1.0001)
    assert seen.end == pytest.approx(2.2001)
    assert seen.recovered


def test_outage_counts_questions_that_nobody_answered() -> None:
    silent = [Question(1.005 + i * 0.005, None) for i in range(100)]
    seen = outage([*asked(0, 1), *silent, *asked(1.505, 2)], start=0.9, end=1.9)
    assert seen.lost == 100


def test_outage_without_return_lasts_to_the_end_of_the_window() -> None:
    seen = outage(asked(0, 1), start=0.5, end=4.0001)
    assert seen.longest == pytest.approx(3.0)
    assert not seen.recovered


def test_outage_includes_a_late_answer_only_when_it_arrived() -> None:
    late = Question(1.01, 1.61)  # waited in the neighbour queue of the client
    seen = outage([*asked(0, 1), late, *asked(1.61, 2)], start=0.5, end=1.9)
    assert seen.longest == pytest.approx(0.61, abs=0.001)


def test_outage_tells_how_long_the_probe_itself_paused() -> None:
    seen = outage([*asked(0, 1), *asked(1.05, 2)], start=0.5, end=1.9)
    assert seen.blind == pytest.approx(0.05)
    assert seen.felt == pytest.approx(seen.longest - seen.blind)


def test_what_was_felt_is_never_negative() -> None:
    """A slow answer to a question before the pause shortens the silence."""
    seen = outage([*asked(0, 1), Question(1.0, 1.04), *asked(1.05, 2)], start=0.5, end=1.9)
    assert seen.longest < seen.blind
    assert seen.felt == 0.0


def test_outage_needs_a_service_that_ran_before() -> None:
    with pytest.raises(ValueError, match="did not run"):
        outage(asked(1, 2), start=0.5, end=2)


def test_pauses_lists_when_nobody_asked() -> None:
    assert pauses([*asked(0, 1), *asked(1.5, 2)], 0.01) == [(1.0, 1.5)]


def test_a_clean_change_of_hands_is_no_overlap() -> None:
    assert overlaps({"n1": watched([(0, 1)], 3), "n2": watched([(1.0, 3)], 3, 0.0001)}) == []


def test_a_there_and_back_change_of_hands_is_no_overlap() -> None:
    n1 = watched([(0, 1), (1.5, 3)], 3)
    n2 = watched([(1.001, 1.499)], 3, 0.0001)
    assert overlaps({"n1": n1, "n2": n2}) == []


def test_an_overlap_names_both_and_its_length() -> None:
    (found,) = overlaps({"n1": watched([(0, 1.1)], 3), "n2": watched([(1.0, 3)], 3, 0.0001)})
    assert (found.first, found.second) == ("n1", "n2")
    assert found.end - found.start == pytest.approx(0.1, abs=2 * PERIOD)


def test_a_holder_that_comes_back_while_another_held_is_an_overlap() -> None:
    """n1 answers every other question, n2 in between: within 20 ms that is no change of hands."""
    n1 = [Question(t, t + 0.0001 if i % 2 == 0 else None) for i, t in enumerate([0.0, 0.004, 0.008])]
    n2 = [Question(t + 0.001, t + 0.0011) for t in [0.002, 0.004, 0.005]]
    assert len(overlaps({"n1": n1, "n2": n2})) == 1


@given(start=st.floats(0.1, 1), length=st.floats(0.010, 0.5), offset=st.floats(0.00005, 0.003))
def test_no_overlap_of_ten_milliseconds_is_missed(start: float, length: float, offset: float) -> None:
    n1 = watched([(0, start + length)], 2)
    n2 = watched([(start, 2)], 2, offset)
    assert overlaps({"n1": n1, "n2": n2})


@given(start=st.floats(0.1, 1), pause=st.floats(0, 0.5), offset=st.floats(0.00005, 0.003))
def test_no_change_of_hands_raises_a_false_alarm(start: float, pause: float, offset: float) -> None:
    n1 = watched([(0, start)], 2)
    n2 = watched([(start + pause, 2)], 2, offset)
    assert overlaps({"n1": n1, "n2": n2}) == []
