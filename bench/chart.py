"""The failover benchmark as a picture: ``python -m bench.chart RESULTS.json docs/failover.svg``.

Every run is a dot on a logarithmic axis, the median a bar; red where two machines held the address.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

LEFT, WIDTH, ROW, TOP = 290, 520, 24, 64
SHORTEST, LONGEST = 0.005, 20.0
"""Seconds at the ends of the axis."""
_INK, _QUIET, _DOT, _BAD = "#1f2937", "#9ca3af", "#2563eb", "#dc2626"


def place(seconds: float) -> float:
    """Horizontal position of a duration."""
    share = math.log(min(max(seconds, SHORTEST), LONGEST) / SHORTEST) / math.log(LONGEST / SHORTEST)
    return LEFT + share * WIDTH


def label(seconds: float) -> str:
    """A duration in the unit that people say."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def draw(results: dict[str, Any]) -> str:
    """The picture: one block for each fault, one row for each product."""
    series = [s for s in results["series"] if s["outages"] and not s["fault"].startswith("kill")]
    faults = list(dict.fromkeys(s["fault"] for s in series))
    lines: list[str] = []
    y = TOP
    for fault in faults:
        lines.append(_text(12, y + 16, fault, bold=True))
        y += ROW
        for one in (s for s in series if s["fault"] == fault):
            lines += _row(y, one)
            y += ROW
        y += 10
    runs = max(len(s["outages"]) for s in series)
    title = f"How long a client misses the virtual IP ({runs} runs each; a dot is a run, the bar is the median)"
    head = [_text(12, 22, title, bold=True), _text(12, 40, results["machine"], colour=_QUIET, size=11)]
    size = f'width="{LEFT + WIDTH + 250}" height="{y + 24}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([svg, ground, *head, *_axis(y), *lines, "</svg>", ""])


def _axis(bottom: float) -> Iterable[str]:
    for seconds in (0.01, 0.1, 1.0, 10.0):
        x = place(seconds)
        yield f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="#e5e7eb"/>'
        yield _text(x - 14, bottom + 14, label(seconds), colour=_QUIET, size=11)


def _row(y: float, one: dict[str, Any]) -> Iterable[str]:
    outages: Sequence[float] = one["outages"]
    double = len(one["overlaps"])
    colour = _BAD if double else _DOT
    yield _text(28, y + 16, one["product"], colour=_BAD if double else _INK)
    for seconds in outages:
        yield f'<circle cx="{place(seconds):.1f}" cy="{y + 12}" r="3.5" fill="{colour}" fill-opacity="0.35"/>'
    median = statistics.median(outages)
    x = place(median)
    yield f'<line x1="{x:.1f}" y1="{y + 4}" x2="{x:.1f}" y2="{y + 20}" stroke="{colour}" stroke-width="2.5"/>'
    note = f"{label(median)}, worst {label(max(outages))}" + (f", two holders {double} times" if double else "")
    yield _text(LEFT + WIDTH + 10, y + 16, note, colour=colour, size=11)


def _text(x: float, y: float, text: str, colour: str = _INK, size: int = 13, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{weight}>{escape(text)}</text>'


def main() -> None:
    """Command line."""
    source, target = map(Path, sys.argv[1:3])
    target.write_text(draw(json.loads(source.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
