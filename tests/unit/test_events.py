"""The catalogue of events: what the code can record is in it, and nothing else is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hasys
from hasys.model import events
from hasys.model.events import CATALOGUE

HERE = Path(hasys.__file__).parent
RECORDERS = {
    "group_event": 1, "node_event": 1, "deleted_event": 9, "cluster_event": 0, "event": 0, "record": 0, "Record": 0,
    "text": 0, "reason": 0,
}  # fmt: skip
"""Functions that take the name of a reason, and at which place."""


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(HERE.rglob("*.py")):
        if "v1" not in path.relative_to(HERE).parts and path.name != "events.py":
            yield path, ast.parse(path.read_text("utf-8"))


def constants(node: ast.AST) -> set[str]:
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def is_reason(text: str) -> bool:
    return text.isalpha() and text[:1].isupper() and not text.isupper()


def named(call: ast.Call, tables: dict[str, set[str]]) -> set[str]:
    """The reasons that this call may record, as far as its text says: a constant, a choice of two, a row of a table."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    place = RECORDERS.get(name)
    if place is None or len(call.args) <= place:
        return set()
    given = call.args[place]
    if isinstance(given, ast.Constant | ast.IfExp):
        parts = [given] if isinstance(given, ast.Constant) else [given.body, given.orelse]
        return {c for part in parts for c in constants(part) if is_reason(c)}
    if isinstance(given, ast.Subscript) and isinstance(given.value, ast.Name):
        return tables.get(given.value.id, set())
    return set()


def test_every_reason_that_the_code_records_is_declared() -> None:
    recorded = {}
    for path, tree in sources():
        tables = {
            target.id: {c for value in node.value.values for c in constants(value)}
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                recorded.update(dict.fromkeys(named(node, tables), f"{path.name}:{node.lineno}"))
    assert len(recorded) > 30, "the search finds the calls"
    assert {name: where for name, where in recorded.items() if name not in CATALOGUE} == {}


def test_every_declared_reason_is_recorded_somewhere() -> None:
    written = {c for path, tree in sources() if "cli" not in path.parts for c in constants(tree)}
    assert [name for name in CATALOGUE if name not in written] == []


def test_an_undeclared_reason_is_refused_with_where_to_declare_it() -> None:
    with pytest.raises(KeyError, match=r"hasys/model/events\.py"):
        events.text("Surprise")


def test_every_reason_says_when_it_is_recorded_and_what_to_do() -> None:
    assert len(CATALOGUE) == len(events._ROWS), "no reason twice"
    assert [r.name for r in CATALOGUE.values() if not (r.meaning.endswith(".") and r.action.endswith("."))] == []
    loud = [r for r in CATALOGUE.values() if r.grade is not events.Grade.NORMAL]
    assert {r.name for r in loud if r.action == events.NOTHING} == {"OathEnded", "OathAdopted"}
