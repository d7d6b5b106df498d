"""The stored objects with the indexes that reads and invariants need. No rules here."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from hasys.api.kinds import MEMBER_KINDS, Ref
from hasys.model.level import common
from hasys.v1 import objects_pb2 as pb

_MEMBERS = frozenset(MEMBER_KINDS)


@lru_cache(maxsize=4096)
def bare_address(text: str) -> str:
    """The address of ``10.0.0.1/24`` in its one canonical spelling. Raises ValueError when it is none."""
    return str(ipaddress.ip_interface(text).ip)


class Indexes:
    """Objects by identity, kind, group and claimed address; insertion order is kept."""

    def __init__(self) -> None:
        self.objects: dict[Ref, pb.Object] = {}
        self.bytes = 0
        """Size of all objects together, encoded; events and operations included."""
        self._kinds: dict[str, dict[Ref, pb.Object]] = {}
        self._groups: dict[str, dict[Ref, pb.Object]] = {}
        self._claims: dict[str, dict[Ref, None]] = {}

    @property
    def level(self) -> int:
        """What every member understands: as the cluster's object says, before it is there what this one does."""
        return common(obj.cluster.status.level for obj in self.kind("Cluster").values())

    def kind(self, kind: str) -> dict[Ref, pb.Object]:
        """All objects of a kind."""
        return self._kinds.get(kind, {})

    def group(self, name: str) -> dict[Ref, pb.Object]:
        """What belongs to a group."""
        return self._groups.get(name, {})

    def refs(self, kind: str, group: str) -> list[Ref]:
        """Identities that a list of this kind and group has to look at."""
        if kind in _MEMBERS and group:
            return [ref for ref in self.group(group) if ref.kind == kind]
        return list(self.kind(kind) if kind else self.objects)

    def claims(self, address: str) -> tuple[Ref, ...]:
        """The virtual IPs that name this address."""
        return tuple(self._claims.get(bare_address(address), ()))

    def put(self, ref: Ref, obj: pb.Object) -> None:
        """Add or replace one object."""
        old = self.objects.get(ref)
        if old is not None:
            self.bytes -= old.ByteSize()
        elif ref.kind == "VirtualIP":
            self._claims.setdefault(bare_address(obj.virtual_ip.spec.address), {})[ref] = None
        self.bytes += obj.ByteSize()
        self.objects[ref] = obj
        self._kinds.setdefault(ref.kind, {})[ref] = obj
        if ref.kind in _MEMBERS:
            self._groups.setdefault(ref.group, {})[ref] = obj

    def remove(self, ref: Ref) -> pb.Object:
        """Take one object out. KeyError when it is absent."""
        old = self.objects.pop(ref)
        self.bytes -= old.ByteSize()
        del self._kinds[ref.kind][ref]
        if ref.kind in _MEMBERS:
            members = self._groups[ref.group]
            del members[ref]
            if not members:
                del self._groups[ref.group]
        if ref.kind == "VirtualIP":
            address = bare_address(old.virtual_ip.spec.address)
            claims = self._claims[address]
            del claims[ref]
            if not claims:
                del self._claims[address]
        return old
