"""The documents name only what exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w./-]+?\.(?:py|txt))(?:::(\w+))?`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PAGES = sorted([ROOT / "README.md", ROOT / "witness" / "README.md", *(ROOT / "docs").rglob("*.md")])


def _tests_of(path: Path) -> set[str]:
    return {
        n.name
        for n in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_guarantee_names_at_least_one_test() -> None:
    sections = re.split(r"^### ", (ROOT / "docs/guarantees.md").read_text("utf-8"), flags=re.M)[1:]
    assert [s[:2] for s in sections] == ["S1", "S1", "S2", "S3", "S4", "S5", "L1", "L2", "L3", "L4"]
    assert [s.splitlines()[0] for s in sections if not NAMED.search(s)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_tests_a_page_names_exist(page: Path) -> None:
    missing = []
    for file, test in NAMED.findall(page.read_text("utf-8")):
        path = ROOT / file
        if not path.is_file() or (test and test not in _tests_of(path)):
            missing.append(f"{file}::{test}" if test else file)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_files_a_page_links_to_exist(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text("utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
