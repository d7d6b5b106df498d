"""What a probe writes is what the lab reads, at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hasys.lab.records import Question, Recorder, read


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("record")
    yield fd
    os.close(fd)


def test_questions_and_answers_come_back_in_order(file: int) -> None:
    recorder = Recorder(file)
    first = recorder.asked(1_000_000_000, target=3, kind=1)
    recorder.asked(2_000_000_000)
    recorder.answered(first, 1_500_000_000)
    assert read(file) == [Question(1.0, 1.5, 3, 1), Question(2.0, None)]


def test_questions_can_be_read_from_an_instant_on(file: int) -> None:
    recorder = Recorder(file)
    for i in range(10):
        recorder.asked(i * 1_000_000_000)
    assert [q.sent for q in read(file, since=6.5)] == [7.0, 8.0, 9.0]


def test_an_answer_to_a_question_never_asked_changes_nothing(file: int) -> None:
    recorder = Recorder(file)
    recorder.asked(1)
    recorder.answered(7, 2)
    assert len(read(file)) == 1
