"""keepalived: ``keepalived.conf``. Instances become groups with their addresses, notify scripts become commands."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hasys.cli.importing.result import Imported, label, nodes_of

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"?|[{}]|[^\s{}"]+')
"""A quote that does not end takes the rest of its line."""
DEEPEST = 32
"""Blocks inside blocks, more than any real file has."""
_REASONS = {
    "state": "",  # a hint of VRRP for the first second: priorities and what runs decide here
    "priority": "",
    "interface": "",
    "nopreempt": "",  # hasys never moves a group back by itself
    "virtual_router_id": "VRRP is not spoken: nothing to set",
    "advert_int": "the cluster's profile says how soon a lost node is noticed",
    "authentication": "members know each other by certificates",
    "unicast_peer": "the members' addresses are in node.yaml",
    "unicast_src_ip": "the members' addresses are in node.yaml",
    "preempt_delay": "a group does not move back by itself",
    "track_script": "watch the service itself: an Application with a status script, restarted before a failover",
    "track_interface": "a virtual IP fails over by itself when its interface is lost",
    "virtual_routes": "add routes by a Command with an undo",
    "virtual_rules": "add rules by a Command with an undo",
    "garp_master_delay": "announcements have their own schedule: spec.announceInterval",
    "notify_fault": "a fault stops the group: its undo runs then",
    "smtp_alert": "events tell of it",
}
"""Why a setting of an instance is not carried over; empty: it is, or it means nothing here."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting: its words, and the settings in its block, if it has one."""

    line: int
    words: tuple[str, ...]
    block: tuple[Entry, ...] | None = None

    @property
    def name(self) -> str:
        return self.words[0] if self.words else ""


@dataclass
class _Reader:
    """Lines become entries. ``!`` and ``#`` begin comments; a block's brace may stand on the next line."""

    tokens: list[tuple[int, str]]
    left: list[str] = field(default_factory=list)
    position: int = 0

    def entries(self, depth: int = 0) -> Iterator[Entry]:
        while self.position < len(self.tokens):
            line, word = self.tokens[self.position]
            if word == "}":
                self.position += 1
                if depth:
                    return
                self.left.append(f"line {line}: a '}}' too many")
                continue
            yield self._entry(line, depth)
        if depth:
            self.left.append(f"line {self.tokens[-1][0]}: a '}}' is missing at the end")

    def _entry(self, line: int, depth: int) -> Entry:
        words: list[str] = []
        while self.position < len(self.tokens):
            at, word = self.tokens[self.position]
            if word == "{":
                self.position += 1
                if depth >= DEEPEST:
                    self.left.append(f"line {at}: blocks are nested too deep")
                    self.position = len(self.tokens)
                    return Entry(line, tuple(words))
                return Entry(line, tuple(words), tuple(self.entries(depth + 1)))
            if word == "}" or at != line:
                break
            words.append(word)
            self.position += 1
        return Entry(line, tuple(words))


def parse(text: str) -> tuple[tuple[Entry, ...], list[str]]:
    """The settings, and one line for each fault of the text."""
    tokens: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        for match in _TOKEN.finditer(line):
            token = match[0]
            if token[0] in "!#":
                break
            tokens.append((number, token[1:-1] if len(token) > 1 and token[0] == token[-1] == '"' else token))
    reader = _Reader(tokens)
    return tuple(reader.entries()), reader.left


def translate(text: str, nodes: Sequence[str]) -> Imported:
    """The manifests for this file, which is that of the first node. Never raises for a strange file."""
    made = Imported()
    entries, made.left = parse(text)
    instances = {e.words[1]: e for e in entries if e.name == "vrrp_instance" and len(e.words) > 1 and e.block}
    together = _sync_groups(entries, instances)
    for members in together:
        _group(made, members, nodes)
    for entry in entries:
        if entry.name in ("vrrp_instance", "vrrp_sync_group"):
            continue
        why = {
            "global_defs": "settings of keepalived itself",
            "vrrp_script": _REASONS["track_script"],
            "virtual_server": "load balancing (LVS) is not managed",
            "virtual_server_group": "load balancing (LVS) is not managed",
        }.get(entry.name, "is not known here")
        made.leave(f"line {entry.line}: {' '.join(entry.words)[:80] or '{'}", why)
    return made


def _sync_groups(entries: Sequence[Entry], instances: dict[str, Entry]) -> list[tuple[str, list[Entry]]]:
    """Names and instances of the groups: those that keepalived moves together, then each other one alone."""
    free, found = dict(instances), []
    for entry in entries:
        if entry.name == "vrrp_sync_group" and entry.block is not None and len(entry.words) > 1:
            listed = next((e.block for e in entry.block if e.name == "group" and e.block is not None), ())
            members = [free.pop(word) for e in listed for word in e.words if word in free]
            if members:
                found.append((entry.words[1], members))
    return found + [(name, [entry]) for name, entry in free.items()]


def _group(made: Imported, named: tuple[str, list[Entry]], nodes: Sequence[str]) -> None:
    name, instances = named
    group = made.add("Group", label(name, "vrrp"), {"nodes": _nodes(instances[0], nodes)})
    for entry in instances:
        interface = _interface(entry)
        masters = [s for s in entry.block or () if s.name == "notify_master" and len(s.words) > 1]
        after = [_notify(made, group, entry, setting) for setting in masters[:1]]
        for setting in masters[1:]:
            made.leave(f"line {setting.line}: {' '.join(setting.words)[:80]}", "keepalived takes the first one alone")
        for setting in entry.block or ():
            if setting.name in ("virtual_ipaddress", "virtual_ipaddress_excluded"):
                for address in setting.block or ():
                    _address(made, group, address, interface, after)
            elif setting.name not in ("notify_master", "notify_backup"):
                why = _REASONS.get(setting.name, "is not known here")
                if why:
                    made.leave(f"line {setting.line}: {' '.join(setting.words)[:80]}", why)


def _nodes(entry: Entry, nodes: Sequence[str]) -> list[dict[str, object]]:
    """The file's priority is that of the first node; the others come after a master and before a backup."""
    words = {s.name: s.words[1] for s in entry.block or () if len(s.words) > 1}
    own = words.get("priority", "")
    listed = nodes_of(nodes)
    if own.isdecimal() and len(own) < 4 and "=" not in nodes[0]:
        first = int(own)
        step = 50 if words.get("state", "").upper() == "BACKUP" else -50
        for number, node in enumerate(listed):
            if "=" not in nodes[number]:
                node["priority"] = min(1000, max(0, first if number == 0 else first + step * number))
    return listed


def _interface(entry: Entry) -> str:
    return next((s.words[1] for s in entry.block or () if s.name == "interface" and len(s.words) > 1), "eth0")


def _address(made: Imported, group: str, entry: Entry, interface: str, after: Sequence[str]) -> None:
    """``10.0.0.1/24 dev eth1 label eth1:1``; without a length it is a host's own, as in keepalived."""
    where = f"line {entry.line}: {' '.join(entry.words)[:80]}"
    try:
        address = ipaddress.ip_interface(entry.name)
    except ValueError:
        made.leave(where, "is no address")
        return
    words = dict(zip(entry.words[1::2], entry.words[2::2], strict=False))
    rest = [word for word in entry.words[1::2] if word not in ("dev", "label", "scope", "brd")]
    if rest:
        made.leave(where, f"{' '.join(rest)[:40]} is not carried over")
    spec = {
        "address": str(address),
        "interface": words.get("dev", interface),
        **({"after": list(after)} if after else {}),
    }
    made.add("VirtualIP", label(f"ip-{address.ip}", "ip"), spec, group)


def _notify(made: Imported, group: str, instance: Entry, setting: Entry) -> str:
    """The script of a new master runs once per start; that of a backup is its undo."""
    spec: dict[str, object] = {"run": {"command": _command(setting)}, "onStartFailure": "Continue"}
    others = [s for s in instance.block or () if s.name == "notify_backup" and len(s.words) > 1]
    if others:
        spec["undo"] = {"command": _command(others[0])}
    return made.add("Command", "notify", spec, group)


def _command(setting: Entry) -> list[str]:
    """A script with its arguments, which keepalived takes as one quoted text or as words."""
    text = " ".join(setting.words[1:])
    try:
        return shlex.split(text) or [text]
    except ValueError:
        return [text]
