"""Each file of ``data`` is a claim: these commands lead to exactly this narrative; the invariants hold throughout."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.language import play

FILES = sorted((Path(__file__).parent / "data").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_scenario_goes_as_told(path: Path, request: pytest.FixtureRequest) -> None:
    happened = play(path)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(happened)
    assert happened == path.read_text()
