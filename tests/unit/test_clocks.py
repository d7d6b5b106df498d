"""The wall clock labels what people read and decides nothing: nobody but those named here looks at it."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "hasys"
WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today")}
LABELS = {
    "api/convert.py": "the stamp of objects and events",
    "reconciler/reporter.py": "the stamp of an agent's events",
    "guard/oaths.py": "when the operator swore, for the history",
    "guard/main.py": "the stamp of its log",
    "guard/notes.py": "the stamp of a note about its end, for the history",
    "lab/registry.py": "the age of a folder that a killed lab left",
    "cli/cert.py": "how long a certificate is still valid",
    "cli/pki.py": "from when to when a new certificate is valid",
    "cli/columns.py": "the age of an object, for people",
    "monitors/facts.py": "the clock of a machine, shown to people",
    "cli/reach.py": "whether a certificate has expired, for people",
}


def _reads_the_wall_clock(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and ((isinstance(node.value, ast.Name) and (node.value.id, node.attr) in WALL)
             or (isinstance(node.value, ast.Attribute) and (node.value.attr, node.attr) in WALL))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )  # fmt: skip


def test_nobody_else_reads_the_wall_clock() -> None:
    readers = {str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py") if _reads_the_wall_clock(p)}
    assert readers == LABELS.keys()


def test_the_stamp_is_not_read_where_something_is_decided() -> None:
    users = {
        str(p.relative_to(PACKAGE))
        for p in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(p.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module == "hasys.api.convert"
        and any(name.name == "now" for name in node.names)
    }
    pure = {name for name in users if name.startswith(("placement/", "lease/", "model/", "guard/", "store/raft/"))}
    assert users
    assert pure == set()
