"""What only the whole can tell: names, groups, nodes, arrows, addresses; and operations before anybody acts on them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from hasys.api.flow import find_cycle
from hasys.api.kinds import Ref, copy, ref_of
from hasys.api.rules import fill_defaults
from hasys.api.validation import check_deletion, check_objects, check_operation
from hasys.store.machine import Machine
from hasys.v1 import objects_pb2 as pb
from hasys.v1.store_pb2 import Mutation
from tests.unit.store.build import Log, delay, group, operation, vip


def node(name: str, address: str, role: pb.NodeSpec.Role.ValueType = pb.NodeSpec.Voter) -> pb.Object:
    obj = pb.Object()
    obj.node.metadata.name = name
    obj.node.spec.addresses.append(address)
    obj.node.spec.role = role
    return obj


@pytest.fixture
def log() -> Log:
    log = Log()
    cluster = pb.Object()
    cluster.cluster.metadata.name = "demo"
    log.must(
        node("n1", "10.77.0.1"),
        node("n2", "10.77.0.2"),
        node("w", "10.77.0.3", pb.NodeSpec.Witness),
        node("o", "10.77.0.4", pb.NodeSpec.Observer),
        cluster,
    )
    return log


def found(objects: Sequence[pb.Object], machine: Machine, removed: Sequence[Ref] = ()) -> list[tuple[str, str]]:
    """Name and field of each fault."""
    for obj in objects:
        fill_defaults(obj)
    return [(fault.ref.name, fault.field) for fault in check_objects(objects, machine, removed=removed)]


def test_a_sound_input_has_no_faults_whatever_its_order(log: Log) -> None:
    objects = [delay("b", after=["ip"]), vip(), group("web", "n1", "o")]
    assert found(objects, log.machine) == []


def test_a_node_that_does_not_exist_a_witness_or_twice_is_refused(log: Log) -> None:
    objects = [group("web", "n1", "n9", "w", "n1")]
    assert found(objects, log.machine) == [("web", f"spec.nodes[{number}].name") for number in (1, 2, 3)]


def test_a_group_that_does_not_exist_is_refused_and_one_in_the_same_input_is_fine(log: Log) -> None:
    assert found([delay("a", of="nope")], log.machine) == [("a", "metadata.group")]
    assert found([delay("a", of="new"), group("new")], log.machine) == []


def test_the_same_object_twice_in_one_input_is_refused(log: Log) -> None:
    assert found([group(), group()], log.machine) == [("web", "metadata.name")]


def test_a_name_is_unique_across_kinds_in_input_and_store(log: Log) -> None:
    assert found([group(), vip("x"), delay("x")], log.machine) == [("x", "metadata.name")]
    log.must(group(), vip("x"))
    assert found([delay("x")], log.machine) == [("x", "metadata.name")]
    assert found([vip("x")], log.machine) == []


@pytest.mark.parametrize("address", ["10.77.0.100/24", "10.77.0.100/16"])
def test_an_address_in_use_is_refused_in_input_and_store(log: Log, address: str) -> None:
    assert found([group(), vip("a"), vip("b", address=address)], log.machine) == [("b", "spec.address")]
    log.must(group("db"), vip("c", "db"))
    assert found([group(), vip("d", address=address)], log.machine) == [("d", "spec.address")]


def test_an_address_of_a_node_is_refused(log: Log) -> None:
    assert found([group(), vip(address="10.77.0.2/24")], log.machine) == [("ip", "spec.address")]


def test_farms_share_addresses_only_among_each_other(log: Log) -> None:
    farms = [group("f1", farm=True), group("f2", farm=True), vip("a", "f1"), vip("b", "f2")]
    assert found(farms, log.machine) == []
    assert found([*farms, group("m"), vip("c", "m")], log.machine) == [("c", "spec.address"), ("c", "spec.address")]


def test_immutable_fields_are_named(log: Log) -> None:
    log.must(group(), vip())
    assert found([group(farm=True), vip(address="10.77.0.101/24")], log.machine) == [
        ("web", "spec.mode"), ("ip", "spec.address"),
    ]  # fmt: skip


def test_an_interface_per_node_names_every_candidate_and_nobody_unknown(log: Log) -> None:
    one = vip()
    one.virtual_ip.spec.interface.Clear()
    one.virtual_ip.spec.interface.per_node.update({"n1": "eth0", "n7": "eth0"})
    assert found([group(), one], log.machine) == [("ip", "spec.interface.n7"), ("ip", "spec.interface")]


def test_a_circle_is_named_and_an_arrow_to_nowhere_too(log: Log) -> None:
    circle = [group(), delay("a", after=["c"]), delay("b", after=["a"]), delay("c", after=["b"])]
    (fault,) = check_objects(circle, log.machine)
    assert (fault.field, "a -> c -> b -> a" in fault.message) == ("spec.after", True)
    assert found([group(), delay("a", after=["zz"])], log.machine) == [("a", "spec.after[0]")]


def test_pruning_what_another_comes_after_is_refused(log: Log) -> None:
    log.must(group(), delay("a"), delay("b", after=["a"]))
    gone = Ref("Delay", "web", "a")
    assert found([delay("b", after=["a"])], log.machine, removed=[gone]) == [("b", "spec.after[0]")]
    assert found([delay("b")], log.machine, removed=[gone]) == []


def test_deleting_what_another_comes_after_is_refused_naming_it(log: Log) -> None:
    log.must(group(), delay("a"), delay("b", after=["a"]))
    (fault,) = check_deletion(Ref("Delay", "web", "a"), log.machine)
    assert "b comes after it" in fault.message
    assert check_deletion(Ref("Delay", "web", "b"), log.machine) == []


def test_a_timing_that_contradicts_itself_is_refused_with_both_numbers(log: Log) -> None:
    cluster = pb.Object()
    cluster.cluster.metadata.name = "demo"
    cluster.cluster.spec.timing.ttl.FromMilliseconds(300)
    (fault,) = check_objects([cluster], log.machine)
    assert fault.field == "spec.timing"
    assert "must be below" in fault.message


def test_kinds_that_hasys_writes_cannot_be_applied(log: Log) -> None:
    assert found([node("n5", "10.0.0.1"), operation("x")], log.machine) == [("n5", "kind"), ("x", "kind")]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (pb.OperationSpec(), "spec.type"),
        (pb.OperationSpec(type=pb.OperationSpec.Switchover), "spec.group"),
        (pb.OperationSpec(type=pb.OperationSpec.Switchover, group="nope"), "spec.group"),
        (pb.OperationSpec(type=pb.OperationSpec.Switchover, group="web", node="nope"), "spec.node"),
        (pb.OperationSpec(type=pb.OperationSpec.Switchover, group="web", node="o"), "spec.node"),
        (pb.OperationSpec(type=pb.OperationSpec.Failover, group="web"), "spec.node"),
        (pb.OperationSpec(type=pb.OperationSpec.Resolve, group="web", node="n1", role="boss"), "spec.role"),
        (pb.OperationSpec(type=pb.OperationSpec.Drain), "spec.node"),
        (pb.OperationSpec(type=pb.OperationSpec.Retry, group="web", step="nope"), "spec.step"),
        (pb.OperationSpec(type=pb.OperationSpec.Pause, group="web", reason="x" * 300), "spec.reason"),
    ],
)
def test_an_operation_that_cannot_work_is_refused_naming_the_field(
    log: Log, spec: pb.OperationSpec, field: str
) -> None:
    log.must(group())
    faults = check_operation(Ref("Operation", "", "x"), spec, log.machine)
    assert [fault.field for fault in faults] == [field]


def test_an_operation_that_can_work_is_accepted(log: Log) -> None:
    log.must(group())
    spec = pb.OperationSpec(type=pb.OperationSpec.Switchover, group="web", node="n2", reason="maintenance")
    assert check_operation(Ref("Operation", "", "x"), spec, log.machine) == []


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_arbitrary_messages_are_judged_without_an_exception(data: bytes) -> None:
    obj = pb.Object()
    try:
        obj.group.MergeFromString(data)
    except DecodeError:  # bytes that are no message never come this far
        return
    fill_defaults(obj)
    check_objects([obj], Machine())


names = st.sampled_from("abcd")
arrows = st.dictionaries(names, st.lists(names, max_size=3), max_size=4)


@given(arrows)
def test_a_circle_is_found_exactly_when_there_is_one(graph: dict[str, list[str]]) -> None:
    def reaches(start: str, goal: str) -> bool:
        seen, left = set(), [start]
        while left:
            for other in graph.get(left.pop(), ()):
                if other == goal:
                    return True
                if other not in seen and other in graph:
                    seen.add(other)
                    left.append(other)
        return False

    cycle = find_cycle(graph)
    assert bool(cycle) == any(reaches(name, name) for name in graph)
    assert all(after in graph[name] for name, after in pairwise(cycle))


groups = st.sampled_from(["web", "db"])
inputs = st.lists(
    st.one_of(
        st.builds(group, groups, st.sampled_from(["n1", "n2", "w"])),
        st.builds(delay, names, groups, st.integers(1, 3), st.lists(names, max_size=2)),
        st.builds(vip, names, groups, st.sampled_from(["10.0.0.1/24", "10.0.0.2/24", "10.77.0.1/24"])),
    ),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(inputs, max_size=5))
def test_what_validation_accepts_the_state_machine_accepts_too(history: list[list[pb.Object]]) -> None:
    log = Log()
    log.must(node("n1", "10.77.0.1"), node("n2", "10.77.0.2"), node("w", "10.77.0.3", pb.NodeSpec.Witness))
    for objects in history:
        if check_objects(objects, log.machine):
            continue
        outcome = log.apply(*(Mutation(put_spec=copy(obj)) for obj in in_order(objects)))
        assert outcome.done, outcome.message


def in_order(objects: Sequence[pb.Object]) -> list[pb.Object]:
    """Groups before their resources, as the server sends them."""
    return sorted(objects, key=lambda obj: ref_of(obj).kind != "Group")


def disk(name: str = "disk", of: str = "web", device: str = "/dev/sdb1", point: str = "/srv/data") -> pb.Object:
    obj = pb.Object()
    obj.shared_disk.metadata.name = name
    obj.shared_disk.metadata.group = of
    obj.shared_disk.spec.device = device
    obj.shared_disk.spec.mount_point = point
    return obj


def test_a_device_is_no_two_shared_disks_of_one_node(log: Log) -> None:
    log.must(group("a", "n1", "n2"), disk("d", "a"))
    assert found([group("b", "n2", "o"), disk("e", "b", point="/srv/b")], log.machine) == [("e", "spec.device")]
    assert found([group("b", "o"), disk("e", "b")], log.machine) == []
    assert found([disk("d", "a")], log.machine) == []


@pytest.mark.parametrize("point", ["/srv/data", "/srv/data/deeper", "/srv"])
def test_mount_points_do_not_lie_in_each_others_way(log: Log, point: str) -> None:
    log.must(group(), disk("d"))
    assert found([disk("e", device="/dev/sdc1", point=point)], log.machine) == [("e", "spec.mountPoint")]
    assert found([disk("e", device="/dev/sdc1", point="/srv/data2")], log.machine) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "/srv/disk.img"), ("device", "/dev/../etc"), ("device", "sdb1"), ("mount_point", "/"),
        ("mount_point", "/etc"), ("mount_point", "/usr/x"), ("mount_point", "/srv/../etc"), ("mount_point", "srv"),
        ("mount_point", "/srv/"), ("fs_type", "-x"),
    ],
)  # fmt: skip
def test_what_cannot_be_mounted_safely_is_refused(log: Log, field: str, value: str) -> None:
    obj = disk()
    setattr(obj.shared_disk.spec, field, value)
    spelling = {"mount_point": "mountPoint", "fs_type": "fsType"}.get(field, field)
    assert found([group(), obj], log.machine) == [("disk", f"spec.{spelling}")]


def test_a_mount_option_is_one_word(log: Log) -> None:
    obj = disk()
    obj.shared_disk.spec.options.extend(["noatime", "rw,suid"])
    assert found([group(), obj], log.machine) == [("disk", "spec.options[1]")]


def volume(name: str = "vol", drbd: str = "r0", device: str = "/dev/drbd0", point: str = "/srv/vol") -> pb.Object:
    obj = pb.Object()
    obj.replicated_volume.metadata.name = name
    obj.replicated_volume.metadata.group = "web"
    obj.replicated_volume.spec.drbd_resource = drbd
    obj.replicated_volume.spec.device = device
    obj.replicated_volume.spec.mount_point = point
    return obj


def test_b2_a_resource_of_drbd_is_one_volume_and_none_is_mounted_in_anothers_way(log: Log) -> None:
    log.must(group(), disk("d"), volume())
    assert found([volume("w", "r1", "/dev/drbd1", "/srv/w")], log.machine) == []
    assert found([volume("w", "r0", "/dev/drbd1", "/srv/w")], log.machine) == [("w", "spec.drbdResource")]
    assert found([volume("w", "r1", "/dev/drbd0", "/srv/w")], log.machine) == [("w", "spec.device")]
    assert found([volume("w", "r1", "/dev/sdb1", "/srv/w")], log.machine) == [("w", "spec.device")]
    assert found([volume("w", "r1", "/dev/drbd1", "/srv/data/w")], log.machine) == [("w", "spec.mountPoint")]
    assert found([disk("e", device="/dev/sdc1", point="/srv/vol/e")], log.machine) == [("e", "spec.mountPoint")]


@pytest.mark.parametrize("name", ["all", "-r0", "r0/0", "a b", "", "x" * 65])
def test_b2_a_volume_names_one_resource_of_drbd(log: Log, name: str) -> None:
    log.must(group())
    assert found([volume(drbd=name)], log.machine) == [("vol", "spec.drbdResource")]


def test_a_farm_has_no_shared_disk(log: Log) -> None:
    assert found([group("web", farm=True), disk()], log.machine) == [("disk", "kind")]


def test_a_command_belongs_to_a_run_on_a_node(log: Log) -> None:
    def faults(**fields: object) -> list[str]:
        spec = pb.OperationSpec(**fields)  # type: ignore[arg-type]
        return [fault.field for fault in check_operation(Ref("Operation", "", "x"), spec, log.machine)]

    log.must(group())
    run = pb.OperationSpec.Run
    assert faults(type=run, node="n1", command=["uptime"]) == []
    assert faults(type=run, node="n1") == ["spec.command"]
    assert faults(type=run, command=["uptime"]) == ["spec.node"]
    assert faults(type=run, node="n1", command=["x" * 9000]) == ["spec.command"]
    assert faults(type=run, node="n1", group="web", command=["x"]) == ["spec.group"]
    assert faults(type=pb.OperationSpec.Pause, group="web", command=["x"]) == ["spec.command"]


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"node": "n1", "role": "guard"}, []),
        ({"node": "n1"}, ["spec.role"]),
        ({"role": "guard"}, ["spec.node"]),
        ({"node": "n1", "role": "supervisor"}, ["spec.role"]),
        ({"node": "n1", "role": "agent", "group": "web"}, ["spec.group"]),
        ({"node": "n1", "role": "agent", "command": ["true"]}, ["spec.command"]),
        ({"node": "n7", "role": "agent"}, ["spec.node"]),
    ],
)
def test_the_restart_of_a_process_names_a_node_and_one_of_its_processes(
    log: Log, fields: dict[str, object], faults: list[str]
) -> None:
    log.must(group())
    spec = pb.OperationSpec(type=pb.OperationSpec.RestartProcess, **fields)  # type: ignore[arg-type]
    assert [fault.field for fault in check_operation(Ref("Operation", "", "x"), spec, log.machine)] == faults


def fencing(name: str, **spec: object) -> pb.Object:
    obj = pb.Object()
    obj.fencing.metadata.name = name
    obj.fencing.spec.CopyFrom(pb.FencingSpec(**{"agent": "fence_ipmilan", **spec}))  # type: ignore[arg-type]
    return obj


def test_a_fencing_is_named_like_its_node_and_done_by_others(log: Log) -> None:
    assert found([fencing("n1", options={"ip": "192.0.2.1"}, secret_file="/etc/n1", nodes=["n2"])], log.machine) == []
    assert found([fencing("w")], log.machine) == [("w", "metadata.name")]
    assert found([fencing("n9")], log.machine) == [("n9", "metadata.name")]
    several = found([fencing("n1", nodes=["n2", "n1", "w"])], log.machine)
    assert several == [("n1", "spec.nodes[1]"), ("n1", "spec.nodes[2]")]


@pytest.mark.parametrize("option", ["password", "passwd", "snmp_priv_passwd", "api_token", "community", "action"])
def test_an_option_of_a_fence_agent_that_is_a_secret_or_the_action_is_refused(log: Log, option: str) -> None:
    assert found([fencing("n1", options={option: "x"})], log.machine) == [("n1", f"spec.options.{option}")]


@pytest.mark.parametrize("agent", ["ipmilan", "fence_ipmilan; reboot", "./fence_x", "fence_IPMI", ""])
def test_what_is_no_fence_agent_is_refused(log: Log, agent: str) -> None:
    assert found([fencing("n1", agent=agent)], log.machine) == [("n1", "spec.agent")]


def test_an_option_of_several_lines_is_refused(log: Log) -> None:
    assert found([fencing("n1", options={"ip": "a\naction=on"})], log.machine) == [("n1", "spec.options.ip")]


def test_nobody_but_the_leader_asks_for_a_fence(log: Log) -> None:
    spec = pb.OperationSpec(type=pb.OperationSpec.Fence, node="n1", by="n2")
    assert [f.field for f in check_operation(Ref("Operation", "", "x"), spec, log.machine)] == ["spec.type"]
