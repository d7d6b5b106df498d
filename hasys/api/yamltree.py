"""YAML text as a small tree with line numbers. Bounded: no aliases, no tags, limited depth and size, no recursion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

DEPTH = 24
"""Deepest nesting: more than any object of ours has."""
NODES = 200_000
"""Most values in one text."""
LONGEST = 4 * 1024 * 1024
"""Most characters of one text."""

_NUMBER = re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][-+]?\d+)?|0x[0-9a-fA-F]+|0o[0-7]+", re.ASCII)
_NOTHING = ("", "~", "null", "Null", "NULL")
_TRUTH = ("true", "True", "TRUE", "false", "False", "FALSE")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAG = "tag:yaml.org,2002:str"


def means(text: str) -> str:
    """What a value without quotes is: ``nothing``, a ``truth`` value, a ``number`` or ``text``. Stricter than YAML 1.1
    and 1.2 together: what either might take for a number is none of our text."""
    if text in _NOTHING:
        return "nothing"
    if text in _TRUTH:
        return "truth"
    return "number" if _NUMBER.fullmatch(text) else "text"


class YamlFault(Exception):
    """The text is no YAML of ours; ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value. ``plain``: written without quotes, so that ``5`` is a number and ``true`` a truth value."""

    line: int
    text: str
    plain: bool


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with values, in order; ``repeated`` keys are listed apart."""

    line: int
    entries: dict[str, Value] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    """Line of each key."""
    repeated: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    line: int
    items: list[Value] = field(default_factory=list)


Value: TypeAlias = Scalar | Mapping | Items


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read; ``key`` is the mapping's key that waits for its value."""

    node: Mapping | Items
    key: Scalar | None = None


def parse(text: str) -> Iterator[Value]:
    """The documents of a text. Raises :class:`YamlFault` where it cannot go on."""
    if len(text) > LONGEST:
        raise YamlFault(1, f"more than {LONGEST >> 20} MiB: split it")
    try:
        yield from _documents(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None) or getattr(e, "context_mark", None)
        problem = getattr(e, "problem", None) or getattr(e, "reason", None) or str(e).partition("\n")[0]
        raise YamlFault(mark.line + 1 if mark else 1, f"no YAML: {problem}") from None
    except UnicodeError:
        raise YamlFault(1, "no YAML: it contains what is no text") from None


def _documents(text: str) -> Iterator[Value]:
    stack: list[_Open] = []
    count = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise YamlFault(line, "aliases (*name) are not supported: write the value out")
        if isinstance(event, yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent):
            count += 1
            if count > NODES:
                raise YamlFault(line, f"more than {NODES} values: split it")
            node = _node(event, line)
            if not isinstance(node, Scalar):
                if len(stack) >= DEPTH:
                    raise YamlFault(line, f"nested deeper than {DEPTH} levels")
                stack.append(_Open(node))
                continue
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            node = stack.pop().node
        else:
            continue
        if not stack:
            yield node
        else:
            _put(stack[-1], node)


def _node(event: yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int) -> Value:
    if event.tag not in (None, "!", _TEXT_TAG):
        raise YamlFault(line, f"the tag {event.tag[:60]} is not supported: take it out")
    if isinstance(event, yaml.MappingStartEvent):
        return Mapping(line)
    if isinstance(event, yaml.SequenceStartEvent):
        return Items(line)
    return Scalar(line, event.value, plain=event.tag is None and not event.style)


def _put(parent: _Open, node: Value) -> None:
    if isinstance(parent.node, Items):
        parent.node.items.append(node)
    elif parent.key is None:
        if not isinstance(node, Scalar):
            raise YamlFault(node.line, "a key must be plain text")
        parent.key = node
    else:
        key, parent.key = parent.key, None
        if key.text in parent.node.entries:
            parent.node.repeated.append((key.text, key.line))
        else:
            parent.node.entries[key.text] = node
            parent.node.lines[key.text] = key.line
