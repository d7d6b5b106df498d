"""Reads settings of a spec, with the defaults that the schema states."""

from __future__ import annotations

import ipaddress
import re

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from hasys.v1 import objects_pb2, rules_pb2

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(message: Message, field: str) -> float:
    """A duration in seconds; the schema's default when absent, 0 when there is none."""
    if message.HasField(field):
        value: Duration = getattr(message, field)
        return value.seconds + value.nanos / 1e9
    return _parse(default(message, field) or "0s")


def text(message: Message, field: str) -> str:
    """A string; the schema's default when empty."""
    return str(getattr(message, field)) or default(message, field)


def default(message: Message, field: str) -> str:
    """The default that the schema states, in manifest spelling; empty when none."""
    options = message.DESCRIPTOR.fields_by_name[field].GetOptions()
    return str(options.Extensions[rules_pb2.rule].default_value)


def retries(restart: objects_pb2.Restart) -> int:
    """Restarts in place; absent means the default, a written 0 means none."""
    if restart.HasField("retries"):
        return restart.retries
    return int(default(restart, "retries"))


def interface_on(spec: objects_pb2.VirtualIPSpec, node: str) -> str:
    """The interface of a virtual IP on this node; empty when the spec names none for it."""
    return spec.interface.per_node.get(node, "") or spec.interface.name


def address_of(spec: objects_pb2.VirtualIPSpec) -> str:
    """The address of a virtual IP in canonical spelling, without prefix length."""
    return str(ipaddress.ip_interface(spec.address).ip)


def _parse(value: str) -> float:
    match = re.fullmatch(r"([0-9.]+)(ms|s|m|h)", value)
    assert match is not None, f"default {value!r} in the schema is no duration"
    return float(match[1]) * _UNITS[match[2]]
