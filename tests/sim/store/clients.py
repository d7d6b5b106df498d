"""Clients: conditional and plain writes, repeated commands, reads, moves of a group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hasys.api.kinds import Ref, copy, inner
from hasys.store.port import Applied
from hasys.store.raft.following import Failure
from hasys.v1 import objects_pb2 as pb
from hasys.v1.store_pb2 import Command, Mutation

if TYPE_CHECKING:
    from tests.sim.store.world import Member, StoreWorld

GROUP = "web"
OBJECTS = 6


def read_confirmed(world: StoreWorld, member: Member, done: Callable[[int | None], None]) -> None:
    """As the API does it: look at the state, then have a majority confirm that this member still leads."""
    revision = member.state.revision
    if member.core is not None:
        member.core.confirm(member.local(world.now), lambda led: done(revision if led else None))
        world._pump(member)


class Clients:
    """All clients. ``rate``: requests per second."""

    def __init__(self, world: StoreWorld) -> None:
        self.world = world
        self.rate = 4.0
        self.count = 0
        self.reads = self.done = 0
        self._running = False

    def begin(self) -> None:
        group = pb.Object()
        group.group.metadata.name = GROUP
        for name in self.world.seeded[:3]:
            group.group.spec.nodes.add(name=name)
        leader = self.world.machines[self.world.leader() or "n1"]
        self.send(leader, Mutation(put_spec=group))
        self.world.run_until(lambda: self.done > 0, 5.0)
        self._running = True
        self._next()

    def stop(self) -> None:
        self._running = False

    def _next(self) -> None:
        if self._running:
            self.act()
            self.world.at(self.world.clients.expovariate(max(self.rate, 0.2)), self._next)

    def act(self) -> None:
        """One request, or a burst."""
        rng = self.world.clients
        member = self.somebody()
        chance = rng.random()
        if chance < 0.12:
            leader = self.world.leader()
            self.read(self.world.machines[leader] if leader is not None and rng.random() < 0.5 else member)
        elif chance < 0.2:
            self.move(member)
        else:
            for _ in range(rng.choice((1, 1, 1, 1, 1, 1, 1, 12)) if self.rate > 1 else 1):
                self.send(member, self.mutation(member))

    def somebody(self) -> Member:
        return self.world.machines[self.world.clients.choice(sorted(self.world.present))]

    def mutation(self, member: Member) -> Mutation:
        """A write to one of a few objects, conditional on what this member shows, or not."""
        rng = self.world.clients
        ref = Ref("Delay", GROUP, f"d{rng.randrange(OBJECTS)}")
        found = member.state.machine.get(ref) if member.core is not None else None
        version = inner(found).metadata.resource_version if found is not None and rng.random() < 0.5 else 0
        if found is not None and rng.random() < 0.15:
            return Mutation(delete=ref.key(), purge=True, expect_version=version)
        obj = pb.Object()
        obj.delay.metadata.name, obj.delay.metadata.group = ref.name, ref.group
        obj.delay.metadata.labels["filler"] = "x" * rng.choice((1, 20, 200))
        obj.delay.spec.duration.seconds = rng.randrange(1, 1000)
        return Mutation(put_spec=obj, expect_version=version, expect_absent=found is None and rng.random() < 0.5)

    def send(self, member: Member, mutation: Mutation) -> None:
        self.count += 1
        command = Command(id=f"c{self.count}", mutations=[mutation]).SerializeToString()
        self._try(member, command, tries=2)

    def _try(self, member: Member, command: bytes, tries: int) -> None:
        """An unknown outcome is asked for again, with the same id, maybe elsewhere."""

        def done(result: Applied | Failure) -> None:
            if isinstance(result, Applied):
                self.done += 1
            elif result is Failure.UNKNOWN and tries:
                other = self.somebody()
                self.world.at(0.1, lambda: self._try(other, command, tries - 1))

        self.world.propose(member, command, done)

    def read(self, member: Member) -> None:
        acknowledged = self.world.checker.acknowledged

        def done(revision: int | None) -> None:
            if revision is not None:
                self.reads += 1
                self.world.checker.read(revision, acknowledged, member.name)

        if member.core is not None and not self.world.is_frozen(member):
            self.world.parts.read(self.world, member, done)

    @staticmethod
    def _group(member: Member) -> pb.Object | None:
        return member.state.machine.get(Ref("Group", "", GROUP)) if member.core is not None else None

    def holder(self, member: Member) -> str:
        """The node that the group is assigned to, as this member knows it."""
        found = self._group(member)
        return found.group.status.assignment.node if found is not None else ""

    def move(self, member: Member) -> None:
        """Assign the group elsewhere, as a controller would: conditional, with the next epoch."""
        found = self._group(member)
        if found is None:
            return
        rng = self.world.clients
        new = copy(found)
        a = new.group.status.assignment
        if a.previous_node and not a.revoked and rng.random() < 0.5:
            a.revoked = True
        else:
            a.previous_node, a.previous_epoch = a.node, a.epoch
            a.node = rng.choice(self.world.seeded[:3])
            a.epoch += 1
            a.revoked = not a.previous_node or rng.random() < 0.5
        self.send(member, Mutation(put_status=new, expect_version=inner(found).metadata.resource_version))
