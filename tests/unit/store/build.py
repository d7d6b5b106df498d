"""Short ways to say objects, mutations and commands."""

from __future__ import annotations

from collections.abc import Sequence

from hasys.api.kinds import Ref, copy
from hasys.store.machine import Machine
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2
from hasys.v1.store_pb2 import Mutation


def group(name: str = "web", *nodes: str, farm: bool = False) -> pb.Object:
    obj = pb.Object()
    obj.group.metadata.name = name
    obj.group.spec.mode = pb.GroupSpec.Farm if farm else pb.GroupSpec.Mirror
    for node in nodes or ("n1", "n2"):
        obj.group.spec.nodes.add(name=node)
    return obj


def vip(name: str = "ip", of: str = "web", address: str = "10.77.0.100/24", after: Sequence[str] = ()) -> pb.Object:
    obj = pb.Object()
    obj.virtual_ip.metadata.name = name
    obj.virtual_ip.metadata.group = of
    obj.virtual_ip.spec.address = address
    obj.virtual_ip.spec.interface.name = "eth0"
    obj.virtual_ip.spec.after.extend(after)
    return obj


def delay(name: str, of: str = "web", seconds: int = 1, after: Sequence[str] = ()) -> pb.Object:
    obj = pb.Object()
    obj.delay.metadata.name = name
    obj.delay.metadata.group = of
    obj.delay.spec.duration.seconds = seconds
    obj.delay.spec.after.extend(after)
    return obj


def operation(name: str) -> pb.Object:
    obj = pb.Object()
    obj.operation.metadata.name = name
    obj.operation.spec.type = pb.OperationSpec.Pause
    obj.operation.spec.group = "web"
    return obj


GROUP = Ref("Group", "", "web")


class Log:
    """A machine fed command by command; every command gets the next index."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self.index = self.machine.revision

    def apply(self, *mutations: Mutation, command_id: str = "") -> store_pb2.Outcome:
        self.index += 1
        command = store_pb2.Command(id=command_id or f"c{self.index}", actor="test", mutations=mutations)
        command.time.seconds = 1_700_000_000 + self.index
        return store_pb2.Outcome.FromString(self.machine.apply(self.index, command.SerializeToString()))

    def put(self, *objects: pb.Object) -> store_pb2.Outcome:
        return self.apply(*(Mutation(put_spec=obj) for obj in objects))

    def must(self, *objects: pb.Object) -> None:
        outcome = self.put(*objects)
        assert outcome.done, outcome.message

    def assign(self, name: str = "web", **fields: object) -> store_pb2.Outcome:
        """Change fields of a group's assignment."""
        old = self.machine.get(Ref("Group", "", name))
        assert old is not None
        new = copy(old)
        for field in fields:
            new.group.status.assignment.ClearField(field)  # type: ignore[arg-type]
        new.group.status.assignment.MergeFrom(pb.Assignment(**fields))  # type: ignore[arg-type]
        return self.apply(Mutation(put_status=new))

    def delete(self, ref: Ref, *, purge: bool = False) -> store_pb2.Outcome:
        return self.apply(Mutation(delete=ref.key(), purge=purge))

    def stored(self, ref: Ref) -> pb.Object:
        obj = self.machine.get(ref)
        assert obj is not None
        return obj
