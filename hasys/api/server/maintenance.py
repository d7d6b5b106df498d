"""The Maintenance service: members of the cluster, backup. For administrators."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Iterator

from hasys.api.convert import now
from hasys.api.errors import Invalid
from hasys.api.kinds import wrap
from hasys.api.server.calls import Call, Method, Writer
from hasys.config import API_PORT, LABEL, LEASE_PORT, RAFT_PORT, Member, NodeConfig
from hasys.model.errors import NotFound, Refused, Unavailable
from hasys.store.directory import Directory, member_from, spec_of
from hasys.store.machine import Machine
from hasys.store.port import ChangingEngine
from hasys.v1 import api_pb2, store_pb2
from hasys.v1 import objects_pb2 as pb

CHANGE = 10.0
"""Seconds that a change of the members may wait for a majority."""
CONFIRM = 2.0
"""Seconds that a backup waits for a majority's word that this member leads."""
CHUNK = 256 * 1024
"""Bytes of one message of a backup."""
MOST_MEMBERS = 100
MOST_VOTERS = 9
"""More make every write slower and no failure more bearable."""


class Maintenance:
    """Serves on the leader alone."""

    def __init__(
        self, config: NodeConfig, machine: Machine, engine: ChangingEngine, directory: Directory, writer: Writer
    ) -> None:
        self._config = config
        self._machine = machine
        self._engine = engine
        self._directory = directory
        self._writer = writer
        self._backups = 0

    def methods(self) -> Iterator[Method]:
        """This service's RPCs."""
        base, changed = "/hasys.v1.Maintenance/", api_pb2.ChangeMemberResponse
        yield Method(base + "ListMembers", api_pb2.ListMembersRequest, api_pb2.ListMembersResponse, self.list_members)
        yield Method(base + "AddMember", api_pb2.AddMemberRequest, changed, self.add_member)
        yield Method(base + "RemoveMember", api_pb2.RemoveMemberRequest, changed, self.remove_member)
        yield Method(base + "Backup", api_pb2.BackupRequest, api_pb2.BackupResponse, stream=self.backup)

    # ------------------------------------------------------------ members
    async def list_members(self, request: api_pb2.ListMembersRequest, call: Call) -> api_pb2.ListMembersResponse:
        """Everybody, and how each takes part."""
        return api_pb2.ListMembersResponse(members=self._views(), cluster_id=self._config.cluster_id)

    async def add_member(self, request: api_pb2.AddMemberRequest, call: Call) -> api_pb2.ChangeMemberResponse:
        """Take a member in, or change its addresses. Raises ``Invalid``, ``Refused``."""
        call.caller.must_be_admin("change the members")
        member = self._checked(request)
        if self._directory.get(member.name) is None:
            self._refuse_by_policy()
        if member.votes:
            await self._engine.add_member(member, timeout=CHANGE)
            call.committed = True
            self._directory.refresh()
        else:
            await self._put_observer(member, call)
        return self._changed()

    async def _put_observer(self, member: Member, call: Call) -> None:
        stored = self._machine.node(member.name)
        spec = spec_of(member, drained=stored.spec.drained if stored is not None else False)
        node = pb.Node(metadata=pb.Metadata(name=member.name), spec=spec)
        await self._writer.write(call, [store_pb2.Mutation(put_spec=wrap(node), expect_absent=stored is None)])

    async def remove_member(self, request: api_pb2.RemoveMemberRequest, call: Call) -> api_pb2.ChangeMemberResponse:
        """Let a member go. A leader hands over first, and the caller is asked to come again."""
        call.caller.must_be_admin("change the members")
        member = self._directory.get(request.name)
        if member is None:
            if not self._engine.settled():  # it may be this very removal, which its caller sent again
                raise Unavailable("a change of the members is not committed yet: ask again")
            raise NotFound(f"{request.name[:80]!r} is no member of this cluster")
        self._refuse_by_policy()
        self._refuse_in_use(member.name)
        if not member.votes:
            await self._writer.write(call, [store_pb2.Mutation(delete=pb.Key(kind="Node", name=member.name))])
            return self._changed()
        if member.name == self._config.name:
            await self._step_aside()
        await self._engine.remove_member(member.name, timeout=CHANGE)
        call.committed = True
        self._directory.refresh()
        return self._changed()

    async def _step_aside(self) -> None:
        name = self._config.name
        self._engine.check_removal(name)  # before anything moves
        await self._engine.hand_over()
        raise Unavailable(f"{name} led and hands over: ask the new leader")

    def _refuse_in_use(self, name: str) -> None:
        for obj in self._machine.list("Group"):
            group = obj.group.metadata.name
            a = obj.group.status.assignment
            if name == a.node:
                raise Refused(f"group {group!r} runs on {name}: 'hasys drain {name}' first")
            if name in (a.previous_node, *(holder.node for holder in a.earlier)):
                raise Refused(
                    f"group {group!r} left {name}, which may still have something of it: wait until it has let go, or,"
                    f" if it is off for sure, 'hasys fence-confirm {name}'"
                )
            if any(node.name == name for node in obj.group.spec.nodes):
                raise Refused(f"group {group!r} can run on {name}: take it out of its spec.nodes first")

    def _checked(self, request: api_pb2.AddMemberRequest) -> Member:
        name, spec = request.name, request.spec
        if not LABEL.match(name):
            raise Invalid((), f"{name[:80]!r} is no DNS label: use a-z, 0-9 and '-', at most 63 characters")
        spec.api_port, spec.raft_port = spec.api_port or API_PORT, spec.raft_port or RAFT_PORT
        spec.lease_port = spec.lease_port or LEASE_PORT
        if not 1 <= len(spec.addresses) <= 8 or len(set(spec.addresses)) != len(spec.addresses):
            raise Invalid((), f"{name}: give 1 to 8 different addresses, one per network")
        for address in spec.addresses:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise Invalid((), f"{name}: {address[:60]!r} is no IP address") from None
        if max(spec.api_port, spec.raft_port, spec.lease_port) > 65535:
            raise Invalid((), f"{name}: a port is larger than 65535")
        if spec.role not in pb.NodeSpec.Role.values():
            roles = ", ".join(pb.NodeSpec.Role.keys())
            raise Invalid((), f"{name}: role {spec.role} is unknown: use one of {roles}")
        member = member_from(name, spec)
        self._check_against(member)
        return member

    def _check_against(self, member: Member) -> None:
        others = [m for m in self._directory.members if m.name != member.name]
        known = self._directory.get(member.name)
        if known is not None and known.role != member.role:
            raise Refused(f"{member.name} is a {known.role}: remove it before it returns as a {member.role}")
        if known is None and len(others) >= MOST_MEMBERS:
            raise Refused(f"{len(others)} members: at most {MOST_MEMBERS}")
        if known is None and member.votes and sum(m.votes for m in others) >= MOST_VOTERS:
            raise Refused(f"{MOST_VOTERS} voters are the most: add {member.name} as an Observer")
        for other in others:
            for address in set(member.addresses) & set(other.addresses):
                if {member.api_port, member.raft_port, member.lease_port} & {
                    other.api_port, other.raft_port, other.lease_port
                }:  # fmt: skip
                    raise Refused(f"{other.name} uses {address} with one of these ports already")

    def _refuse_by_policy(self) -> None:
        """Every guard and every store must follow the same rules, at every instant."""
        if self._config.policy:
            raise Refused(
                f"policy {self._config.policy} is for two nodes, these two: for others stop both, make a new cluster"
                " with 'hasys init' and apply the manifests there"
            )

    def _changed(self) -> api_pb2.ChangeMemberResponse:
        return api_pb2.ChangeMemberResponse(members=self._views(), warnings=self._warnings())

    def _warnings(self) -> list[str]:
        learners = self._engine.learners()
        voters = [m.name for m in self._directory.members if m.votes and m.name not in learners]
        coming = len(voters) + len(learners)
        if coming == 2:
            return ["two voters: the loss of either stops every change and failover; add a third, a witness will do"]
        if coming % 2 == 0:
            return [f"{coming} voters survive no more losses than {coming - 1}: add one more, or remove one"]
        return []

    def _views(self) -> list[api_pb2.MemberView]:
        return [
            api_pb2.MemberView(
                name=m.name, role=m.role, state=self._state(m), addresses=m.addresses,
                api_port=m.api_port, raft_port=m.raft_port, lease_port=m.lease_port,
            )
            for m in sorted(self._directory.members, key=lambda m: (m.role == "Observer", m.name))
        ]  # fmt: skip

    def _state(self, member: Member) -> str:
        if not member.votes:
            return "Observer"
        if member.name == self._config.name:
            return "Leader"
        if member.name in self._engine.learners():
            return "Joining"
        return "Follower" if member.name in self._engine.living() else "Silent"

    # ------------------------------------------------------------ backup
    async def backup(self, request: api_pb2.BackupRequest, call: Call) -> AsyncIterator[api_pb2.BackupResponse]:
        """The state after the last command, as one consistent piece. One at a time: each holds a copy in memory."""
        call.caller.must_be_admin("read a backup")
        if self._backups:
            raise Refused("another backup is being read: one at a time")
        self._backups += 1
        try:
            await self._engine.confirm(timeout=CONFIRM)
            revision, term = self._machine.revision, self._engine.status().term
            data, digest = await _pieced(self._machine.snapshot_parts())
            header = api_pb2.BackupHeader(
                cluster=self._config.cluster, cluster_id=self._config.cluster_id, time=now(), size=len(data),
                resource_version=revision, term=term,
            )  # fmt: skip
            yield api_pb2.BackupResponse(header=header)
            for start in range(0, len(data), CHUNK):
                yield api_pb2.BackupResponse(data=data[start : start + CHUNK])
            yield api_pb2.BackupResponse(sha256=digest)
        finally:
            self._backups -= 1


async def _pieced(parts: Iterator[bytes]) -> tuple[bytes, bytes]:
    """All of it, and its SHA-256. Others have their turn between two pieces: leases are renewed by this very loop."""
    made, hashed = [], hashlib.sha256()
    for part in parts:
        made.append(part)
        hashed.update(part)
        await asyncio.sleep(0)
    return b"".join(made), hashed.digest()
