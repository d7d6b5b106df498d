"""Writes the reference pages that come from tables in the code; ``--check`` fails when one is stale."""

from __future__ import annotations

import sys
from pathlib import Path

from hasys.model.events import CATALOGUE
from hasys.placement.policy import TABLE, Policy, Situation

PAGES = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE = "<!-- made by tools/reference.py: change the table in the code, then run it -->\n"


def placement() -> str:
    """The role table."""
    lines = [
        "# What moves a group by itself",
        "",
        MADE,
        "What happens to a group, given how its node stands and what the operator allows",
        "(`hasys/placement/policy.py`). The first situation that applies counts, from the top.",
        "Operators' commands act beside this table: neither Manual nor a pause holds them up.",
        "",
        "| situation | " + " | ".join(f"{policy}" for policy in Policy) + " |",
        "|---|" + "---|" * len(Policy),
    ]
    for situation in Situation:
        outcomes = " | ".join(str(TABLE[situation, policy]) for policy in Policy)
        lines.append(f"| {situation} | {outcomes} |")
    return "\n".join(lines) + "\n"


def events() -> str:
    """The catalogue of event reasons."""
    lines = ["# Events", "", MADE, "| reason | grade | text | meaning |", "|---|---|---|---|"]
    lines += [f"| {r.name} | {r.grade} | `{r.template}` | {r.meaning} |" for r in CATALOGUE.values()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check every page."""
    stale = []
    for name, text in (("placement.md", placement()), ("events.md", events())):
        page = PAGES / name
        if "--check" in sys.argv:
            if not page.exists() or page.read_text() != text:
                stale.append(name)
        else:
            PAGES.mkdir(parents=True, exist_ok=True)
            page.write_text(text)
    for name in stale:
        print(f"docs/reference/{name} is stale: run python tools/reference.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
