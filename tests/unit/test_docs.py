"""The documents name only what exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hasys.cli.main import app

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w./-]+?\.(?:py|txt))(?:::(\w+))?`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SOURCE = re.compile(r"(?<![\w./-])((?:\w+/)+[\w-]+\.(?:py|proto|sh))\b")
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
PAGES = sorted([ROOT / "README.md", ROOT / "witness" / "README.md", *(ROOT / "docs").rglob("*.md")])
TYPED = [page for page in PAGES if page.parent.name != "decisions"]
"""Decisions also name commands that were decided against."""


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


def _typed(page: Path) -> Iterator[str]:
    """What a page tells its reader to type: each line of a fenced block, and what stands between backticks."""
    text = page.read_text("utf-8")
    for block in FENCED.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def _unknown(words: list[str]) -> str:
    """The first of these words after ``hasys`` that is no command or option; empty: all are."""
    command: click.Command = app
    while isinstance(command, click.Group) and words and words[0][0].islower():
        found = [command.get_command(click.Context(command), name) for name in words[0].replace("\\", "").split("|")]
        if found[0] is None or None in found:
            return words[0]
        command, words = found[0], words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    own = words[: words.index("--")] if "--" in words else words
    options = [match[0] for word in own if (match := re.match(r"--?[a-z][a-z-]*", word.lstrip("[")))]
    return next((name for name in options if name not in known | {"--help", "--context"}), "")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_source_files_a_page_names_exist(page: Path) -> None:
    named = set(SOURCE.findall(page.read_text("utf-8")))
    assert [n for n in sorted(named) if not ((ROOT / n).exists() or (ROOT / "hasys" / n).exists())] == []


@pytest.mark.parametrize("page", TYPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_commands_and_options_a_page_names_exist(page: Path) -> None:
    commands = [m[1] for line in _typed(page) if (m := re.match(r"(?:sudo )?hasys ([a-z-].*)", line))]
    assert [c for c in commands if _unknown(c.split("  #")[0].split())] == []


@pytest.mark.parametrize("page", TYPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_make_targets_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = {m[1] for line in _typed(page) if (m := re.match(r"make ([a-z-]+)", line))}
    assert named <= targets
