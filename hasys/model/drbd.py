"""What DRBD says of a replicated volume, as text and as values. Pure.

Two kinds of kernels: one with DRBD 8.4 (that of Debian 12, for one) says everything in ``/proc/drbd``; one with DRBD 9
says there which version it is and leaves the rest to ``drbdsetup status --json``. Sources: DRBD 8.4 user's guide,
"Status information in /proc/drbd"; drbdsetup-9.0(8); the fields of the JSON as drbd-utils 9 prints them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hasys.model.errors import HasysError

PRIMARY, UP_TO_DATE = "Primary", "UpToDate"
STAND_ALONE = "StandAlone"
"""No connection, and none is tried: after a split brain, or because somebody asked for it."""
HOPELESS = frozenset(("Diskless", "Failed"))
"""States of a local disk that do not get better by waiting."""
_APART = frozenset((
    STAND_ALONE, "Disconnecting", "Unconnected", "Timeout", "BrokenPipe", "NetworkFailure", "ProtocolError",
    "TearDown", "WFConnection", "Connecting", "WFReportParams",
))  # fmt: skip
"""States of a connection that is none. DRBD 8.4 has one word for the connection and for what goes on over it."""
_VERSION = re.compile(r"^version: ([0-9]{1,3})\.", re.ASCII | re.MULTILINE)
_MINOR = re.compile(r"^ *([0-9]{1,7}): cs:(.*)$", re.ASCII | re.MULTILINE)
_STATES = re.compile(
    r"([A-Za-z]{1,32}) ro:([A-Za-z]{1,32})/([A-Za-z]{1,32}) ds:([A-Za-z]{1,32})/([A-Za-z]{1,32}) ", re.ASCII
)
_AMOUNT = re.compile(r" oos:([0-9]{1,16})\b", re.ASCII)
_WORD = re.compile(r"[A-Za-z]{1,32}", re.ASCII)
_NAME = re.compile(r"[ -~]{1,128}", re.ASCII)
_MOST = 1 << 53


class Unreadable(HasysError):
    """What DRBD said is not understood; the text says where."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side of one connection."""

    name: str
    """As drbd.conf names the node; empty: DRBD 8.4 has one peer and does not name it."""
    state: str
    """Of the connection, or of what goes on over it: ``Connected``, ``Established``, ``SyncTarget``, ``StandAlone``."""
    role: str
    disk: str
    out_of_sync: int
    """KiB that are known to differ."""

    @property
    def connected(self) -> bool:
        return self.state not in _APART

    def __str__(self) -> str:
        return self.name or "the other node"


@dataclass(frozen=True, slots=True)
class Volume:
    """One replicated device, as this node sees it."""

    role: str
    disk: str
    """State of the local disk: ``UpToDate``, ``Inconsistent``, ``Outdated``, ``Diskless`` ..."""
    size: int
    """KiB; 0: unknown."""
    peers: tuple[Peer, ...]

    @property
    def primary(self) -> bool:
        return self.role == PRIMARY

    @property
    def out_of_sync(self) -> int:
        """KiB by which the peer that differs most is known to differ."""
        return max((peer.out_of_sync for peer in self.peers), default=0)

    @property
    def in_sync(self) -> float:
        """Percent, beside the peer that differs most. Of a size that is not known: all or nothing."""
        if not self.size:
            return 0.0 if self.out_of_sync else 100.0
        return 100.0 * max(0, self.size - self.out_of_sync) / self.size

    def refusal(self) -> str:
        """Why nothing may be started on it now: its data may not be the latest, or are another node's. "" nothing."""
        if self.disk != UP_TO_DATE:
            return f"the local disk is {self.disk}, not {UP_TO_DATE}"
        for peer in self.peers:
            if peer.connected and peer.role == PRIMARY:
                return f"{peer} is {PRIMARY}"
            if peer.state == STAND_ALONE:
                return _split(peer)
        return ""

    def trouble(self) -> str:
        """What keeps the copies from being the same, without running figures; "" nothing."""
        found = [] if self.disk == UP_TO_DATE else [f"the local disk is {self.disk}"]
        for peer in self.peers:
            if peer.state == STAND_ALONE:
                found.append(_split(peer))
            elif not peer.connected:
                found.append(f"not connected to {peer} ({peer.state})")
            elif peer.disk != UP_TO_DATE:
                found.append(f"the disk of {peer} is {peer.disk} ({peer.state})")
        return "; ".join(found)


def _split(peer: Peer) -> str:
    return f"{STAND_ALONE}: DRBD gave the connection to {peer} up: a split brain, or it was told to disconnect"


# ---------------------------------------------------------------- texts
def major_version(proc: str) -> int:
    """Of DRBD in this kernel, by ``/proc/drbd``. Raises :class:`Unreadable`."""
    found = _VERSION.search(proc)
    if found is None:
        raise Unreadable("/proc/drbd does not tell its version")
    return int(found[1])


def from_proc(text: str, minor: int, size: int) -> Volume | None:
    """The device of that minor number in ``/proc/drbd`` of DRBD 8.4; None: it is not up. ``size``: KiB, 0 unknown.
    Raises :class:`Unreadable`."""
    blocks = list(_MINOR.finditer(text))
    for number, found in enumerate(blocks):
        if int(found[1]) != minor:
            continue
        if found[2].strip() == "Unconfigured":
            return None
        states = _STATES.match(found[2])
        end = blocks[number + 1].start() if number + 1 < len(blocks) else len(text)
        amount = _AMOUNT.search(text, found.end(), end)
        if states is None or amount is None:
            raise Unreadable(f"/proc/drbd says of minor {minor} what is not understood")
        connection, role, peer_role, disk, peer_disk = states.groups()
        out_of_sync = min(int(amount[1]), _MOST)
        return Volume(role, disk, size, (Peer("", connection, peer_role, peer_disk, out_of_sync),))
    return None


def from_json(text: str, resource: str, minor: int) -> Volume | None:
    """The device of that minor number in ``drbdsetup status RESOURCE --json`` of DRBD 9; None: the resource does not
    have it. Raises :class:`Unreadable`."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable(f"drbdsetup status {resource}: no JSON") from None
    try:
        one = next((r for r in _list(told) if r["name"] == resource), None)
        device = next((d for d in _list(one["devices"]) if _number(d, "minor") == minor), None) if one else None
        if one is None or device is None:
            return None
        volume = _number(device, "volume")
        peers = tuple(_peer(c, p) for c in _list(one["connections"]) for p in _of_volume(c, volume))
        return Volume(_word(one, "role"), _word(device, "disk-state"), _number(device, "size", 0), peers)
    except (KeyError, TypeError, ValueError):
        raise Unreadable(f"drbdsetup status {resource}: not understood") from None


def _of_volume(connection: Mapping[str, Any], volume: int) -> list[Mapping[str, Any]]:
    """What a connection says of a volume; one that never came about says nothing of any."""
    found = [one for one in _list(connection["peer_devices"]) if _number(one, "volume") == volume]
    return found or [{}]


def _peer(connection: Mapping[str, Any], volume: Mapping[str, Any]) -> Peer:
    name, state = connection["name"], _word(connection, "connection-state")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError
    if state == "Connected":
        state = _word(volume, "replication-state", state)
    disk = _word(volume, "peer-disk-state", "DUnknown")
    return Peer(name, state, _word(connection, "peer-role"), disk, _number(volume, "out-of-sync", 0))


def _list(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise TypeError
    return value


def _word(of: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = of[key] if default is None else of.get(key, default)
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError
    return value


def _number(of: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = of[key] if default is None else of.get(key, default)
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError
    return value
