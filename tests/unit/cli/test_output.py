"""Tables on terminals: no word of them is lost, however narrow the terminal is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hasys.cli.output import rendered, table

COLUMNS = ("TIME", "TYPE", "REASON", "OBJECT", "NODE", "MESSAGE")
ROW = (
    "2026-11-20T20:34:19.787Z", "Normal", "OperationSucceeded", "Application/web-app", "n1",
    "switchover-dwsdmfj: web is Running on n1",
)  # fmt: skip
SHORT = (*ROW[:-1], "done")


def _terminal(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, highlight=False)


@pytest.mark.parametrize("width", [40, 80, 100, 110, 200])
def test_every_word_of_a_table_is_shown_on_a_terminal_of_any_width(width: int) -> None:
    text = rendered(_terminal(width), table(COLUMNS, [ROW, SHORT]))
    for cell in (*ROW[:-1], *ROW[-1].split(), "done"):
        assert cell in text


def test_a_column_with_spaces_in_its_cells_is_not_cut_either() -> None:
    cells = ("web", "web-app", "python3 -m http.server 8080 --directory /srv", "n1", "Running", "0", "1m4s")
    text = rendered(_terminal(80), table(("GROUP", "NAME", "COMMAND", "NODE", "STATE", "RESTARTS", "AGE"), [cells]))
    heading, line = text.splitlines()
    assert heading.endswith("AGE")
    for cell in cells:
        assert cell in line


def test_the_last_column_is_wrapped_while_its_words_fit() -> None:
    lines = rendered(_terminal(115), table(COLUMNS, [ROW])).splitlines()
    assert len(lines) > 2
    assert all(len(line) <= 115 for line in lines)


def test_on_a_terminal_too_narrow_for_columns_each_row_stays_one_line_for_the_terminal_to_wrap() -> None:
    lines = rendered(_terminal(80), table(COLUMNS, [ROW, SHORT])).splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("web is Running on n1")
    assert lines[2].endswith("done")
