"""Manifests: YAML to objects, with file, line and field in every message; all faults at once, and nothing half read.

The schema decides: field names are its names in lowerCamelCase, types are its types, durations carry units, enums are
names, and a message with a ``shorthand`` may be written as a plain value or a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from hasys.api import rules, yamltree
from hasys.api.convert import parse_duration
from hasys.api.errors import Fault
from hasys.api.kinds import API_VERSION, KINDS, Kind, Ref, ref_of, wrap
from hasys.api.render import to_json, to_yaml
from hasys.api.validation import check_alone
from hasys.api.yamltree import Items, Mapping, Scalar, Value, YamlFault, means
from hasys.model.errors import Refused
from hasys.model.lines import one_line
from hasys.v1 import objects_pb2 as pb

__all__ = ["Manifests", "load", "to_json", "to_yaml"]

FAULTS = 100
"""Faults after which reading stops."""

_NUMBER = re.compile(r"[-+]?\d+", re.ASCII)
_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_OBSERVED = ("uid", "generation", "created", "deleting")
"""Metadata that is printed and, when read back, not asked for."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where an object was written: file, and the line of each of its fields."""

    file: str
    line: int
    lines: dict[str, int]

    def line_of(self, path: str) -> int:
        """The line of a field, or of the closest one around it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.line


@dataclass(slots=True)
class Manifests:
    """Objects in the order in which they were written."""

    objects: list[pb.Object] = field(default_factory=list)
    _origins: dict[Ref, _Origin] = field(default_factory=dict)

    def where(self, fault: Fault) -> str:
        """A fault that the server found, as ``FILE:LINE: field: message``."""
        origin = self._origins.get(fault.ref)
        if origin is None:
            return str(fault)
        what = f"{fault.field}: {fault.message}" if fault.field else fault.message
        return one_line(f"{origin.file}:{origin.line_of(fault.field)}: {what}")


def load(sources: Sequence[tuple[str, str]]) -> Manifests:
    """Read (file name, text) pairs. Raises ``Refused``: one line per fault, sorted as written."""
    manifests = Manifests()
    faults: list[str] = []
    for file, text in sources:
        reader = _Reader(file)
        for obj, origin in reader.objects(text):
            ref = ref_of(obj)
            earlier = manifests._origins.get(ref)
            if earlier is not None and ref.name:
                reader.fault(origin.line_of("metadata.name"), "metadata.name", _twice(ref, earlier))
                continue
            manifests.objects.append(obj)
            manifests._origins[ref] = origin
        faults += [text for _, text in sorted(reader.faults, key=lambda one: one[0])]
        if len(faults) >= FAULTS:
            break
    if not faults and not manifests.objects:
        faults = [f"{', '.join(file for file, _ in sources) or 'input'}: no object in it"]
    if faults:
        more = [f"... and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
        raise Refused("\n".join(faults[:FAULTS] + more))
    return manifests


def _twice(ref: Ref, earlier: _Origin) -> str:
    return f"{ref} was given at {earlier.file}:{earlier.line} already: take one out"


class _Reader:
    """Reads one file; collects faults as (line, text)."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lines: dict[str, int] = {}
        """Of the object that is being read: line of each field."""
        self._faulty: set[str] = set()
        """Of the same object: fields that could not be read."""
        self.faults: list[tuple[int, str]] = []

    def fault(self, line: int, path: str, message: str) -> None:
        """Note what is wrong where."""
        self._faulty.add(path)
        self.faults.append((line, one_line(f"{self._file}:{line}: {path + ': ' if path else ''}{message}")))

    def objects(self, text: str) -> Iterator[tuple[pb.Object, _Origin]]:
        """The objects that could be read without a fault of their own."""
        try:
            for document in yamltree.parse(text):
                if not (isinstance(document, Scalar) and _is_nothing(document)):
                    yield from self._document(document)
        except YamlFault as e:
            self.fault(e.line, "", e.message)

    def _document(self, value: Value) -> Iterator[tuple[pb.Object, _Origin]]:
        if not isinstance(value, Mapping):
            self.fault(value.line, "", "expected an object with apiVersion, kind, metadata and spec")
            return
        items = value.entries.get("items")
        if self._text_at(value, "kind") == "List" and isinstance(items, Items):
            for item in items.items:
                yield from self._object(item)
            return
        yield from self._object(value)

    def _object(self, value: Value) -> Iterator[tuple[pb.Object, _Origin]]:
        if not isinstance(value, Mapping):
            self.fault(value.line, "", "expected an object with apiVersion, kind, metadata and spec")
            return
        before, self._lines, self._faulty = len(self.faults), {}, set()
        kind = self._kind(value)
        if kind is None:
            return
        message = kind.message()
        known = {"apiVersion", "kind", "metadata", *(one.spelling for one in rules.fields_of(message.DESCRIPTOR))}
        for name, line in value.repeated:
            self.fault(line, name, "is given twice: take one out")
        for name in value.entries:
            if name not in known:
                self.fault(value.lines[name], name, f"unknown field{_closest(name, known)}")
        for one in rules.fields_of(message.DESCRIPTOR):
            if one.spelling in value.entries and one.name != "status":
                self._lines[one.spelling] = value.lines[one.spelling]
                self._field(message, one, value.entries[one.spelling], one.spelling)
        for name in _OBSERVED:
            message.metadata.ClearField(name)  # type: ignore[attr-defined]
        obj, origin = wrap(message), _Origin(self._file, value.line, self._lines)  # type: ignore[arg-type]
        self._check(obj, origin, known_faults=bool(self._faulty))
        if len(self.faults) == before:
            yield obj, origin

    def _check(self, obj: pb.Object, origin: _Origin, *, known_faults: bool) -> None:
        """The rules of the schema. Beside a field that could not be read, what follows from its absence is left out."""
        for found in check_alone(obj):
            follows = known_faults and (
                found.field not in self._lines or any(path.startswith(found.field) for path in self._faulty)
            )
            if not follows:
                self.fault(origin.line_of(found.field), found.field, found.message)

    def _kind(self, value: Mapping) -> Kind | None:
        version = self._text_at(value, "apiVersion")
        if version != API_VERSION:
            line = value.lines.get("apiVersion", value.line)
            self.fault(line, "apiVersion", f"is {version!r}: write {API_VERSION}" if version else
                       f"is missing: write {API_VERSION}")  # fmt: skip
        name = self._text_at(value, "kind")
        kind = KINDS.get(name)
        if kind is None:
            line = value.lines.get("kind", value.line)
            applied = [one.name for one in KINDS.values() if one.applied]
            what = f"{name[:40]!r} is unknown" if name else "is missing"
            self.fault(line, "kind", f"{what}: use one of {', '.join(applied)}")
        return kind if version == API_VERSION else None

    @staticmethod
    def _text_at(value: Mapping, name: str) -> str:
        found = value.entries.get(name)
        return found.text if isinstance(found, Scalar) else ""

    # ------------------------------------------------------------ messages and fields

    def _message(self, message: Message, value: Value, path: str) -> None:
        scalar, mapping = rules.shorthand_of(message.DESCRIPTOR)
        fields = {one.name: one for one in rules.fields_of(message.DESCRIPTOR)}
        if scalar and isinstance(value, Scalar):
            self._field(message, fields[scalar], value, path)
            return
        if mapping and isinstance(value, Mapping):
            self._field(message, fields[mapping], value, path)
            return
        if not isinstance(value, Mapping):
            what = "text or a mapping" if scalar else "a mapping"
            self.fault(value.line, path, f"expected {what}, got {_what(value)}")
            return
        message.SetInParent()
        spellings = {one.spelling: one for one in fields.values()}
        self._repeated(value, path)
        for name, item in value.entries.items():
            here = f"{path}.{name}"
            one = spellings.get(name)
            if one is None:
                self.fault(value.lines[name], here[:200], f"unknown field{_closest(name, spellings)}")
                continue
            self._lines[here] = value.lines[name]
            self._field(message, one, item, here)

    def _repeated(self, value: Mapping, path: str) -> None:
        for name, line in value.repeated:
            self.fault(line, f"{path}.{name}"[:200], "is given twice: take one out")

    def _field(self, message: Message, one: rules.Field, value: Value, path: str) -> None:
        if isinstance(value, Scalar) and _is_nothing(value):
            return
        if one.map:
            self._map(message, one, value, path)
        elif one.repeated:
            self._list(message, one, value, path)
        elif one.message is not None:
            self._message(getattr(message, one.name), value, path)
        elif isinstance(value, Scalar):
            self._scalar(message, one, value, path)
        else:
            self.fault(value.line, path, f"expected {_wanted(one)}, got {_what(value)}")

    def _list(self, message: Message, one: rules.Field, value: Value, path: str) -> None:
        if not isinstance(value, Items):
            example = f": write [{value.text[:40]}]" if isinstance(value, Scalar) else ""
            self.fault(value.line, path, f"expected a list, got {_what(value)}{example}")
            return
        target: Any = getattr(message, one.name)
        for number, item in enumerate(value.items):
            here = f"{path}[{number}]"
            self._lines[here] = item.line
            if one.message is not None:
                self._message(target.add(), item, here)
            elif isinstance(item, Scalar):
                plain = self._plain(one, item, here)
                if plain is not None:
                    target.append(plain)
            else:
                self.fault(item.line, here, f"expected {_wanted(one)}, got {_what(item)}")

    def _plain(self, one: rules.Field, value: Scalar, path: str) -> str | int | None:
        """An item of a list; None after a fault."""
        if one.descriptor.type == FieldDescriptor.TYPE_STRING:
            return self._text(value, path)
        return self._enum(one, value, path) if one.descriptor.enum_type is not None else self._integer(one, value, path)

    def _map(self, message: Message, one: rules.Field, value: Value, path: str) -> None:
        if not isinstance(value, Mapping):
            self.fault(value.line, path, f"expected a mapping, got {_what(value)}")
            return
        self._repeated(value, path)
        target: Any = getattr(message, one.name)
        for name, item in value.entries.items():
            here = f"{path}.{name}"[:200]
            self._lines[here] = value.lines[name]
            if one.message is not None:
                self._message(target[name], item, here)
            elif isinstance(item, Scalar):
                text = self._text(item, here)
                if text is not None:
                    target[name] = text
            else:
                self.fault(item.line, here, f"expected text, got {_what(item)}")

    # ------------------------------------------------------------ values

    def _scalar(self, message: Message, one: rules.Field, value: Scalar, path: str) -> None:
        kind = one.descriptor.type
        if one.duration:
            try:
                getattr(message, one.name).CopyFrom(parse_duration(value.text))
            except ValueError as e:
                self.fault(value.line, path, str(e))
        elif one.descriptor.message_type is not None:
            return  # a time: printed, never asked for
        elif kind == FieldDescriptor.TYPE_STRING:
            text = self._text(value, path)
            if text is not None:
                setattr(message, one.name, text)
        elif kind == FieldDescriptor.TYPE_BOOL:
            if value.plain and means(value.text) == "truth":
                setattr(message, one.name, value.text.lower() == "true")
            else:
                self.fault(value.line, path, f"expected true or false, got {_what(value)}")
        elif kind == FieldDescriptor.TYPE_ENUM:
            self._set(message, one, self._enum(one, value, path))
        else:
            self._set(message, one, self._integer(one, value, path))

    @staticmethod
    def _set(message: Message, one: rules.Field, value: int | None) -> None:
        if value is not None:
            setattr(message, one.name, value)

    def _text(self, value: Scalar, path: str) -> str | None:
        if _is_nothing(value):
            self.fault(value.line, path, 'expected text, got nothing: write "" or take it out')
        elif value.plain and means(value.text) != "text":
            self.fault(value.line, path, f'expected text, got {_what(value)}: write "{value.text[:40]}" in quotes')
        elif any("\ud800" <= character <= "\udfff" for character in value.text):
            self.fault(value.line, path, "contains what is no text")
        else:
            return value.text
        return None

    def _enum(self, one: rules.Field, value: Scalar, path: str) -> int | None:
        kind = one.descriptor.enum_type
        names = kind.values_by_name if kind is not None else {}
        if value.text in names:
            return int(names[value.text].number)
        self.fault(value.line, path, f"{value.text[:40]!r} is unknown: use one of {', '.join(names)}")
        return None

    def _integer(self, one: rules.Field, value: Scalar, path: str) -> int | None:
        if not value.plain or not _NUMBER.fullmatch(value.text):
            self.fault(value.line, path, f"expected a whole number, got {_what(value)}")
            return None
        least, most = _RANGES[one.descriptor.type]
        if len(value.text) > 20 or not least <= int(value.text) <= most:
            self.fault(value.line, path, f"{value.text[:40]} is out of range: {least} to {most}")
            return None
        return int(value.text)


def _is_nothing(value: Scalar) -> bool:
    return value.plain and means(value.text) == "nothing"


def _what(value: Value) -> str:
    """How a message names what was found."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Items):
        return "a list"
    text = value.text if len(value.text) <= 40 else value.text[:37] + "..."
    if not value.plain:
        return f"the text {text!r}"
    match means(value.text):
        case "nothing":
            return "nothing"
        case "truth":
            return text
        case "number":
            return f"the number {text}"
    return repr(text)


def _wanted(one: rules.Field) -> str:
    if one.duration:
        return "a duration like 1.5s"
    return {
        FieldDescriptor.TYPE_STRING: "text",
        FieldDescriptor.TYPE_BOOL: "true or false",
        FieldDescriptor.TYPE_ENUM: "a name",
    }.get(one.descriptor.type, "a whole number")


def _closest(name: str, known: Any) -> str:
    """``; did you mean 'after'?`` or, without anything close, the list of what is known."""
    found = get_close_matches(name[:64], list(known), n=1)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f"; known are {', '.join(sorted(known))}" if len(known) <= 16 else ""
