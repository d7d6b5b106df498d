"""What an import makes: objects of a manifest, and every setting that it could not carry over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass
class Imported:
    """Collected while reading. ``left`` has one line per setting that was not translated, with the reason; ``notes``
    what works differently from now on."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    """(group, name) of every object -> the number of the last one that wanted the same name."""

    def add(self, kind: str, name: str, spec: Mapping[str, Any], group: str = "") -> str:
        """One object; its name is made unique in the group. Returns the name."""
        unique, number = name, self._numbers.get((group, name), 1)
        while (group, unique) in self._numbers:
            number += 1
            unique = f"{name[:58]}-{number}"
        self._numbers[group, name] = number
        self._numbers.setdefault((group, unique), 1)
        metadata = {"name": unique, **({"group": group} if group else {})}
        self.objects.append({"apiVersion": "hasys/v1", "kind": kind, "metadata": metadata, "spec": dict(spec)})
        return unique

    def leave(self, where: str, why: str) -> None:
        """A setting that is not carried over."""
        self.left.append(f"{where}: {why}")

    def note(self, text: str) -> None:
        """A setting that is carried over, and what is different."""
        self.notes.append(text)

    def manifest(self, source: str) -> str:
        """The objects as YAML, with what was left out, and what is different, as a comment on top."""
        head = [f"# Made by 'hasys import' from {one_line(source)}. Read it before you apply it."]
        if self.left:
            head += ["# Not translated:", *(f"#   {one_line(line)}" for line in self.left)]
        if self.notes:
            head += ["# Different from now on:", *(f"#   {one_line(line)}" for line in self.notes)]
        body = yaml.safe_dump_all(self.objects, sort_keys=False, default_flow_style=None, width=110)
        return "\n".join(head) + "\n" + (body if self.objects else "")


def label(text: str, otherwise: str) -> str:
    """A DNS label that resembles the text."""
    found = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-")
    return found or otherwise


def one_line(text: str) -> str:
    """Printable, on one line, bounded: it stands in a comment."""
    return "".join(c if c.isprintable() else "?" for c in text)[:300]


def nodes_of(given: Sequence[str]) -> list[dict[str, Any]]:
    """``n1=100`` and ``n2`` as the nodes of a group; without a priority, each has 50 less than the one before."""
    nodes, priority = [], 100
    for one in given:
        name, _, own = one.partition("=")
        priority = int(own) if own else priority
        nodes.append({"name": name, "priority": max(0, priority)})
        priority -= 50
    return nodes
