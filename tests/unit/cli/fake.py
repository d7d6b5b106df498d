"""A cluster in memory with the client's methods: what the commands say to it, and what it lets them see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import anyio

from hasys.api.kinds import KINDS, Ref, copy, group_of, metadata, ref_of, wrap
from hasys.model.errors import NotFound
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb


@dataclass
class FakeCluster:
    """Answers from ``objects`` and ``view``; a watch first tells what there is, then ``changes``, then is silent."""

    objects: dict[Ref, pb.Object] = field(default_factory=dict)
    view: api.StatusResponse = field(default_factory=api.StatusResponse)
    later: list[api.StatusResponse] = field(default_factory=list)
    """What ``watch_status`` says after ``view``."""
    changes: list[Callable[[FakeCluster], Sequence[api.Change]]] = field(default_factory=list)
    asked: list[pb.OperationSpec] = field(default_factory=list)
    applied: list[tuple[list[str], bool, bool]] = field(default_factory=list)
    deleted: list[Ref] = field(default_factory=list)
    fails: Exception | None = None
    watch_fails: Exception | None = None
    """What a watch ends with after ``changes``: every server was lost once the change was made."""
    ends_watch: bool = False
    silent_after: bool = False
    """``watch_status`` goes on without a word when it has said everything, as a lost server does."""

    async def __aenter__(self) -> Self:
        if self.fails:
            raise self.fails
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def put(self, *messages: pb.Group | pb.VirtualIP | pb.Application | pb.Event | pb.Operation | pb.Node) -> None:
        for message in messages:
            obj = wrap(message)
            self.objects[ref_of(obj)] = obj

    async def apply(
        self, objects: Sequence[pb.Object], *, dry_run: bool = False, prune: bool = False
    ) -> api.ApplyResponse:
        self.applied.append(([str(ref_of(obj)) for obj in objects], dry_run, prune))
        answer = api.ApplyResponse()
        for obj in objects:
            ref = ref_of(obj)
            action = "configured" if ref in self.objects else "created"
            answer.results.add(key=ref.key(), action=action)
            if not dry_run:
                self.objects[ref] = copy(obj)
        return answer

    async def list(self, kind: str = "", group: str = "", *, limit: int = 0, stale: bool = False) -> api.ListResponse:
        found = [
            obj
            for ref, obj in sorted(self.objects.items())
            if kind in ("", ref.kind) and (not group or group_of(obj) == group)
        ]
        newest = sorted(found, key=lambda obj: -metadata(obj).resource_version)
        return api.ListResponse(objects=newest[:limit] if limit else found, resource_version=7)

    async def watch(self, kinds: Sequence[str] = (), group: str = "") -> AsyncIterator[api.WatchResponse]:
        if self.watch_fails and not self.changes:
            raise self.watch_fails
        first = [
            api.Change(type=api.WatchResponse.ADDED, object=obj)
            for ref, obj in sorted(self.objects.items())
            if ref.kind in (kinds or KINDS) and (not group or group_of(obj) == group)
        ]
        yield api.WatchResponse(changes=[*first, api.Change(type=api.WatchResponse.SYNCED)])
        for change in self.changes:
            yield api.WatchResponse(changes=change(self))
        if self.watch_fails:
            raise self.watch_fails
        if not self.ends_watch:
            await anyio.sleep_forever()

    async def delete(self, ref: Ref) -> api.DeleteResponse:
        if ref not in self.objects:
            raise NotFound(f"{ref}: does not exist")
        self.deleted.append(ref)
        return api.DeleteResponse()

    async def create_operation(self, spec: pb.OperationSpec) -> pb.Operation:
        self.asked.append(spec)
        operation = pb.Operation(spec=spec)
        operation.metadata.name = "op-1"
        operation.metadata.resource_version = 5
        operation.status.state = "Pending"
        return operation

    async def status(self, group: str = "") -> api.StatusResponse:
        return self.view

    async def watch_status(self, group: str = "") -> AsyncIterator[api.StatusResponse]:
        yield self.view
        for view in self.later:
            yield view
        if self.silent_after:
            await anyio.sleep_forever()


def ended(state: str, message: str = "", milliseconds: int = 0) -> Callable[[FakeCluster], Sequence[api.Change]]:
    """The change that brings the one operation to its end."""

    def change(cluster: FakeCluster) -> Sequence[api.Change]:
        operation = pb.Operation(spec=cluster.asked[-1])
        operation.metadata.name = "op-1"
        operation.status.state, operation.status.message = state, message
        if milliseconds:
            operation.status.duration.FromMilliseconds(milliseconds)
        return [api.Change(type=api.WatchResponse.MODIFIED, object=wrap(operation))]

    return change


def now(message: pb.Group | pb.VirtualIP) -> Callable[[FakeCluster], Sequence[api.Change]]:
    """The change that an object looks like this now."""
    return lambda _: [api.Change(type=api.WatchResponse.MODIFIED, object=wrap(message))]


def gone(message: pb.Group | pb.VirtualIP) -> Callable[[FakeCluster], Sequence[api.Change]]:
    """The change that an object is gone."""
    return lambda _: [api.Change(type=api.WatchResponse.DELETED, object=wrap(message))]


def web_group(phase: str = "Running", reason: str = "") -> pb.Group:
    """The contract's example group, on n1."""
    group = pb.Group()
    group.metadata.name = "web"
    group.spec.nodes.add(name="n1", priority=100)
    group.spec.nodes.add(name="n2", priority=50)
    group.status.phase, group.status.reason = phase, reason
    group.status.assignment.node, group.status.assignment.epoch = "n1", 2
    return group


def web_ip(state: str = "Running", generation: int = 1, observed: int = 1, message: str = "") -> pb.VirtualIP:
    """The contract's example address."""
    address = pb.VirtualIP()
    address.metadata.name, address.metadata.group, address.metadata.generation = "web-ip", "web", generation
    address.spec.address, address.spec.interface.name = "10.77.0.100/24", "eth0"
    address.status.node, address.status.state, address.status.message = "n1", state, message
    address.status.observed_generation = observed
    return address


def contract_view() -> api.StatusResponse:
    """The status that the contract shows as JSON."""
    view = api.StatusResponse()
    view.cluster.name, view.cluster.leader, view.cluster.term = "demo", "n1", 4
    view.cluster.quorum, view.cluster.voters, view.cluster.profile = True, 3, "default"
    view.cluster.failover_bound.FromMilliseconds(1400)
    node = view.nodes.add(name="n1", role="Voter", state="Ready", version="0.1.0")
    node.lease.valid, node.lease.epoch = True, 3
    node.guard.armed, node.guard.watchdog = True, "none"
    group = view.groups.add(name="web", mode="Mirror", failover_mode="Auto", active="n1", epoch=2, phase="Running")
    group.failover_bound.FromMilliseconds(1400)
    group.redundant = True
    group.nodes["n2"], group.nodes["n1"] = "Standby", "Active"
    group.resources.add(kind="VirtualIP", name="web-ip", node="n1", state="Running")
    return view


__all__ = ["FakeCluster", "contract_view", "ended", "gone", "now", "web_group", "web_ip"]
