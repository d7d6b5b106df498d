"""The failover matrix is complete, and says no more than its tests show."""

from __future__ import annotations

import re

from tests.matrix.__main__ import selection
from tests.matrix.table import _NAMED, PAGE, rows

ROOT = PAGE.parents[1]


def test_every_row_is_there_in_order() -> None:
    assert [row.number for row in rows()] == list(range(1, 41))


def test_each_row_is_proven_or_says_what_is_missing() -> None:
    unclear = [r.number for r in rows() if not re.fullmatch(r"proven|(partly|not yet)(: .+)?", r.state)]
    assert unclear == []


def test_a_row_that_claims_something_names_the_test_that_shows_it() -> None:
    assert [r.number for r in rows() if not r.tests and not r.state.startswith("not yet")] == []


def test_every_row_number_in_a_tests_name_is_the_row_that_names_it() -> None:
    wrong = [
        (row.number, test)
        for row in rows()
        for _, test in row.tests
        if (named := re.match(r"test_row_(\d+)_", test)) and int(named[1]) != row.number
    ]
    assert wrong == []


def test_what_is_run_for_the_matrix_names_each_test_once() -> None:
    chosen = selection()
    assert len(chosen) == len(set(chosen)) > 60


def test_every_test_that_the_page_names_exists_also_those_of_two_nodes() -> None:
    missing = [
        f"{file}::{test}"
        for file, test in set(_NAMED.findall(PAGE.read_text("utf-8")))
        if not (ROOT / file).exists() or (test and f"def {test}(" not in (ROOT / file).read_text("utf-8"))
    ]
    assert missing == []
