"""Who calls, and what they may do.

The subject of the caller's certificate says it all: ``O=hasys:<cluster id>, OU=<role>, CN=<name>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from hasys.api.errors import Denied, Invalid

ADMIN, NODE = "admin", "node"
"""Roles: an admin may do everything; a node may read, report about itself, and ask for operations about itself."""

FORWARDED = "hasys-forwarded"
"""Request metadata ``role/name``: the caller that a store passes on. Believed from members that vote only: they could
write the replicated log anyway."""
REQUEST = "hasys-request"
"""Metadata of a call that changes something: a number that its client gave it, the same each time it is sent again, so
that it is done at most once. Servers of a version that does not know it leave it out."""
_NUMBER = re.compile(r"[0-9a-f]{1,40}")

NO_MEMBER = "is no member of this cluster"
"""What a node is told whose certificate is right and whose name the members do not have: it was removed."""

_ATTRIBUTE = re.compile(r"(?P<key>[A-Za-z0-9.]+)=(?P<value>(?:[^,+\"\\<>;#=]|\\[,+\"\\<>;#= ])*)(?:,|$)")


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated party."""

    role: str
    name: str
    forwarded: bool = False
    """A store passes this request on for the caller."""

    @property
    def actor(self) -> str:
        """How events and operations name the caller: ``admin``, ``agent/n1``."""
        return f"agent/{self.name}" if self.role == NODE else self.name

    def must_be_admin(self, what: str) -> None:
        """Raises :class:`Denied` for everybody else."""
        if self.role != ADMIN:
            raise Denied(f"{self.actor} may not {what}: use an admin certificate")

    def must_speak_for(self, node: str, what: str) -> None:
        """Raises :class:`Denied` unless this is the node itself or an admin."""
        if self.role != ADMIN and self.name != node:
            raise Denied(f"{self.actor} may not {what} for node {node!r}: use that node's certificate")


class Authenticator:
    """Recognises callers of one cluster."""

    def __init__(self, cluster_id: str, members: Mapping[str, bool]) -> None:
        """``members``: name -> does it vote?"""
        self._organization = f"hasys:{cluster_id}"
        self._members = dict(members)

    def set_members(self, members: Mapping[str, bool]) -> None:
        """Other members from now on: name -> does it vote?"""
        self._members = dict(members)

    def caller(self, subject: bytes | None, forwarded: str | None = None) -> Caller:
        """The caller with this certificate subject (RFC 2253 text) that may pass on another's request. Raises
        :class:`Denied`."""
        if subject is None:
            raise Denied("no client certificate: use the one that 'hasys init' wrote")
        names = parse_subject(subject)
        if names.get("O") != self._organization:
            raise Denied("the client certificate is of another cluster")
        role, name = names.get("OU", ""), names.get("CN", "")
        if role not in (ADMIN, NODE) or not name:
            raise Denied("the client certificate names no role of hasys")
        if role == NODE and name not in self._members:
            raise Denied(f"node {name!r} {NO_MEMBER}")
        if forwarded is None:
            return Caller(role, name)
        if role != NODE or not self._members[name]:
            raise Denied(f"{name!r} may not pass on requests of others")
        role, _, name = forwarded.partition("/")
        if role not in (ADMIN, NODE) or not name:
            raise Denied("the passed-on caller cannot be read")
        return Caller(role, name, forwarded=True)


def request_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The number that a client gave its request; empty: none. Raises ``Invalid`` for one that no client of ours gives:
    it becomes a part of what all members store."""
    for key, value in metadata or ():
        if key == REQUEST:
            if not isinstance(value, str) or not _NUMBER.fullmatch(value):
                raise Invalid((), f"metadata {REQUEST}: give up to 40 digits and letters a to f")
            return value
    return ""


@lru_cache(maxsize=1024)
def parse_subject(subject: bytes) -> Mapping[str, str]:
    """Attributes of an RFC 2253 subject. Anything unusual (an attribute twice, several in one part, quoting) gives an
    empty mapping: no certificate of ours has it."""
    text = subject.decode("utf-8", "replace")
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _ATTRIBUTE.match(text, position)
        if match is None or match["key"] in found:
            return {}
        found[match["key"]] = re.sub(r"\\(.)", r"\1", match["value"])
        position = match.end()
    return found
