"""Who the members are, from the best source there is: the log, the stored Node objects, node.yaml.

Members with a store (voters, witnesses) are those that the consensus engine names; until their first change these are
the ones of node.yaml. Observers have no store: they are Node objects, which node.yaml only seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hasys.config import Member, NodeConfig
from hasys.store.machine import Changed, Machine
from hasys.store.port import Engine
from hasys.v1 import objects_pb2 as pb


class Directory:
    """The members as of now; tells when they change."""

    def __init__(self, config: NodeConfig, machine: Machine, engine: Engine) -> None:
        self._config = config
        self._machine = machine
        self._engine = engine
        self._listeners: list[Callable[[], None]] = []
        self._members = config.members
        machine.subscribe(self._changed)
        engine.on_members(self.refresh)

    @property
    def members(self) -> tuple[Member, ...]:
        return self._members

    def get(self, name: str) -> Member | None:
        return next((m for m in self._members if m.name == name), None)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call back when the members changed."""
        self._listeners.append(listener)

    def refresh(self) -> None:
        """Look again."""
        stores = self._engine.members()
        if stores is None:
            stores = self._config.voters
        found = (*stores, *self._observers())
        if found != self._members:
            self._members = found
            for listener in tuple(self._listeners):
                listener()

    def _observers(self) -> tuple[Member, ...]:
        if self._machine.cluster() is None:
            return tuple(m for m in self._config.members if not m.votes)
        nodes = (obj.node for obj in self._machine.list("Node"))
        return tuple(member_of(node) for node in nodes if node.spec.role == pb.NodeSpec.Observer)

    def _changed(self, index: int, changes: Sequence[Changed]) -> None:
        if not changes or any(change.ref.kind in ("Node", "Cluster") for change in changes):
            self.refresh()


def member_of(node: pb.Node) -> Member:
    """The member that a Node object describes."""
    return member_from(node.metadata.name, node.spec)


def member_from(name: str, spec: pb.NodeSpec) -> Member:
    """The same from a specification."""
    role = pb.NodeSpec.Role.Name(spec.role)
    return Member(name, role, tuple(spec.addresses), spec.api_port, spec.raft_port, spec.lease_port)


def spec_of(member: Member, *, drained: bool = False) -> pb.NodeSpec:
    """The specification of a member's Node object."""
    return pb.NodeSpec(
        role=pb.NodeSpec.Role.Value(member.role),
        addresses=member.addresses,
        api_port=member.api_port,
        raft_port=member.raft_port,
        lease_port=member.lease_port,
        drained=drained,
    )
