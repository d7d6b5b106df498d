"""Random histories: a member restored at any point goes on exactly like the others, and the invariants always hold."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from hasys.api.flow import find_cycle
from hasys.api.kinds import RESOURCE_KINDS, Ref, copy, resource
from hasys.store import machine as machine_module
from hasys.store.machine import Machine
from hasys.v1 import objects_pb2 as pb
from hasys.v1.store_pb2 import Command, Mutation
from tests.unit.store.build import delay, group, operation, vip

names = st.sampled_from(["a", "b", "c"])
groups = st.sampled_from(["web", "db"])
afters = st.lists(names, max_size=2, unique=True)
specs = st.one_of(
    st.builds(group, groups, st.sampled_from(["n1", "n2"])),
    st.builds(delay, names, groups, st.integers(1, 3), afters),
    st.builds(vip, names, groups, st.sampled_from(["10.0.0.1/24", "10.0.0.1/16", "10.0.0.2/24"]), afters),
    st.builds(operation, names),
)
refs = st.one_of(
    st.builds(Ref, st.sampled_from(RESOURCE_KINDS), groups, names),
    st.builds(lambda name: Ref("Group", "", name), groups),
    st.builds(lambda name: Ref("Operation", "", name), names),
)


@st.composite
def statuses(draw: st.DrawFn) -> Mutation:
    """An assignment, the end of an operation, or a report."""
    obj = draw(specs)
    node, epoch = draw(st.sampled_from(["", "n1", "n2"])), draw(st.integers(0, 4))
    if obj.HasField("group"):
        obj.group.status.assignment.node = node
        obj.group.status.assignment.epoch = epoch
    elif obj.HasField("operation"):
        obj.operation.status.state = draw(st.sampled_from(["Running", "Succeeded", "Failed"]))
    else:
        part = resource(obj)
        assert part is not None
        part.status.CopyFrom(pb.ResourceStatus(node=node, epoch=epoch, gone=draw(st.booleans())))
    return Mutation(put_status=obj)


mutations = st.one_of(
    st.builds(lambda obj, absent: Mutation(put_spec=obj, expect_absent=absent), specs, st.booleans()),
    statuses(),
    st.builds(lambda ref, purge: Mutation(delete=ref.key(), purge=purge), refs, st.booleans()),
    st.builds(lambda text: Mutation(record=pb.Event(reason=text)), names),
)
commands = st.builds(
    lambda number, parts: Command(id=f"c{number}", mutations=parts), st.integers(0, 30), st.lists(mutations, max_size=3)
)


def check_invariants(machine: Machine) -> None:
    """What holds after every command."""
    objects = machine.list()
    addresses = Counter(obj.virtual_ip.spec.address.partition("/")[0] for obj in objects if obj.HasField("virtual_ip"))
    assert all(count == 1 for count in addresses.values())
    for name in ("web", "db"):
        members = machine.members_of(name)
        assert not members or machine.group(name) is not None
        assert max(Counter(ref.name for ref in members).values(), default=1) == 1
        parts = [part for obj in members.values() if (part := resource(obj)) is not None]
        staying = {
            part.metadata.name: list(part.spec.after) for part in parts if not part.metadata.HasField("deleting")
        }
        assert all(other in staying for after in staying.values() for other in after)
        assert find_cycle(staying) == []


@settings(max_examples=150, deadline=None)
@given(st.lists(commands, max_size=40), st.integers(0, 39))
def test_a_restored_member_answers_and_ends_like_one_that_saw_everything(history: list[Command], cut: int) -> None:
    whole, restored = Machine(), Machine()
    kept = machine_module.EVENTS_KEPT, machine_module.OPERATIONS_KEPT
    machine_module.EVENTS_KEPT, machine_module.OPERATIONS_KEPT = 3, 1
    try:
        for index, command in enumerate(history, start=1):
            data = command.SerializeToString()
            answer = whole.apply(index, data)
            if index <= cut:
                restored.restore(index, whole.snapshot())
            else:
                assert restored.apply(index, data) == answer
            check_invariants(whole)
        if history:
            assert restored.snapshot() == whole.snapshot()
    finally:
        machine_module.EVENTS_KEPT, machine_module.OPERATIONS_KEPT = kept


@settings(max_examples=50, deadline=None)
@given(st.lists(commands, max_size=15))
def test_stored_objects_are_replaced_and_never_mutated(history: list[Command]) -> None:
    machine = Machine()
    handed_out: list[tuple[pb.Object, pb.Object]] = []
    for index, command in enumerate(history, start=1):
        machine.apply(index, command.SerializeToString())
        handed_out += [(obj, copy(obj)) for obj in machine.list()]
    assert all(obj == as_it_was for obj, as_it_was in handed_out)
