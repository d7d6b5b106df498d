"""The tables of docs/matrix.md and docs/features.md, read back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "matrix.md"
_NAMED = re.compile(r"`(tests/[\w./-]+?\.(?:py|txt))(?:::(\w+))?`")
_EXAMPLE = re.compile(r"\]\(\.\./examples/([\w.-]+)\)")


@dataclass(frozen=True)
class Row:
    """One fault."""

    number: int
    tests: tuple[tuple[str, str], ...]
    """File and test; an empty test is the whole file."""
    state: str


@dataclass(frozen=True)
class Feature:
    """One feature that a user gets."""

    id: str
    example: str
    """File below examples/; empty: none."""
    tests: tuple[tuple[str, str], ...]
    state: str


def rows() -> list[Row]:
    """In the page's order. Raises :class:`ValueError` for a line of the table that is none."""
    return [
        Row(int(number), tuple(_NAMED.findall(proof)), state)
        for number, _, _, proof, state in _lines("matrix.md", r"\| \d")
    ]


def features() -> list[Feature]:
    """In the page's order. Raises :class:`ValueError` for a line of the table that is none."""
    return [
        Feature(id, "".join(_EXAMPLE.findall(example)), tuple(_NAMED.findall(proof)), state)
        for id, _, example, proof, state in _lines("features.md", r"\| [A-Z]\d")
    ]


def _lines(page: str, begins: str) -> Iterator[list[str]]:
    for line in (DOCS / page).read_text("utf-8").splitlines():
        if re.match(begins, line):
            yield [cell.strip() for cell in line.strip("|").split("|")]
