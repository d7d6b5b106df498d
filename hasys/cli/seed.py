"""What ``hasys init`` decides before it writes anything: the members of a new cluster. Pure."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hasys.config import API_PORT, ARBITER, LABEL, LEASE_PORT, POLICIES, RAFT_PORT, Member
from hasys.model.errors import ConfigRefused
from hasys.model.timing import PROFILES

RESERVED = ("ca", "client")
"""Folders beside those of the nodes; a node cannot have such a name."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A checked, not yet written cluster."""

    cluster: str
    cluster_id: str
    members: tuple[Member, ...]
    profile: str
    policy: str = ""
    """Of two nodes without a third voter; see ``hasys.config.POLICIES``."""
    arbiter: str = ""
    """The disk of policy arbiter, as both nodes name it."""

    @property
    def voters(self) -> tuple[Member, ...]:
        return tuple(m for m in self.members if m.votes)


def plan(cluster: str, members: Sequence[Member], profile: str, policy: str = "", arbiter: str = "") -> Seed:
    """A new cluster of these members; two that vote and no third get the policy ``safe`` unless another is named.
    Raises :class:`ConfigRefused`, one line with the mend."""
    check_label("--cluster", cluster)
    if profile not in PROFILES:
        raise ConfigRefused(f"--profile: {profile!r} is unknown: use one of {', '.join(PROFILES)}")
    check_members(members)
    _check_voters(members)
    return Seed(
        cluster, str(uuid.uuid4()), tuple(members), profile, _policy(members, policy), check_arbiter(policy, arbiter)
    )


def parse_member(text: str, role: str) -> Member:
    """``NAME=ADDR[:PORT][,ADDR2]``; the port is the API's, consensus and leases use the next two.

    IPv6 with a port is written ``[fd00::1]:7411``. Raises :class:`ConfigRefused`.
    """
    option = "--node" if role == "Voter" else f"--{role.lower()}"
    name, equals, rest = text.partition("=")
    if not equals or not rest:
        raise ConfigRefused(f"{option}: {text!r}: write NAME=ADDR[:PORT][,ADDR2], as in n1=10.0.0.1,192.168.7.1")
    check_label(option, name)
    addresses, ports = [], set()
    for part in rest.split(","):
        address, port = _address(f"{option} {name}", part.strip())
        addresses.append(address)
        if port is not None:
            ports.add(port)
    if len(set(addresses)) != len(addresses):
        raise ConfigRefused(f"{option} {name}: the same address twice: give one per network")
    if len(addresses) > 8:
        raise ConfigRefused(f"{option} {name}: {len(addresses)} addresses: at most 8, one per network")
    if len(ports) > 1:
        raise ConfigRefused(
            f"{option} {name}: two ports, {min(ports)} and {max(ports)}: a node has one, on every network"
        )
    base = ports.pop() if ports else API_PORT
    return Member(
        name, role, tuple(addresses), base, base + RAFT_PORT - API_PORT, base + LEASE_PORT - API_PORT
    )  # fmt: skip


def socket_name(address: str, port: int) -> str:
    """``10.0.0.1:7411`` or ``[fd00::1]:7411``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def servers(members: Iterable[Member]) -> list[str]:
    """Where a client finds the API: the first network of each member with a store, then their other networks."""
    members = [m for m in members if m.votes]
    longest = max((len(m.addresses) for m in members), default=0)
    return [
        socket_name(m.addresses[i], m.api_port) for i in range(longest) for m in members if i < len(m.addresses)
    ]  # fmt: skip


def _address(where: str, text: str) -> tuple[str, int | None]:
    host, port = text, None
    if text.startswith("["):
        host, bracket, tail = text[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ConfigRefused(f"{where}: {text!r}: write [IPV6]:PORT")
        port = _port(where, tail[1:]) if tail else None
    elif text.count(":") == 1:
        host, _, tail = text.partition(":")
        port = _port(where, tail)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigRefused(
            f"{where}: {host!r} is no IP address: names are not used, they need a working DNS"
        ) from None
    if address.is_unspecified or address.is_multicast:
        raise ConfigRefused(f"{where}: {host} is no address of a machine")
    return str(address), port


def _port(where: str, text: str) -> int:
    last = 65535 - (LEASE_PORT - API_PORT)
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= last:
        raise ConfigRefused(f"{where}: {text!r} is no port: use 1 to {last} (the next two are used as well)")
    return int(text)


def check_label(option: str, name: str) -> str:
    """The name. Raises :class:`ConfigRefused` when it is none; ``option``: where it was given."""
    if not LABEL.match(name):
        raise ConfigRefused(f"{option}: {name!r} is no DNS label: use a-z, 0-9 and '-', at most 63 characters")
    return name


def check_members(members: Sequence[Member]) -> None:
    """Names and sockets are each one's own. Raises :class:`ConfigRefused`."""
    _check_names(members)
    _check_sockets(members)


def _check_names(members: Sequence[Member]) -> None:
    seen: set[str] = set()
    for member in members:
        if member.name in RESERVED:
            raise ConfigRefused(f"{member.name!r} cannot be a node's name: it is the folder of something else")
        if member.name in seen:
            raise ConfigRefused(f"two members are named {member.name!r}: names are unique")
        seen.add(member.name)


def _check_sockets(members: Sequence[Member]) -> None:
    seen: dict[tuple[str, int], str] = {}
    for member in members:
        for address in member.addresses:
            for port in (member.api_port, member.raft_port, member.lease_port):
                other = seen.setdefault((address, port), member.name)
                if other != member.name:
                    raise ConfigRefused(
                        f"{other} and {member.name} both use {socket_name(address, port)}: "
                        f"give each its own address, or its own port (ADDR:PORT, three ports from PORT on)"
                    )


def _policy(members: Sequence[Member], policy: str) -> str:
    two = sum(m.votes for m in members) == 2
    if policy and policy not in POLICIES:
        raise ConfigRefused(f"--policy: {policy!r} is unknown: use one of {', '.join(POLICIES)}")
    if policy and not two:
        raise ConfigRefused(f"--policy {policy}: it is for two nodes without a third voter: leave it out")
    if two and len(members) != 2:
        raise ConfigRefused("two voters and an observer: add --witness NAME=ADDR, two nodes alone take no observer")
    return (policy or "safe") if two else ""


def check_arbiter(policy: str, arbiter: str) -> str:
    """The disk of policy arbiter, or that it has none. Raises :class:`ConfigRefused`."""
    if policy == ARBITER and not arbiter:
        raise ConfigRefused("--policy arbiter needs a disk that both nodes write to: add --arbiter /dev/disk/by-id/...")
    if arbiter and policy != ARBITER:
        raise ConfigRefused(f"--arbiter {arbiter}: it is the disk of --policy arbiter: add that, or leave it out")
    if arbiter and not arbiter.startswith("/"):
        raise ConfigRefused(f"--arbiter {arbiter}: write the whole path, as in /dev/disk/by-id/...")
    return arbiter


def _check_voters(members: Sequence[Member]) -> None:
    voters = [m.name for m in members if m.votes]
    if not any(m.runs_groups for m in members):
        raise ConfigRefused("no node: give at least one --node NAME=ADDR")
    if not voters:
        raise ConfigRefused("no voter: an observer does not vote, give at least one --node NAME=ADDR")
    if len(voters) == 2 and any(m.role == "Witness" for m in members):
        raise ConfigRefused(
            "one node and a witness: losing either stops the node; add --node, or leave the witness out"
        )
    if len(voters) % 2 == 0 and len(voters) != 2:
        raise ConfigRefused(
            f"{len(voters)} voters survive no more losses than {len(voters) - 1}: "
            "add --witness NAME=ADDR, or make one of them an --observer"
        )
