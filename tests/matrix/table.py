"""docs/matrix.md, read back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "matrix.md"
_NAMED = re.compile(r"`(tests/[\w./-]+?\.(?:py|txt))(?:::(\w+))?`")


@dataclass(frozen=True)
class Row:
    """One fault."""

    number: int
    tests: tuple[tuple[str, str], ...]
    """File and test; an empty test is the whole file."""
    state: str


def rows() -> list[Row]:
    """In the page's order. Raises :class:`ValueError` for a line of the table that is none."""
    found = []
    for line in PAGE.read_text("utf-8").splitlines():
        if not re.match(r"\| \d", line):
            continue
        number, _, _, proof, state = (cell.strip() for cell in line.strip("|").split("|"))
        found.append(Row(int(number), tuple(_NAMED.findall(proof)), state))
    return found
