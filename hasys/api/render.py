"""Objects as people and scripts read them: structure and spelling of a manifest, defaults included."""

from __future__ import annotations

from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from hasys.api.convert import show_duration, show_time
from hasys.api.kinds import API_VERSION, copy, inner, kind_of
from hasys.api.rules import Field, fields_of, fill_defaults, shorthand_of
from hasys.api.yamltree import means
from hasys.v1 import objects_pb2 as pb

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _ManifestDumper(_Dumper):  # type: ignore[misc]
    """Text of several lines is written as a block."""


def _represent_text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text.rstrip("\n") else "'" if means(text) != "text" else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_ManifestDumper.add_representer(str, _represent_text)


def to_json(obj: pb.Object, *, status: bool = True) -> dict[str, Any]:
    """The object as plain data: integers are numbers, durations are text with units, times are RFC 3339 in UTC. Raises
    ValueError when the envelope is empty."""
    kind = kind_of(obj)
    message = inner(copy(obj))
    assert kind is not None
    if not isinstance(message, pb.Event):
        message.spec.SetInParent()
        fill_defaults(message.spec)
    data = _fields(message)
    if not status:
        data.pop("status", None)
    return {"apiVersion": API_VERSION, "kind": kind.name, **data}


def to_yaml(obj: pb.Object, *, status: bool = True) -> str:
    """The same as YAML, ready to be applied again."""
    return dump(to_json(obj, status=status))


def dump(data: Any) -> str:
    """Plain data as YAML in the order given."""
    text: str = yaml.dump(
        data, Dumper=_ManifestDumper, sort_keys=False, allow_unicode=True, width=1_000_000, default_flow_style=False
    )
    return text


def message_to_json(message: Message) -> Any:
    """A message of the schema as plain data; a shorthand is used where it says the same."""
    scalar, mapping = shorthand_of(message.DESCRIPTOR)
    given = {one.name for one, _ in message.ListFields()}
    if scalar and given == {scalar}:
        return getattr(message, scalar)
    if mapping and given == {mapping}:
        return {key: getattr(message, mapping)[key] for key in sorted(getattr(message, mapping))}
    return _fields(message)


def _fields(message: Message) -> dict[str, Any]:
    return {
        field.spelling: _value(field, getattr(message, field.name))
        for field in fields_of(message.DESCRIPTOR)
        if _is_shown(message, field)
    }


def _is_shown(message: Message, field: Field) -> bool:
    """Empty text, lists, mappings and absent messages are left out; numbers, truth values and names never are."""
    if field.repeated:
        return len(getattr(message, field.name)) > 0
    if field.descriptor.has_presence:
        return message.HasField(field.name)
    if isinstance(message, pb.Metadata) and not getattr(message, field.name):
        return False  # not stored yet: no version to show
    return field.descriptor.type != FieldDescriptor.TYPE_STRING or getattr(message, field.name) != ""


def _value(field: Field, value: Any) -> Any:
    if field.map:
        return {key: _item(field, value[key]) for key in sorted(value)}
    if field.repeated:
        return [_item(field, item) for item in value]
    return _item(field, value)


def _item(field: Field, value: Any) -> Any:
    if field.duration:
        return show_duration(value)
    if field.descriptor.enum_type is not None:
        known = field.descriptor.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if isinstance(value, Message):
        return message_to_json(value) if field.message is not None else show_time(value)  # type: ignore[arg-type]
    return value
