"""docs/features.md is complete, and says no more than its examples and tests show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.matrix.table import Feature, features

ROOT = Path(__file__).parents[2]
IDS = [
    *(f"A{n}" for n in range(1, 31) if n not in (25, 29)),
    *(f"B{n}" for n in range(1, 13)),
    *(f"C{n}" for n in range(1, 12)),
    "I6",
]
FEATURES = features()


def test_every_feature_is_there_in_order() -> None:
    assert [f.id for f in FEATURES] == IDS


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.id)
def test_a_feature_is_proven_or_says_what_is_missing(feature: Feature) -> None:
    assert re.fullmatch(r"proven|(partly|not yet): .+", feature.state)
    if not feature.state.startswith("not yet"):
        assert feature.tests
        assert feature.example


@pytest.mark.parametrize("feature", [f for f in FEATURES if f.example], ids=lambda f: f.id)
def test_the_example_of_a_feature_names_it_in_its_first_line(feature: Feature) -> None:
    first = (ROOT / "examples" / feature.example).read_text("utf-8").splitlines()[0]
    assert first.startswith("# Features: ")
    assert feature.id in first.split()


@pytest.mark.parametrize("feature", [f for f in FEATURES if f.tests], ids=lambda f: f.id)
def test_a_test_is_named_after_each_feature(feature: Feature) -> None:
    named = re.compile(rf"(?<![a-z0-9]){feature.id}(?![0-9])", re.IGNORECASE)
    for file, test in feature.tests:
        first = (ROOT / file).read_text("utf-8").split("\n", 1)[0]
        if named.search(" ".join([*test.split("_"), *Path(file).stem.replace("-", " ").split("_"), first])):
            return
    pytest.fail(f"none of {feature.tests} carries the name {feature.id}")


def test_no_example_names_a_feature_that_does_not_point_back_or_does_not_exist() -> None:
    named = {
        (path.name, id)
        for path in (ROOT / "examples").glob("*.yaml")
        if (first := path.read_text("utf-8").splitlines()[0]).startswith("# Features: ")
        for id in first.removeprefix("# Features: ").split()
    }
    assert {id for _, id in named} <= set(IDS)
    assert {(f.example, f.id) for f in FEATURES if f.example} <= named
