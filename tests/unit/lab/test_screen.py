"""The client's strip shows what the probe recorded."""

from __future__ import annotations

from hasys.lab.records import Question
from hasys.lab.screen import answered_share


def test_each_cell_shows_the_share_of_its_questions_that_were_answered() -> None:
    questions = [Question(0.01, 0.02), Question(0.06, None), Question(0.11, 0.12), Question(0.21, None)]
    assert answered_share(questions, start=0.0, cell=0.1, cells=4) == [0.5, 1.0, 0.0, None]


def test_questions_outside_the_strip_are_left_out() -> None:
    assert answered_share([Question(0.5, 0.6), Question(9.0, 9.1)], start=1.0, cell=0.1, cells=2) == [None, None]
