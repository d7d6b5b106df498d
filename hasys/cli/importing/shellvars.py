"""Reads a file of shell assignments without a shell: names, plain values, and what cannot be read that way."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_PLAIN = re.compile(r"[^\s\"'\\$`;&|<>()#]*")


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line. ``trouble`` says why the value is not known; then ``value`` is its text as it stands."""

    line: int
    name: str
    value: str
    trouble: str = ""


def read(text: str) -> tuple[list[Assignment], list[str]]:
    """The assignments in order, and one line of text for each line that is none."""
    found: list[Assignment] = []
    other: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            other.append(f"line {number}: {line.strip()[:80]}")
            continue
        value = _value(match[2])
        if value is None:
            raw = match[2].strip()[:80]
            found.append(Assignment(number, match[1], raw, "its value takes a shell to know: write it out"))
        else:
            found.append(Assignment(number, match[1], value))
    return found, other


def _value(text: str) -> str | None:
    """The value of a word without expansions; None when only a shell can tell. Comments behind it are dropped."""
    parts: list[str] = []
    position = 0
    while position < len(text) and not text[position].isspace():
        quote = text[position]
        if quote in "\"'":
            end = text.find(quote, position + 1)
            inside = text[position + 1 : end]
            if end < 0 or (quote == '"' and set(inside) & set("$`\\")):
                return None
            parts.append(inside)
            position = end + 1
            continue
        match = _PLAIN.match(text, position)
        assert match is not None, "the pattern matches the empty text"
        if not match[0]:
            return None
        parts.append(match[0])
        position = match.end()
    rest = text[position:].strip()
    return "".join(parts) if not rest or rest.startswith("#") else None
