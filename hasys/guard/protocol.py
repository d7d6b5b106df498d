"""What agent and guard say to each other: one JSON object per line over ``runDir/guard.sock``. No socket, no clock.

Both sides use this file, so a line that one writes the other reads. Lines are bounded before they are parsed; anything
that is not exactly a request of this file is refused with one clear line and changes nothing.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hasys.model.level import FIRST
from hasys.model.networks import Fault, Trouble

MAX_LINE = 64 * 1024
"""Longest request in bytes, newline included."""
MAX_ANSWER = 4 * 1024 * 1024
"""Longest answer: status and hello list every group."""
MAX_ENTRIES = 1024
"""Most entries of one plan, and most addresses behind the gate."""
MAX_STORES = 100
"""Most stores; a cluster has no more members."""
MAX_NUMBER = 2**63 - 1
MAX_TEXT = 512
"""Longest free text in characters."""

_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_INTERFACE = re.compile(r"^[^\s/\"\\{};,*$@:]{1,15}$")

PERMITTED, PENDING = "permitted", "pending"
"""Plan states: the current grant names this group, epoch and version; or not (yet)."""


ADOPTED = "the leader took it over"
"""How the end of an oath begins, in a report, when the group went on."""


class BadMessage(ValueError):
    """The line is no message of this protocol; the text is one line. ``id`` is the request's, if it had one."""

    def __init__(self, why: str, id: int = 0) -> None:
        super().__init__(why)
        self.id = id


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One virtual address on one interface. ``address`` has no prefix length and is in canonical spelling."""

    interface: str
    address: str

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4


@dataclass(frozen=True, slots=True, order=True)
class AddressEntry:
    """Plan entry: this resource may put the address on the interface; undone by deleting it there."""

    interface: str
    address: str
    resource: str

    @property
    def key(self) -> Address:
        return Address(self.interface, self.address)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "address", "interface": self.interface, "address": self.address, "resource": self.resource}


@dataclass(frozen=True, slots=True, order=True)
class CgroupEntry:
    """Plan entry: this resource may run processes in the cgroup; undone by killing the cgroup. ``path`` is absolute."""

    path: str
    resource: str

    def to_json(self) -> dict[str, Any]:
        return {"kind": "cgroup", "path": self.path, "resource": self.resource}


@dataclass(frozen=True, slots=True, order=True)
class MountEntry:
    """Plan entry: this resource may mount the device at ``path``; undone by unmounting it there."""

    device: str
    path: str
    resource: str

    def to_json(self) -> dict[str, Any]:
        return {"kind": "mount", "device": self.device, "path": self.path, "resource": self.resource}


Entry: TypeAlias = AddressEntry | CgroupEntry | MountEntry


@dataclass(frozen=True, slots=True)
class Hello:
    """First request of the agent: its process and its cgroup, which a fence kills first."""

    pid: int
    cgroup: str
    networks: tuple[Trouble, ...] | None = None
    """As in :class:`Networks`, if the agent knows it already."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The full set of addresses of every group that this node is a candidate for; all are gated, Standby included."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class StoreAt:
    """A store and where it takes keep-alives: one address per network, in the order of the networks."""

    name: str
    addresses: tuple[str, ...]
    port: int


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of the cluster as of now, in place of those of node.yaml. Never none."""

    stores: tuple[StoreAt, ...]
    level: int = FIRST
    """What all of them understand (:mod:`hasys.model.level`)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the agent is about to do for a group at an epoch; stored durably before the reply."""

    group: str
    epoch: int
    version: int
    """``GroupStatus.resources_version`` that the plan was made from."""
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Permit:
    """May effects of this group and epoch start now?"""

    group: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Release:
    """Everything of the group at this epoch and below was undone: verify, never act for it again, tell the stores."""

    group: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Status:
    """Everything the guard knows, for people."""


@dataclass(frozen=True, slots=True)
class Networks:
    """Every interface that is not well, for the keep-alives; replaces what was said before."""

    troubles: tuple[Trouble, ...]


@dataclass(frozen=True, slots=True)
class Alive:
    """The agent's event loop turns: said whenever the guard pushes a ping, and not answered."""


@dataclass(frozen=True, slots=True)
class Swear:
    """Root only: there is no majority, hold this group by an operator's oath (docs/decisions/0005)."""

    group: str
    epoch: int
    """Above every epoch that the asker knows; the guard takes a higher one if it knows more."""
    cause: str
    """Who asked, and why: for the history."""


@dataclass(frozen=True, slots=True)
class Forswear:
    """Root only: stop holding this group by an oath."""

    group: str
    cause: str


@dataclass(frozen=True, slots=True)
class Told:
    """The store knows of every report up to this serial number."""

    serial: int


@dataclass(frozen=True, slots=True)
class Noted:
    """The store knows of every note up to this serial number."""

    serial: int


@dataclass(frozen=True, slots=True)
class StoodBy:
    """A group that this node would run in its Active's place."""

    epoch: int
    """Above all that the agent knows."""
    outlives: float = 0.0
    """Seconds for which something of it may go on there after its lease: an unmount, a watchdog that has not bitten."""


@dataclass(frozen=True, slots=True)
class Standby:
    """Two nodes: what this node stands by for. Whether it may ever run it, the policy says."""

    groups: Mapping[str, StoodBy]


Request: TypeAlias = (
    Hello | Gate | Stores | Plan | Permit | Release | Status | Networks | Alive | Swear | Forswear | Told | Noted |
    Standby
)  # fmt: skip


def parse_request(line: bytes) -> tuple[int, Request]:
    """The request's id and content. Raises :class:`BadMessage` and nothing else, whatever the bytes are."""
    raw = parse_object(line)
    id = raw.get("id")
    if not is_number(id):
        raise BadMessage("id: expected a number from 0 to 2^63 - 1")
    assert isinstance(id, int)
    try:
        return id, _request(raw)
    except BadMessage as e:
        raise BadMessage(str(e), id) from None


def parse_object(line: bytes, limit: int = MAX_LINE) -> dict[str, Any]:
    """One JSON object from one line of at most ``limit`` bytes. Raises :class:`BadMessage`."""
    if len(line) > limit:
        raise BadMessage(f"line longer than {limit} bytes")
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        raise BadMessage("not a line of JSON") from None
    if not isinstance(raw, dict):
        raise BadMessage("expected a JSON object")
    return raw


def encode(message: Mapping[str, Any], limit: int = MAX_LINE) -> bytes:
    """One line, newline included. Raises :class:`BadMessage` when it is over the limit."""
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    if len(line) > limit:
        raise BadMessage(f"message of {len(line)} bytes is over the limit of {limit}")
    return line


def request_to_json(request: Request) -> dict[str, Any]:
    """The fields of a request, without its id."""
    match request:
        case Hello(pid, cgroup, networks):
            known = {} if networks is None else {"networks": [_trouble_to_json(t) for t in networks]}
            return {"op": "hello", "pid": pid, "cgroup": cgroup, **known}
        case Networks(troubles):
            return {"op": "networks", "networks": [_trouble_to_json(t) for t in troubles]}
        case Gate(addresses):
            return {"op": "gate", "addresses": [{"interface": a.interface, "address": a.address} for a in addresses]}
        case Stores(stores, level):
            told = [{"name": s.name, "addresses": list(s.addresses), "port": s.port} for s in stores]
            return {"op": "stores", "stores": told, "level": level}
        case Plan():
            return {"op": "plan", **plan_to_json(request)}
        case Permit(group, epoch):
            return {"op": "permit", "group": group, "epoch": epoch}
        case Release(group, epoch):
            return {"op": "release", "group": group, "epoch": epoch}
        case Status():
            return {"op": "status"}
        case Alive():
            return {"op": "alive"}
        case Swear(group, epoch, cause):
            return {"op": "swear", "group": group, "epoch": epoch, "cause": cause}
        case Forswear(group, cause):
            return {"op": "forswear", "group": group, "cause": cause}
        case Told(serial):
            return {"op": "told", "serial": serial}
        case Noted(serial):
            return {"op": "noted", "serial": serial}
        case Standby(groups):
            return {
                "op": "standby",
                "groups": [
                    {"group": g, "epoch": by.epoch, "outlives_ms": math.ceil(by.outlives * 1000)}
                    for g, by in groups.items()
                ],
            }


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The same spelling on the socket and on disk."""
    return {
        "group": plan.group,
        "epoch": plan.epoch,
        "version": plan.version,
        "entries": [e.to_json() for e in plan.entries],
    }


def plan_from_json(raw: Mapping[str, Any]) -> Plan:
    """Raises :class:`BadMessage` naming the field."""
    entries = tuple(_entry(e, f"entries[{i}]") for i, e in enumerate(_list(raw, "entries")))
    if len(set(entries)) != len(entries):
        raise BadMessage("entries: the same entry twice")
    return Plan(_name(raw, "group"), _number(raw, "epoch"), _number(raw, "version"), entries)


def address(interface: object, text: object, where: str = "address") -> Address:
    """A checked address; a prefix length is accepted and dropped. Raises :class:`BadMessage`."""
    if not isinstance(interface, str) or not _INTERFACE.match(interface) or not interface.isprintable():
        raise BadMessage(f"{where}.interface: {_shown(interface)} is no interface name")
    if not isinstance(text, str) or "%" in text:
        raise BadMessage(f"{where}.address: {_shown(text)} is no IP address")
    try:
        return Address(interface, str(ipaddress.ip_interface(text).ip))
    except ValueError:
        raise BadMessage(f"{where}.address: {_shown(text)} is no IP address") from None


def _request(raw: Mapping[str, Any]) -> Request:
    match raw.get("op"):
        case "hello":
            networks = _troubles(raw) if "networks" in raw else None
            return Hello(_number(raw, "pid"), _path(raw, "cgroup", "cgroup") if raw.get("cgroup") else "", networks)
        case "networks":
            return Networks(_troubles(raw))
        case "gate":
            found = [_mapping(a, f"addresses[{i}]") for i, a in enumerate(_list(raw, "addresses"))]
            parsed = {address(a.get("interface"), a.get("address"), f"addresses[{i}]") for i, a in enumerate(found)}
            return Gate(tuple(sorted(parsed)))
        case "stores":
            return _stores(raw)
        case "plan":
            return plan_from_json(raw)
        case "permit":
            return Permit(_name(raw, "group"), _number(raw, "epoch"))
        case "release":
            return Release(_name(raw, "group"), _number(raw, "epoch"))
        case "status":
            return Status()
        case "alive":
            return Alive()
        case "swear":
            return Swear(_name(raw, "group"), _number(raw, "epoch"), _text(raw, "cause"))
        case "forswear":
            return Forswear(_name(raw, "group"), _text(raw, "cause"))
        case "told":
            return Told(_number(raw, "serial"))
        case "noted":
            return Noted(_number(raw, "serial"))
        case "standby":
            listed = [_mapping(g, f"groups[{i}]") for i, g in enumerate(_list(raw, "groups"))]
            return Standby(
                {_name(g, "group"): StoodBy(_number(g, "epoch"), _number(g, "outlives_ms") / 1000) for g in listed}
            )
        case other:
            raise BadMessage(
                f"op: {_shown(other)} is unknown: "
                "use hello, gate, stores, plan, permit, release, networks, swear, forswear, told, noted, standby"
                " or status"
            )


def _stores(raw: Mapping[str, Any]) -> Stores:
    listed = [_mapping(s, f"stores[{i}]") for i, s in enumerate(_list(raw, "stores"))]
    stores = tuple(_store(s, f"stores[{i}].") for i, s in enumerate(listed))
    if not 0 < len(stores) <= MAX_STORES or len({s.name for s in stores}) != len(stores):
        raise BadMessage(f"stores: expected 1 to {MAX_STORES} of different names")
    return Stores(stores, _number(raw, "level") if "level" in raw else FIRST)  # an older agent's says none


def _store(raw: Mapping[str, Any], where: str) -> StoreAt:
    port, addresses = raw.get("port"), raw.get("addresses")
    if not is_number(port) or not 0 < port <= 65535:  # type: ignore[operator]
        raise BadMessage(f"{where}port: {_shown(port)} is no port")
    if not isinstance(addresses, list) or not 0 < len(addresses) <= 8:
        raise BadMessage(f"{where}addresses: expected 1 to 8 IP addresses")
    checked = tuple(address("any", a, f"{where}addresses").address for a in addresses)
    return StoreAt(_name(raw, "name", where), checked, int(str(port)))


def _trouble_to_json(t: Trouble) -> dict[str, Any]:
    told = {"interface": t.interface, "fault": t.fault.name, "text": t.text}
    return {**told, "unheard": list(t.unheard), "gateway": t.gateway}


def _troubles(raw: Mapping[str, Any]) -> tuple[Trouble, ...]:
    return tuple(_trouble(t, f"networks[{i}]") for i, t in enumerate(_list(raw, "networks")))


def _trouble(raw: Any, where: str) -> Trouble:
    raw = _mapping(raw, where)
    fault, unheard = raw.get("fault"), _list(raw, "unheard")
    if not isinstance(fault, str) or fault not in Fault.__members__:
        raise BadMessage(f"{where}.fault: {_shown(fault)} is none of {', '.join(Fault.__members__)}")
    names = tuple(_name({"name": name}, "name", f"{where}.unheard.") for name in unheard)
    interface = _text(raw, "interface")
    return Trouble(interface, Fault[fault], _text(raw, "text"), names, raw.get("gateway") is True)


def _entry(raw: Any, where: str) -> Entry:
    raw = _mapping(raw, where)
    resource = _name(raw, "resource", where + ".")
    match raw.get("kind"):
        case "address":
            found = address(raw.get("interface"), raw.get("address"), where)
            return AddressEntry(found.interface, found.address, resource)
        case "cgroup":
            return CgroupEntry(_path(raw, "path", f"{where}.path"), resource)
        case "mount":
            device = _path(raw, "device", f"{where}.device")
            return MountEntry(device, _path(raw, "path", f"{where}.path"), resource)
        case other:
            raise BadMessage(f"{where}.kind: {_shown(other)} is unknown: use address, cgroup or mount")


def _mapping(raw: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise BadMessage(f"{where}: expected a JSON object")
    return raw


def _list(raw: Mapping[str, Any], field: str) -> list[Any]:
    value = raw.get(field)
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise BadMessage(f"{field}: expected a list of at most {MAX_ENTRIES}")
    return value


def _name(raw: Mapping[str, Any], field: str, where: str = "") -> str:
    value = raw.get(field)
    if not isinstance(value, str) or not _NAME.match(value) or value.endswith("\n"):
        raise BadMessage(f"{where}{field}: {_shown(value)} is no DNS label")
    return value


def _text(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field)
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_TEXT:
        raise BadMessage(f"{field}: {_shown(value)} is no line of at most {MAX_TEXT} characters")
    return value


def _number(raw: Mapping[str, Any], field: str) -> int:
    value = raw.get(field)
    if not is_number(value):
        raise BadMessage(f"{field}: expected a number from 0 to 2^63 - 1")
    assert isinstance(value, int)
    return value


def is_number(value: object) -> bool:
    """A count as the protocol takes it: from 0 to ``MAX_NUMBER``."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER


def _path(raw: Mapping[str, Any], field: str, where: str) -> str:
    value = raw.get(field)
    if not isinstance(value, str) or not value.isprintable() or not 1 < len(value) <= 1024:
        raise BadMessage(f"{where}: {_shown(value)} is no plain absolute path")
    if value[0] != "/" or {"", ".", ".."} & set(value[1:].split("/")):
        raise BadMessage(f"{where}: {_shown(value)} is no plain absolute path")
    return value


def _shown(value: object) -> str:
    """Bounded and printable, whatever it is."""
    return ascii(value)[:80]
