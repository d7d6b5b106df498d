"""One command, worked out beside the stored state: what would be put and removed, or why it is refused.

Every rule that must hold although two valid requests race is checked here, at apply time, on every member alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hasys.api.convert import duration, seconds, timing_of
from hasys.api.flow import find_cycle
from hasys.api.kinds import KINDS, Ref, Resource, copy, inner, ref_of, resource
from hasys.model import level
from hasys.model.timing import TimingRefused
from hasys.store.indexes import Indexes, bare_address
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2

OBJECT_BYTES = 256 * 1024
"""Largest single object."""
EVENT_BYTES = 8 * 1024
"""Largest event."""
STATE_BYTES = 64 * 1024 * 1024
"""Largest state; beyond it nothing new is stored, while deletion and status still work. A snapshot of it takes a few
tenths of a second of the process that must also send heartbeats; usual states are 1 % of it."""
GROUP_MEMBERS = 1_000
"""Most resources and monitors of one group: each decision about a group looks at all of them."""
MUTATIONS = 10_000
"""Most mutations of one command."""

FINISHED = ("Succeeded", "Failed")
"""End states of an operation."""


class Refusal(Exception):
    """The command changes nothing; ``code`` as in ``Outcome``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Transaction:
    """Works out one command. After ``run``, ``staged`` maps identities to new objects, or None for removed ones."""

    def __init__(
        self, indexes: Indexes, index: int, command: store_pb2.Command, event_serial: int, epoch_floor: int
    ) -> None:
        self._indexes = indexes
        self._index = index
        self._command = command
        self.event_serial = event_serial
        self.epoch_floor = epoch_floor
        self.staged: dict[Ref, pb.Object | None] = {}
        self._flows: dict[str, None] = {}
        """Groups whose ``after`` arrows must be looked at, in order of appearance."""
        self._grown: dict[str, None] = {}
        """Groups that get another member, in order of appearance."""

    def run(self) -> None:
        """Stage every mutation. Raises :class:`Refusal`."""
        if len(self._command.mutations) > MUTATIONS:
            raise Refusal("TooLarge", f"more than {MUTATIONS} changes at once")
        for ordinal, mutation in enumerate(self._command.mutations):
            action = mutation.WhichOneof("action")
            if action == "put_spec":
                self._put_spec(mutation, ordinal)
            elif action == "put_status":
                self._put_status(mutation)
            elif action == "delete":
                self._delete(mutation)
            elif action == "record":
                self._record(mutation.record)
            else:
                raise Refusal("Invalid", "unknown kind of change")
        for group in self._grown if self._indexes.level >= level.GROUP_MEMBERS else ():
            if len(self._members(group)) > GROUP_MEMBERS:
                raise Refusal(
                    "TooLarge", f"Group/{group}: more than {GROUP_MEMBERS} resources and monitors: make another group"
                )
        for group in self._flows:
            self._check_flow(group)

    # ------------------------------------------------------------ looking through what is staged

    def _get(self, ref: Ref) -> pb.Object | None:
        if ref in self.staged:
            return self.staged[ref]
        return self._indexes.objects.get(ref)

    def _group(self, name: str) -> pb.Group | None:
        obj = self._get(Ref("Group", "", name))
        return obj.group if obj is not None else None

    def _members(self, group: str) -> Mapping[Ref, pb.Object]:
        """The resources and monitors of a group as they will be."""
        members = dict(self._indexes.group(group))
        for ref, obj in self.staged.items():
            if ref.group == group and KINDS[ref.kind].grouped:
                if obj is None:
                    members.pop(ref, None)
                else:
                    members[ref] = obj
        return members

    def _read(self, obj: pb.Object) -> Ref:
        try:
            return ref_of(obj)
        except ValueError:
            raise Refusal("Invalid", "an object of no known kind") from None

    def _expected(self, mutation: store_pb2.Mutation, ref: Ref, old: pb.Object | None) -> None:
        if mutation.expect_absent and old is not None:
            raise Refusal("Exists", f"{ref}: exists already")
        if mutation.expect_version:
            if old is None:
                raise Refusal("Conflict", f"{ref}: was deleted meanwhile")
            if inner(old).metadata.resource_version != mutation.expect_version:
                raise Refusal("Conflict", f"{ref}: changed meanwhile: read it again")

    # ------------------------------------------------------------ spec

    def _put_spec(self, mutation: store_pb2.Mutation, ordinal: int) -> None:
        wanted = mutation.put_spec
        ref = self._read(wanted)
        old = self._get(ref)
        self._expected(mutation, ref, old)
        if not ref.name or bool(ref.group) != KINDS[ref.kind].grouped:
            raise Refusal("Invalid", f"{ref}: name or group is missing or too much")
        if wanted.ByteSize() > OBJECT_BYTES:
            raise Refusal("TooLarge", f"{ref}: larger than {OBJECT_BYTES} bytes")
        if ref.kind == "Event":
            raise Refusal("Invalid", f"{ref}: events are recorded, not put")
        if old is None:
            self._create(ref, wanted, ordinal)
        else:
            self._change(ref, old, wanted)

    def _create(self, ref: Ref, wanted: pb.Object, ordinal: int) -> None:
        if self._indexes.bytes + wanted.ByteSize() > STATE_BYTES:
            raise Refusal("TooLarge", f"{ref}: the store is full ({STATE_BYTES >> 20} MiB)")
        new = copy(wanted)
        meta = inner(new).metadata
        meta.uid = f"{self._index:x}-{ordinal:x}"
        meta.generation = 1
        meta.resource_version = self._index
        meta.created.CopyFrom(self._command.time)
        meta.ClearField("deleting")
        part = resource(new)
        if KINDS[ref.kind].grouped:
            self._check_new_member(ref, part)
            getattr(new, KINDS[ref.kind].field).ClearField("status")
        elif ref.kind == "Group":
            new.group.ClearField("status")
            new.group.status.phase = "Stopped"
            new.group.status.assignment.epoch = self.epoch_floor
            new.group.status.resources_version = self._index
        elif ref.kind == "Cluster":
            self._keep_longest_ttl(new.cluster, None)
        self.staged[ref] = new
        if ref.group and KINDS[ref.kind].grouped:
            self._grown[ref.group] = None
        if part is not None:
            self._resources_changed(ref.group)
            if part.spec.after:
                self._flows[ref.group] = None

    def _change(self, ref: Ref, old: pb.Object, wanted: pb.Object) -> None:
        before, asked = inner(old), inner(wanted)
        if before.metadata.HasField("deleting"):
            raise Refusal("Conflict", f"{ref}: is being deleted: wait until it is gone")
        if isinstance(before, pb.Event | pb.Operation) or isinstance(asked, pb.Event | pb.Operation):
            raise Refusal("Invalid", f"{ref}: what was asked for never changes: create another")
        respecified = before.spec != asked.spec
        relabelled = before.metadata.labels != asked.metadata.labels
        if not respecified and not relabelled:
            return
        self._check_immutable(ref, old, wanted)
        new = copy(old)
        target = inner(new)
        if relabelled:
            target.metadata.ClearField("labels")
            target.metadata.labels.update(asked.metadata.labels)
        target.metadata.resource_version = self._index
        if respecified:
            target.metadata.generation += 1
            getattr(target, "spec").CopyFrom(getattr(asked, "spec"))  # noqa: B009  (the kinds' specs differ in type)
        if ref.kind == "Group" and respecified:
            new.group.status.resources_version = self._index
        elif ref.kind == "Cluster" and respecified:
            self._keep_longest_ttl(new.cluster, old.cluster)
        self.staged[ref] = new
        part, earlier = resource(new), resource(old)
        if part is not None and earlier is not None and respecified:
            self._resources_changed(ref.group)
            if part.spec.after != earlier.spec.after:
                self._flows[ref.group] = None

    @staticmethod
    def _check_immutable(ref: Ref, old: pb.Object, wanted: pb.Object) -> None:
        if ref.kind == "VirtualIP" and old.virtual_ip.spec.address != wanted.virtual_ip.spec.address:
            raise Refusal("Invalid", f"{ref}: spec.address cannot change: delete it and create another")
        if ref.kind == "Group" and old.group.spec.mode != wanted.group.spec.mode:
            raise Refusal("Invalid", f"{ref}: spec.mode cannot change: delete the group and create it again")

    def _keep_longest_ttl(self, new: pb.Cluster, old: pb.Cluster | None) -> None:
        """Until a later write of the leader says that old grants are over, the longest TTL of all counts."""
        try:
            ttls = [timing_of(new.spec).ttl]
            if old is not None:
                ttls += [timing_of(old.spec).ttl, seconds(old.status.ttl_max)]
        except TimingRefused as e:
            raise Refusal("Invalid", str(e)) from None
        new.status.ttl_max.CopyFrom(duration(max(ttls)))
        new.status.timing_version = self._index

    # ------------------------------------------------------------ resources of a group

    def _check_new_member(self, ref: Ref, part: Resource | None) -> None:
        group = self._group(ref.group)
        if group is None:
            raise Refusal("Invalid", f"{ref}: group {ref.group!r} does not exist")
        if group.metadata.HasField("deleting"):
            raise Refusal("Conflict", f"{ref}: group {ref.group!r} is being deleted")
        for kind in KINDS.values():
            if kind.grouped and kind.name != ref.kind and self._get(Ref(kind.name, ref.group, ref.name)) is not None:
                raise Refusal("Invalid", f"{ref}: {kind.name}/{ref.name} has the same name in group {ref.group!r}")
        if isinstance(part, pb.VirtualIP):
            self._check_address(ref, part, group)

    def _check_address(self, ref: Ref, part: pb.VirtualIP, group: pb.Group) -> None:
        try:
            claims = self._indexes.claims(part.spec.address)
        except ValueError:
            raise Refusal("Invalid", f"{ref}: spec.address {part.spec.address[:60]!r} is no address") from None
        address = part.spec.address.partition("/")[0]
        staged = [
            other for other, obj in self.staged.items()
            if obj is not None and other.kind == "VirtualIP" and other != ref
            and same_address(obj.virtual_ip.spec.address, part.spec.address)
        ]  # fmt: skip
        for other in (*claims, *staged):
            if self._get(other) is None:
                continue
            theirs = self._group(other.group)
            both_farms = (
                other.group != ref.group and theirs is not None
                and theirs.spec.mode == pb.GroupSpec.Farm and group.spec.mode == pb.GroupSpec.Farm
            )  # fmt: skip
            if not both_farms:
                raise Refusal("Invalid", f"{ref}: address {address} belongs to {other} of group {other.group!r}")

    def _resources_changed(self, group: str) -> None:
        """The group's plan is another one from this entry on."""
        ref = Ref("Group", "", group)
        old = self._get(ref)
        if old is None or old.group.status.resources_version == self._index:
            return
        new = copy(old)
        new.group.status.resources_version = self._index
        new.group.metadata.resource_version = self._index
        self.staged[ref] = new

    def _check_flow(self, group: str) -> None:
        """Every ``after`` names a resource that stays, and there is no cycle."""
        arrows: dict[str, Iterable[str]] = {}
        for obj in self._members(group).values():
            part = resource(obj)
            if part is not None and not part.metadata.HasField("deleting"):
                arrows[part.metadata.name] = part.spec.after
        for name, after in sorted(arrows.items()):
            for other in after:
                if other not in arrows:
                    raise Refusal("Invalid", f"{name} of group {group!r} comes after {other!r}, which is not there")
        cycle = find_cycle(arrows)
        if cycle:
            raise Refusal("Invalid", f"group {group!r}: spec.after goes round in a circle: {' -> '.join(cycle)}")

    # ------------------------------------------------------------ status

    def _put_status(self, mutation: store_pb2.Mutation) -> None:
        wanted = mutation.put_status
        ref = self._read(wanted)
        old = self._get(ref)
        if old is None:
            raise Refusal("NotFound", f"{ref}: does not exist")
        self._expected(mutation, ref, old)
        if wanted.ByteSize() > OBJECT_BYTES:
            raise Refusal("TooLarge", f"{ref}: larger than {OBJECT_BYTES} bytes")
        before, asked = inner(old), inner(wanted)
        if isinstance(before, pb.Event) or isinstance(asked, pb.Event):
            raise Refusal("Invalid", f"{ref}: events never change")
        self._check_status(ref, old, wanted)
        new = copy(old)
        target = inner(new)
        getattr(target, "status").CopyFrom(getattr(asked, "status"))  # noqa: B009  (the kinds' statuses differ in type)
        if ref.kind == "Group":
            new.group.status.resources_version = old.group.status.resources_version
        if new == old:
            return
        target.metadata.resource_version = self._index
        self.staged[ref] = new
        part = resource(new)
        if part is not None and part.status.gone and self._let_go(part):
            self.staged[ref] = None
        elif ref.kind == "Group" and nobody_has(new.group):
            self._purge_deleted(ref, new)
        elif ref.kind == "Group":
            self._purge_gone(ref)

    @staticmethod
    def _check_status(ref: Ref, old: pb.Object, wanted: pb.Object) -> None:
        part, asked = resource(old), resource(wanted)
        if part is not None and asked is not None:
            if asked.status.epoch < part.status.epoch:
                raise Refusal(
                    "Conflict", f"{ref}: status of epoch {asked.status.epoch} is older than {part.status.epoch}"
                )
        elif ref.kind == "Group":
            before, after = old.group.status.assignment, wanted.group.status.assignment
            if after.epoch < before.epoch:
                raise Refusal("Invalid", f"{ref}: epoch {after.epoch} is older than {before.epoch}")
            if after.node and after.node != before.node and after.epoch == before.epoch:
                raise Refusal("Invalid", f"{ref}: another node needs another epoch than {before.epoch}")
        elif ref.kind == "Operation":
            ended = old.operation.status.state in FINISHED
            if ended and old.operation.status != wanted.operation.status:
                raise Refusal("Conflict", f"{ref}: has ended: {old.operation.status.state}")

    def _let_go(self, part: Resource) -> bool:
        """A deleted resource goes when the one node that could still have it says that it is gone."""
        group = self._group(part.metadata.group)
        if group is None or not part.metadata.HasField("deleting"):
            return False
        assignment = group.status.assignment
        return not assignment.previous_node and (
            (part.status.node, part.status.epoch) == (assignment.node, assignment.epoch)
        )

    # ------------------------------------------------------------ deletion and events

    def _delete(self, mutation: store_pb2.Mutation) -> None:
        ref = Ref.of_key(mutation.delete)
        old = self._get(ref)
        if old is None:
            raise Refusal("NotFound", f"{ref}: does not exist")
        self._expected(mutation, ref, old)
        if ref.kind == "Group":
            self._delete_group(ref, old, purge=mutation.purge)
        elif KINDS[ref.kind].grouped:
            self._delete_member(ref, old, purge=mutation.purge)
            if resource(old) is not None:
                self._flows[ref.group] = None
        else:
            self.staged[ref] = None

    def _delete_group(self, ref: Ref, old: pb.Object, *, purge: bool) -> None:
        purge = purge or nobody_has(old.group)
        members = sorted(self._members(ref.name).items())
        for member, obj in members:
            self._delete_member(member, obj, purge=purge)
        if purge:
            self.epoch_floor = max(self.epoch_floor, old.group.status.assignment.epoch)
            self.staged[ref] = None
        elif not old.group.metadata.HasField("deleting"):
            new = copy(old)
            new.group.metadata.deleting.CopyFrom(self._command.time)
            new.group.metadata.resource_version = self._index
            new.group.status.resources_version = self._index
            self.staged[ref] = new

    def _purge_deleted(self, ref: Ref, obj: pb.Object) -> None:
        """The group is held by nobody any more: what waited for that goes now."""
        if obj.group.metadata.HasField("deleting"):
            self._delete_group(ref, obj, purge=True)
            return
        going = [m for m, part in self._members(ref.name).items() if inner(part).metadata.HasField("deleting")]
        for member in sorted(going):
            self.staged[member] = None

    def _purge_gone(self, ref: Ref) -> None:
        """The assignment changed: what its node said was gone before, while an earlier node might still have it."""
        for member, obj in sorted(self._members(ref.name).items()):
            part = resource(obj)
            if part is not None and part.status.gone and self._let_go(part):
                self.staged[member] = None

    def _delete_member(self, ref: Ref, old: pb.Object, *, purge: bool) -> None:
        if resource(old) is None:  # nothing of a monitor is left on any node
            self.staged[ref] = None
            return
        marked = inner(old).metadata.HasField("deleting")
        group = self._group(ref.group)
        if purge or group is None or nobody_has(group):
            self.staged[ref] = None
        elif not marked:
            new = copy(old)
            meta = inner(new).metadata
            meta.deleting.CopyFrom(self._command.time)
            meta.resource_version = self._index
            self.staged[ref] = new
        if not marked:
            self._resources_changed(ref.group)

    def _record(self, event: pb.Event) -> None:
        if event.ByteSize() > EVENT_BYTES:
            raise Refusal("TooLarge", f"an event that is larger than {EVENT_BYTES} bytes")
        self.event_serial += 1
        new = pb.Object()
        new.event.CopyFrom(event)
        meta = new.event.metadata
        meta.Clear()
        meta.name = f"e{self.event_serial}"
        meta.uid = meta.name
        meta.resource_version = self._index
        meta.created.CopyFrom(self._command.time)
        if not new.event.HasField("time"):
            new.event.time.CopyFrom(self._command.time)
        self.staged[Ref("Event", "", meta.name)] = new


def nobody_has(group: pb.Group) -> bool:
    """The group is assigned to no node and was taken from none that may still have it. Whoever clears the assignment's
    ``node`` and ``previous_node`` has the proof (a release, or grants that are over)."""
    assignment = group.status.assignment
    return not assignment.node and not assignment.previous_node


def same_address(one: str, other: str) -> bool:
    """Two ``address/prefix`` name the same address. False when either is none."""
    try:
        return bare_address(one) == bare_address(other)
    except ValueError:
        return False
