"""Every decoder refuses bad bytes in its documented way: edited inputs, garbage, and what was found before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import scratch
from tests.fuzz.edits import edited, garbage
from tests.fuzz.targets import TARGETS

REGRESSIONS = Path(__file__).parent / "regressions"
"""TARGET/ANYTHING: inputs that once showed a fault."""


@pytest.fixture(scope="module", autouse=True)
def files() -> Iterator[None]:
    with scratch.folder():
        yield


names = pytest.mark.parametrize("name", list(TARGETS))


@names
def test_valid_inputs_and_what_was_found_before_pass(name: str) -> None:
    target = TARGETS[name]
    inputs = target.seeds()
    inputs += [file.read_bytes() for file in sorted((REGRESSIONS / name).glob("*"))]
    assert inputs
    for data in (*inputs, b""):
        target.run(data)


@names
@given(edits=st.data())
@settings(max_examples=60, deadline=None)
def test_edited_inputs_are_accepted_or_refused_as_documented(name: str, edits: st.DataObject) -> None:
    target = TARGETS[name]
    target.run(edits.draw(edited(target.seeds())))


@names
@given(data=garbage)
@settings(max_examples=40, deadline=None)
def test_garbage_is_refused_as_documented(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


def test_what_a_run_wrote_is_gone_with_it() -> None:
    with scratch.folder():
        made = scratch.path("plan.json")
        made.touch()
    assert not made.parent.exists()


def test_each_folder_has_what_the_targets_need() -> None:
    for _ in range(2):
        with scratch.folder():
            TARGETS["kept"].run(b"{}")


def test_every_regression_belongs_to_a_target() -> None:
    assert {folder.name for folder in REGRESSIONS.iterdir() if folder.is_dir()} <= set(TARGETS)
