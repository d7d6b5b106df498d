"""What a process keeps in memory, and what its collector looks at."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from hasys import memory


class Stored:
    """Something that is stored for long."""


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether the process is busy; it counts as large."""
    monkeypatch.setattr(memory, "SMALL", 0)
    states = [True]
    with memory.looked_at_once(lambda: states[-1]):
        yield states


def circle() -> weakref.ref[Stored]:
    """Something that only a collection finds."""
    made = Stored()
    made.itself = made  # type: ignore[attr-defined]
    return weakref.ref(made)


@pytest.mark.usefixtures("busy")
def test_what_survived_a_full_collection_is_not_looked_at_again_and_goes_when_it_is_replaced() -> None:
    kept = [Stored() for _ in range(1000)]
    gone = weakref.ref(kept[0])
    gc.collect()
    assert not any(isinstance(seen, Stored) for seen in gc.get_objects())
    kept.clear()
    assert gone() is None


@pytest.mark.usefixtures("busy")
def test_circles_that_came_later_are_found() -> None:
    gc.collect()
    gone = circle()
    gc.collect()
    assert gone() is None


def test_circles_that_were_alive_then_are_found_once_the_process_is_not_busy(busy: list[bool]) -> None:
    kept = Stored()
    kept.itself = kept  # type: ignore[attr-defined]
    gone = weakref.ref(kept)
    gc.collect()
    del kept
    gc.collect()
    assert gone() is not None
    busy.append(False)
    gc.collect()
    assert gone() is None
