"""Turns text on standard input into an SVG picture of a terminal: ``hasys demo | python tools/picture.py docs/demo.svg``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 136
"""Columns of the picture; longer lines are folded."""
ACCENTS = (
    (re.compile(r"pulling the plug.*"), "bold red"),
    (re.compile(r"took over;.*|switchover:.*|never did two.*"), "bold green"),
    (re.compile(r"^ *\d+\.\d s"), "dim"),
)


def main() -> None:
    """Read, colour what matters, write."""
    target = Path(sys.argv[1])
    console = Console(record=True, width=WIDTH, file=sys.stderr, force_terminal=False)
    console.print(Text("$ sudo make demo", style="bold"))
    for line in sys.stdin.read().splitlines():
        text = Text(line)
        for pattern, style in ACCENTS:
            for match in pattern.finditer(line):
                text.stylize(style, *match.span())
        console.print(text)
    svg = console.export_svg(title="hasys demo")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)  # a picture fetches nothing from the network
    target.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.M), "utf-8")


if __name__ == "__main__":
    main()
