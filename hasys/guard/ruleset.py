"""The text of the gate's nftables table, and what is read back of it. Pure.

Family *netdev*: its ingress hook sees a frame before anything of the host does (DNAT, connection tracking, ARP), its
egress hook after everything, packet sockets included. An inet or arp table leaks both ways.

An address is *gated* when it is in ``gated4``/``gated6``, and *live* while it is an element of ``live4``/``live6`` that
has not timed out. Gated and not live = muted. Three sorts of interface:

- *named* by an address: nothing for a muted address comes in, nothing from it goes out, though it be translated;
- *other*: the kernel answers for its addresses on any interface, so the same, but only for traffic of this host itself:
  its containers may reach the address where it is served;
- ``lo``: clients on this node.

A frame that only *mentions* a muted address as its peer passes: clients of a Standby reach the Active.
IPv6 addresses are 128 bit numbers in the sets, because nftables 1.0.6 cannot match the target of a neighbour
solicitation against a set of addresses.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import zlib
from collections.abc import Iterable

_MUTED4 = "{0} @gated4 {0} != @live4"
_MUTED6 = "{0} @gated6 {0} != @live6"
_IP6 = "meta protocol ip6 "
_SADDR6, _DADDR6, _TARGET6 = "@nh,64,128", "@nh,192,128", "@th,64,128"

_NAMED_IN = (
    _MUTED4.format("ip daddr"),
    _MUTED4.format("arp daddr ip") + " arp saddr ip != @gated4",  # an announcement of the Active asks for itself
    _IP6 + _MUTED6.format(_DADDR6),
    "icmpv6 type nd-neighbor-solicit " + _MUTED6.format(_TARGET6),
)
_NAMED_OUT = (
    _MUTED4.format("ip saddr"),
    _MUTED4.format("arp saddr ip"),
    _IP6 + _MUTED6.format(_SADDR6),
    "icmpv6 type nd-neighbor-advert " + _MUTED6.format(_TARGET6),
)
_OTHER_IN = (
    _MUTED4.format("ip daddr") + " fib daddr type local",
    _MUTED4.format("arp daddr ip") + " arp saddr ip != @gated4",
    _IP6 + _MUTED6.format(_DADDR6) + " fib daddr type local",
)
_OTHER_OUT = (
    _MUTED4.format("ip saddr") + " fib saddr type local",
    _MUTED4.format("arp saddr ip"),
    _IP6 + _MUTED6.format(_SADDR6) + " fib saddr type local",
    "icmpv6 type nd-neighbor-advert " + _MUTED6.format(_TARGET6),
)
_LO_IN = (
    _MUTED4.format("ip daddr"),
    _MUTED4.format("ip saddr"),
    _IP6 + _MUTED6.format(_DADDR6),
    _IP6 + _MUTED6.format(_SADDR6),
)

_ELEMENT = re.compile(r"(0x[0-9a-f]{32}|0x[0-9a-f]{8}|\d+\.\d+\.\d+\.\d+)(?: timeout \S+ expires ([0-9a-z]+))?")
_DURATION = re.compile(r"(\d+)(ms|d|h|m|s)")
_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def table_name(instance: str) -> str:
    """``demo-n1`` -> ``hasys_demo_n1``: instance names have no underscore, so no two give the same."""
    return "hasys_" + instance.replace("-", "_")


def element(address: str) -> str:
    """How a set spells the address."""
    ip = ipaddress.ip_address(address)
    return str(ip) if ip.version == 4 else f"0x{int(ip):032x}"


def live_set(address: str) -> str:
    return "live6" if ":" in address else "live4"


def gated_set(address: str) -> str:
    return "gated6" if ":" in address else "gated4"


def base(table: str) -> str:
    """The table with its sets and the chain on lo; harmless when they are there already."""
    t = f"netdev {table}"
    return "\n".join((
        f"add table {t}",
        f"add set {t} gated4 {{ type ipv4_addr; }}",
        f"add set {t} live4 {{ type ipv4_addr; flags timeout; }}",
        f"add set {t} gated6 {{ typeof {_TARGET6}; }}",
        f"add set {t} live6 {{ typeof {_TARGET6}; flags timeout; }}",
        f"add set {t} held {{ type mark; flags timeout; }}",
        _chain(table, "lo_in", "lo", "ingress", _LO_IN),
    ))  # fmt: skip


def interface_chains(table: str, interface: str, *, named: bool) -> str:
    """Both chains of an interface, their rules replaced in the same transaction."""
    name = chain_suffix(interface)
    ingress, egress = (_NAMED_IN, _NAMED_OUT) if named else (_OTHER_IN, _OTHER_OUT)
    return "\n".join((
        _chain(table, f"in_{name}", interface, "ingress", ingress),
        _chain(table, f"out_{name}", interface, "egress", egress),
    ))  # fmt: skip


def remove_chains(table: str, suffix: str) -> str:
    """Take the chains of an interface away; ``add`` first, because one that is gone already must not be an error."""
    return "\n".join(f"delete chain netdev {table} {d}_{suffix}" for d in ("in", "out"))


def chain_suffix(interface: str) -> str:
    """An nftables identifier for any interface name."""
    return "i" + re.sub(r"[^A-Za-z0-9]", lambda m: f"_{ord(m[0]):x}_", interface)


def chain_suffixes(listing: str) -> set[str]:
    """The interfaces, as suffixes, that a listing of the table has an ingress chain for."""
    return set(re.findall(r"^\s*chain in_(\S+) \{", listing, re.MULTILINE))


def gate(table: str, addresses: Iterable[str]) -> list[str]:
    """Put addresses behind the gate."""
    return [f"add element netdev {table} {gated_set(a)} {{ {element(a)} }}" for a in addresses]


@functools.lru_cache(maxsize=4096)
def key(address: str) -> bytes:
    """The address as the kernel stores it in a set."""
    return ipaddress.ip_address(address).packed


def mark(group: str) -> int:
    """The element of the set ``held`` that stands for a group: present while the kernel carries its lease."""
    return zlib.crc32(group.encode()) or 1


FUSE = 0
"""The element of the set ``held`` that no group has: see :mod:`hasys.guard.gate`."""


def elements(listing: str) -> dict[str, int | None]:
    """What a listed set holds: address, or a group's mark in hex -> milliseconds until it expires, None = never."""
    start = listing.find("elements = {")
    found: dict[str, int | None] = {}
    for text, expires in _ELEMENT.findall(listing[start:] if start >= 0 else ""):
        name = str(ipaddress.IPv6Address(int(text, 16))) if len(text) == 34 and text[1] == "x" else text
        found[name] = _milliseconds(expires) if expires else None
    return found


def _milliseconds(text: str) -> int:
    return sum(int(n) * _UNITS_MS[unit] for n, unit in _DURATION.findall(text))


def _chain(table: str, name: str, interface: str, hook: str, rules: Iterable[str]) -> str:
    # Before everything else on the way in, after everything else on the way out.
    priority = -500 if hook == "ingress" else 500
    t = f"netdev {table} {name}"
    head = f'add chain {t} {{ type filter hook {hook} device "{interface}" priority {priority}; policy accept; }}'
    return "\n".join((head, f"flush chain {t}", *(f"add rule {t} {rule} drop" for rule in rules)))
