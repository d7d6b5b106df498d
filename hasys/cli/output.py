"""Printing: tables for people, JSON for scripts. Colours only on a terminal that wants them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from google.protobuf.duration_pb2 import Duration
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hasys.api.convert import nanoseconds, show_duration

_Command = TypeVar("_Command", bound=Callable[..., Any])

_GOOD, _CHANGING, _BAD, _QUIET = "green", "yellow", "bold red", "dim"
_STYLES = {
    **dict.fromkeys(("Ready", "Running", "Active", "Succeeded", "armed", "valid", "created"), _GOOD),
    **dict.fromkeys(
        ("Starting", "Stopping", "FailingOver", "Degraded", "Pending", "Drained", "NotReady", "Unknown", "Warning",
         "configured", "paused", "not redundant"), _CHANGING
    ),
    **dict.fromkeys(("Failed", "Blocked", "Lost", "Critical", "no quorum", "expired", "guard must run"), _BAD),
    **dict.fromkeys(("Standby", "Stopped", "Normal", "unchanged", "-"), _QUIET),
}  # fmt: skip
"""How a state looks; a word that is not here is printed plainly."""


_UNBOUNDED = 100_000
"""Columns of a terminal without an edge."""


def output_option(*formats: str) -> Callable[[_Command], _Command]:
    """``-o FORMAT``; the first format is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(formats), default=formats[0], show_default=True, help="Form of the output."
    )


def styled(word: str) -> Text:
    """A word in the colour of its meaning."""
    return Text(word, style=_STYLES.get(word, ""))


def taken(span: Duration) -> str:
    """How long something took, to the millisecond (below one: to the microsecond); empty when that is not known."""
    total = nanoseconds(span)
    step = 1_000_000 if total >= 1_000_000 else 1_000
    rounded = Duration()
    rounded.FromNanoseconds(round(total / step) * step)
    return show_duration(rounded) if total else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Columns without lines, as kubectl prints them; on a narrow terminal the last one is wrapped, it has the words."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    filled = list(rows)
    for number, column in enumerate(columns):
        if number == len(columns) - 1:
            made.add_column(column, overflow="fold")
        else:
            widest = max(cell_len(str(cell)) for cell in (column, *(row[number] for row in filled)))
            made.add_column(column, no_wrap=True, min_width=widest)
    for row in filled:
        made.add_row(*(cell if isinstance(cell, Text) else styled(cell) for cell in row))
    return made


class Lines:
    """Lines that come one by one below a table: each column as wide as the widest cell so far."""

    def __init__(self, *rows: Sequence[str | Text]) -> None:
        """``rows`` are in the table already, its headings among them."""
        self._widths: list[int] = []
        for row in rows:
            self._grow(row)

    def line(self, row: Sequence[str | Text]) -> str:
        """The next line."""
        self._grow(row)
        return "  ".join(str(cell).ljust(width) for cell, width in zip(row, self._widths, strict=True)).rstrip()

    def _grow(self, row: Sequence[str | Text]) -> None:
        known = self._widths or [0] * len(row)
        self._widths = [max(width, len(str(cell))) for cell, width in zip(row, known, strict=True)]


def console() -> Console:
    """Standard output: as wide as it likes when it is no terminal, because nothing may be wrapped in a pipe."""
    if sys.stdout.isatty():
        return Console(no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    return Console(file=sys.stdout, width=_UNBOUNDED, no_color=True, highlight=False, color_system=None)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table; in a pipe no line ends in spaces."""
    print_all([table(columns, rows)])


def print_all(parts: Iterable[RenderableType]) -> None:
    """Print renderable parts, one below the other."""
    out = console()
    for part in parts:
        click.echo(rendered(out, part))


def rendered(out: Console, part: RenderableType) -> str:
    """The part as text for this terminal, no line ending in spaces.

    What is wider than the terminal even with its last column wrapped is not cut: the terminal wraps it by itself.
    """
    unbounded = out.options.update(width=_UNBOUNDED)
    needed = Measurement.get(out, unbounded, part)
    if needed.minimum > out.width:
        out = Console(
            file=out.file,
            width=needed.maximum,
            force_terminal=out.is_terminal,
            color_system="auto" if out.color_system else None,
            no_color=out.no_color,
            highlight=False,
        )
    with out.capture() as captured:
        out.print(part)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def print_json(value: object, *, compact: bool = False) -> None:
    """JSON for scripts: keys in the order that the contract shows; one line when it is one of a stream."""
    text = json.dumps(value, separators=(",", ":")) if compact else json.dumps(value, indent=2)
    click.echo(text)
