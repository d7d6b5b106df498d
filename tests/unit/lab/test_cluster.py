"""What a lab's cluster says of its groups is of now, however late its feed tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hasys.lab.cluster import Cluster, CommandFailed
from hasys.lab.feed import Status, holds


def status(active: str, *, redundant: bool) -> Status:
    members = [{"name": name, "state": "Ready"} for name in ("n1", "n2", "w")]
    group = {"name": "web", "phase": "Running", "active": active, "redundant": redundant, "resources": []}
    return {"nodes": members, "groups": [group]}


BEFORE = status("n1", redundant=True)
MOVING = status("n2", redundant=False)
AFTER = status("n2", redundant=True)


class Busy(Cluster):
    """A cluster without machines, on a computer so busy that its feed tells what was."""

    def __init__(self, *, told: list[Status], answers: list[Status | CommandFailed]) -> None:
        self._told = told
        self._answers = answers

    def wait(self, condition: Callable[[Status], object], timeout: float, what: str) -> Status:
        """What the feed tells next, as far as it meets the condition."""
        while self._told:
            if holds(condition, told := self._told.pop(0)):
                return told
        raise TimeoutError(what)

    def status(self) -> dict[str, Any]:
        answer = self._answers.pop(0)
        if isinstance(answer, CommandFailed):
            raise answer
        return dict(answer)


@pytest.mark.parametrize(
    ("told", "answers"),
    [
        ([BEFORE], [AFTER]),
        ([BEFORE, MOVING, AFTER], [MOVING, AFTER]),
        ([BEFORE, AFTER], [CommandFailed(["status"], 1, "no majority"), AFTER]),
    ],
    ids=["moved", "still moving", "no majority"],
)
def test_the_active_is_that_of_an_answer_to_a_question_asked_now(
    told: list[Status], answers: list[Status | CommandFailed]
) -> None:
    """A test took the status before a fault, which came late, for the one after it."""
    assert Busy(told=told, answers=answers).wait_redundant("web") == "n2"


def test_a_group_that_is_only_told_to_be_redundant_is_waited_for_in_vain() -> None:
    with pytest.raises(TimeoutError, match="to be redundant"):
        Busy(told=[BEFORE, BEFORE], answers=[MOVING, MOVING]).wait_redundant("web")
