"""Run every test that docs/matrix.md names: ``python -m tests.matrix [pytest's options]``."""

from __future__ import annotations

import sys

import pytest

from tests.matrix.table import rows


def selection() -> list[str]:
    """What to hand to pytest: each test once, scenario files as the parameter that they are."""
    found: dict[str, None] = {}
    for row in rows():
        for file, test in row.tests:
            if file.startswith("tests/vm/"):
                continue  # guests: make vm-test
            if file.endswith(".txt"):
                stem = file.rsplit("/", 1)[1].removesuffix(".txt")
                found[f"tests/scenarios/test_scenarios.py::test_scenario_goes_as_told[{stem}]"] = None
            else:
                found[f"{file}::{test}" if test else file] = None
    return list(found)


if __name__ == "__main__":
    raise SystemExit(pytest.main(["-q", *sys.argv[1:], *selection()]))
