"""The reference pages say what the tables say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_reference_pages_are_fresh() -> None:
    made = subprocess.run(
        [sys.executable, "tools/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT)}, timeout=30,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
