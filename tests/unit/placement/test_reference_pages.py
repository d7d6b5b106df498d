"""The reference pages say what the tables say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hasys.placement.policy import Situation
from tools import decisions

ROOT = Path(__file__).parents[3]


def test_reference_pages_are_fresh() -> None:
    made = subprocess.run(
        [sys.executable, "tools/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT)}, timeout=30,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


def test_the_page_of_decisions_shows_each_situation_of_the_role_table() -> None:
    assert decisions.shown() == {situation: situation for situation in Situation}


def test_no_cell_of_the_decisions_tells_of_a_holder_that_keeps_its_grants_while_another_gets_the_group() -> None:
    """Each move names what becomes of the old node."""
    page = decisions.page("")
    assert len(re.findall(r"\*\*n2\*\*, epoch 4", page)) == len(
        re.findall(r"\*\*n2\*\*, epoch 4; n1 (?:stops it in order first|gets no more grants)", page)
    )
