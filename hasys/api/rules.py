"""Interprets the rules that fields of the schema carry: defaults, checks, immutable fields. No kind is named here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from hasys.api.convert import nanoseconds, parse_duration, show_duration
from hasys.api.formats import CHECKS
from hasys.v1 import rules_pb2

LONGEST_TEXT = 16 * 1024
"""Most characters of a string without a rule of its own."""
MOST_ITEMS = 1_000
"""Most items of a list or map without a rule of its own."""

Problem = tuple[str, str]
"""Field path in manifest spelling, and what is wrong with it."""

_INTEGERS = (
    FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message, with what its rule says."""

    name: str
    """Name in Python and in the schema."""
    spelling: str
    """Name in manifests: lowerCamelCase."""
    descriptor: FieldDescriptor
    rule: rules_pb2.Rule
    repeated: bool
    map: bool
    duration: bool
    message: Descriptor | None
    """Of a nested message that has fields of ours; for maps of the value."""
    shortest: int
    longest: int
    """Of a duration, in nanoseconds; ``longest`` 0: no limit."""
    form: Callable[[str], str] | None
    """Checks the text form of a value; ``key_form`` that of a map's key."""
    key_form: Callable[[str], str] | None
    needed: bool
    """Its absence may be a fault: it is looked at although it is not set."""


@cache
def fields_of(descriptor: Descriptor) -> tuple[Field, ...]:
    """The fields of a message in schema order."""
    return tuple(_field(one) for one in descriptor.fields)


@cache
def unions_of(descriptor: Descriptor) -> tuple[tuple[tuple[str, ...], bool], ...]:
    """Groups of fields of which one at most may be set, and whether one must."""
    return tuple((tuple(one.fields), one.required) for one in descriptor.GetOptions().Extensions[rules_pb2.union])


@cache
def shorthand_of(descriptor: Descriptor) -> tuple[str, str]:
    """Fields that a plain value and a mapping stand for in manifests; empty when there is no shorthand."""
    option = descriptor.GetOptions().Extensions[rules_pb2.shorthand]
    return option.scalar, option.mapping


def _field(one: FieldDescriptor) -> Field:
    rule = one.GetOptions().Extensions[rules_pb2.rule]
    nested = one.message_type
    is_map = nested is not None and nested.GetOptions().map_entry
    if nested is not None and is_map:
        nested = nested.fields_by_name["value"].message_type
    is_duration = nested is not None and nested.full_name == "google.protobuf.Duration"
    ours = nested is not None and not nested.full_name.startswith("google.protobuf.")
    return Field(
        name=one.name,
        spelling=str(one.json_name),
        descriptor=one,
        rule=rule,
        repeated=bool(one.is_repeated),
        map=bool(is_map),
        duration=is_duration,
        message=nested if ours else None,
        shortest=nanoseconds(parse_duration(rule.min_duration)) if rule.min_duration else 0,
        longest=nanoseconds(parse_duration(rule.max_duration)) if rule.max_duration else 0,
        form=CHECKS.get(rule.format),
        key_form=CHECKS.get(rule.key_format),
        needed=rule.required or rule.min_items > 0 or (rule.has_minimum and rule.minimum > 0 and not one.has_presence),
    )


# ---------------------------------------------------------------- defaults


@cache
def _defaulted(descriptor: Descriptor) -> tuple[Field, ...]:
    """The fields that have a default, or hold messages with such fields."""
    return tuple(
        field
        for field in fields_of(descriptor)
        if field.rule.default_value or (field.message is not None and _defaulted(field.message))
    )


def fill_defaults(message: Message) -> None:
    """Write every absent field that has a default, in this message and in those it holds."""
    for field in _defaulted(message.DESCRIPTOR):
        if field.rule.default_value:
            _fill(message, field)
        if field.message is None:
            continue
        if field.map:
            for nested in getattr(message, field.name).values():
                fill_defaults(nested)
        elif field.repeated:
            for nested in getattr(message, field.name):
                fill_defaults(nested)
        elif message.HasField(field.name):
            fill_defaults(getattr(message, field.name))


def _fill(message: Message, field: Field) -> None:
    default = field.rule.default_value
    if field.duration:
        if not message.HasField(field.name):
            getattr(message, field.name).CopyFrom(_duration(default))
    elif field.message is not None:
        if not message.HasField(field.name):
            getattr(message, field.name).SetInParent()
    elif field.descriptor.type == FieldDescriptor.TYPE_STRING:
        if not getattr(message, field.name):
            setattr(message, field.name, default)
    elif field.descriptor.type in _INTEGERS and field.descriptor.has_presence and not message.HasField(field.name):
        setattr(message, field.name, int(default))


@cache
def _duration(default: str) -> Duration:
    """Only to be copied."""
    return parse_duration(default)


# ---------------------------------------------------------------- checks


def check(message: Message, path: str) -> Iterator[Problem]:
    """Everything that the rules find wrong in a message at this path. Never raises."""
    present = {descriptor.name for descriptor, _ in message.ListFields()}
    unnamed = shorthand_of(message.DESCRIPTOR)  # in a manifest their values stand where the message would
    for field in fields_of(message.DESCRIPTOR):
        if not field.needed and field.name not in present:
            continue
        here = path if field.name in unnamed else ".".join(filter(None, (path, field.spelling)))
        value = getattr(message, field.name)
        if field.map:
            yield from _check_map(value, field, here)
        elif field.repeated:
            yield from _check_list(value, field, here)
        elif field.descriptor.message_type is not None:
            yield from _check_message(message, value, field, here)
        else:
            yield from _check_scalar(value, field, here)
    for names, required in unions_of(message.DESCRIPTOR):
        yield from _check_union(message, names, required, present, path)


def _check_map(value: Any, field: Field, path: str) -> Iterator[Problem]:
    yield from _check_count(len(value), field, path)
    for key in sorted(value):
        here = f"{path}.{key[:60]}"
        problem = field.key_form(key) if field.key_form else _check_text(key, 256)
        if problem:
            yield here, problem
        item = value[key]
        if field.message is not None:
            yield from check(item, here)
        elif isinstance(item, str) and (problem := _check_text(item, LONGEST_TEXT) or _form(field.form, item)):
            yield here, problem


def _check_list(value: Any, field: Field, path: str) -> Iterator[Problem]:
    yield from _check_count(len(value), field, path)
    for number, item in enumerate(value[: MOST_ITEMS + 1]):
        here = f"{path}[{number}]"
        if field.message is not None:
            yield from check(item, here)
        elif isinstance(item, str) and (problem := _check_text(item, LONGEST_TEXT) or _form(field.form, item)):
            yield here, problem


def _check_count(count: int, field: Field, path: str) -> Iterator[Problem]:
    most = field.rule.max_length or MOST_ITEMS
    if count > most:
        yield path, f"{count} items: at most {most}"
    elif count < field.rule.min_items or (field.rule.required and not count):
        least = max(field.rule.min_items, 1)
        yield path, f"must have at least {least} item{'s' if least > 1 else ''}"


def _check_message(parent: Message, value: Any, field: Field, path: str) -> Iterator[Problem]:
    if not parent.HasField(field.name):
        if field.rule.required:
            yield path, "is missing"
    elif field.duration:
        yield from _check_duration(value, field, path)
    elif field.message is not None:
        yield from check(value, path)


def _check_duration(value: Duration, field: Field, path: str) -> Iterator[Problem]:
    total = nanoseconds(value)
    if total < field.shortest or (value.seconds > 0 > value.nanos) or not -1e9 < value.nanos < 1e9:
        yield path, f"{show_duration(value)} is too short: at least {field.rule.min_duration or '0s'}"
    elif field.longest and total > field.longest:
        yield path, f"{show_duration(value)} is too long: at most {field.rule.max_duration}"


def _check_scalar(value: Any, field: Field, path: str) -> Iterator[Problem]:
    rule = field.rule
    if rule.required and not value:
        yield path, "is missing"
    elif isinstance(value, str):
        problem = _check_text(value, rule.max_length or LONGEST_TEXT)
        if value and not problem:
            problem = _form(field.form, value)
        if problem:
            yield path, problem
    elif field.descriptor.enum_type is not None:
        if value not in field.descriptor.enum_type.values_by_number:
            names = ", ".join(one.name for one in field.descriptor.enum_type.values)
            yield path, f"{value} is unknown: use one of {names}"
    elif isinstance(value, int):
        if rule.has_minimum and value < rule.minimum:
            yield path, f"{value} is too small: at least {rule.minimum}"
        elif rule.has_maximum and value > rule.maximum:
            yield path, f"{value} is too large: at most {rule.maximum}"


def _check_text(text: str, longest: int) -> str:
    if len(text) > longest:
        return f"{len(text)} characters: at most {longest}"
    return "contains a NUL character" if "\0" in text else ""


def _form(check_form: Callable[[str], str] | None, text: str) -> str:
    return check_form(text) if check_form is not None else ""


def _check_union(
    message: Message, names: tuple[str, ...], required: bool, present: set[str], path: str
) -> Iterator[Problem]:
    given = [name for name in names if name in present]
    if len(given) == 1 or not (given or required):
        return
    spellings = {field.name: field.spelling for field in fields_of(message.DESCRIPTOR)}
    if given:
        yield path, f"has both {' and '.join(spellings[name] for name in given)}: give one of them"
    else:
        yield path, f"must have one of {' or '.join(spellings[name] for name in names)}"


# ---------------------------------------------------------------- immutable fields


@cache
def _guarded(descriptor: Descriptor) -> tuple[Field, ...]:
    """The fields that are immutable, or hold one message with such fields."""
    return tuple(
        field
        for field in fields_of(descriptor)
        if field.rule.immutable or (field.message is not None and not field.repeated and _guarded(field.message))
    )


def immutable_changes(old: Message, new: Message, path: str) -> Iterator[Problem]:
    """The immutable fields that differ between two messages of one type."""
    for field in _guarded(old.DESCRIPTOR):
        here = f"{path}.{field.spelling}"
        if field.rule.immutable:
            if getattr(old, field.name) != getattr(new, field.name):
                yield here, "cannot change: delete the object, wait until it is gone, and create it again"
        elif field.message is not None and not field.repeated:
            yield from immutable_changes(getattr(old, field.name), getattr(new, field.name), here)
