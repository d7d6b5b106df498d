"""Who belongs to the log: voters, and learners that copy it and do not count yet.

A change of the members is an entry of the log. It is in force on a member from the moment it is in that member's log,
committed or not (Ongaro's thesis, 4.1), and one change adds or removes at most one voter: any majority before it then
shares a member with any majority after it. A log without such an entry has the members of node.yaml.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from hasys.config import Member
from hasys.v1 import raft_pb2 as pb

_SNAPSHOT_MAGIC = b"hasys members 1\n"
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Membership:
    """One state of the members; every change gives another."""

    members: tuple[Member, ...]
    learners: frozenset[str] = frozenset()
    history: int = 0
    """Another one after a restore from backup: logs of two histories never mix."""

    @classmethod
    def of_names(cls, names: Iterable[str]) -> Membership:
        """Voters without addresses, where nothing dials them."""
        return cls(tuple(Member(name, "Voter", ()) for name in names))

    @property
    def voters(self) -> tuple[str, ...]:
        """Names of those that count, sorted."""
        return tuple(sorted(m.name for m in self.members if m.name not in self.learners))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all, sorted."""
        return tuple(sorted(m.name for m in self.members))

    @property
    def majority(self) -> int:
        return len(self.voters) // 2 + 1

    def get(self, name: str) -> Member | None:
        return next((m for m in self.members if m.name == name), None)

    def with_learner(self, member: Member) -> Membership:
        return replace(self, members=(*self.members, member), learners=self.learners | {member.name})

    def with_voter(self, name: str) -> Membership:
        """The learner of that name counts from now on."""
        return replace(self, learners=self.learners - {name})

    def with_addresses(self, member: Member) -> Membership:
        """The same member is reached elsewhere."""
        return replace(self, members=tuple(member if m.name == member.name else m for m in self.members))

    def without(self, name: str) -> Membership:
        return replace(self, members=tuple(m for m in self.members if m.name != name), learners=self.learners - {name})

    # ------------------------------------------------------------ bytes
    def encode(self) -> bytes:
        message = pb.Membership(history=self.history)
        for m in self.members:
            message.members.add(
                name=m.name, role=m.role, learner=m.name in self.learners, addresses=m.addresses,
                api_port=m.api_port, raft_port=m.raft_port, lease_port=m.lease_port,
            )  # fmt: skip
        return message.SerializeToString(deterministic=True)

    @classmethod
    def from_message(cls, message: pb.Membership) -> Membership:
        members = tuple(
            Member(p.name, p.role, tuple(p.addresses), p.api_port, p.raft_port, p.lease_port) for p in message.members
        )
        return cls(members, frozenset(p.name for p in message.members if p.learner), message.history)

    @classmethod
    def decode(cls, data: bytes) -> Membership:
        """Raises DecodeError."""
        return cls.from_message(pb.Membership.FromString(data))


def pack_snapshot(membership: Membership | None, state: bytes) -> bytes:
    """What a snapshot holds: the members in force at its end, then the state. Without a change of the members yet
    (None): the state alone."""
    if membership is None:
        return state
    members = membership.encode()
    return _SNAPSHOT_MAGIC + _LENGTH.pack(len(members)) + members + state


def unpack_snapshot(data: bytes) -> tuple[Membership | None, bytes]:
    """The reverse of :func:`pack_snapshot`. Raises ValueError when it cannot be read."""
    if not data.startswith(_SNAPSHOT_MAGIC):
        return None, data
    start = len(_SNAPSHOT_MAGIC) + _LENGTH.size
    try:
        (length,) = _LENGTH.unpack_from(data, len(_SNAPSHOT_MAGIC))
        return Membership.decode(data[start : start + length]), data[start + length :]
    except (struct.error, DecodeError) as e:
        raise ValueError(f"the members in a snapshot cannot be read: {e}") from None
