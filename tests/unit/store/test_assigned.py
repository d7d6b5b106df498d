"""What grants learn from the stored objects."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hasys.api.kinds import Ref
from hasys.model.timing import BY_NAME
from hasys.store.assigned import Assigned
from hasys.v1 import objects_pb2 as pb
from hasys.v1.store_pb2 import Mutation
from tests.unit.store.build import Log, delay, group, vip

TTL = BY_NAME["default"].ttl


def disk(seconds: float) -> pb.Object:
    obj = pb.Object()
    obj.shared_disk.metadata.name = f"disk{seconds:g}"
    obj.shared_disk.metadata.group = "web"
    obj.shared_disk.spec.unmount_timeout.FromMilliseconds(int(seconds * 1000))
    return obj


@pytest.fixture
def log() -> Log:
    log, cluster = Log(), pb.Object()
    cluster.cluster.metadata.name = "demo"
    log.must(cluster, group(), vip())
    return log


def outlives(log: Log, watchdog: float = 0.0) -> float:
    log.assign(node="n1", epoch=1)
    found = Assigned(log.machine, lambda _: watchdog)().groups["web"]
    return max(found.outlives, found.lingers.get("n1", 0.0))


def test_addresses_alone_never_outlive_their_lease(log: Log) -> None:
    assert outlives(log, watchdog=10.0) == 0.0


def test_processes_may_live_until_a_watchdog_has_stopped_the_machine(log: Log) -> None:
    log.must(delay("a"))
    assert outlives(log) == 0.0
    assert outlives(log, watchdog=10.0) == 10.5


def test_a_leader_that_never_heard_the_lost_node_knows_its_watchdog_from_the_record(log: Log) -> None:
    node = pb.Object()
    node.node.metadata.name = "n1"
    node.node.status.watchdog.FromSeconds(10)
    log.must(delay("a"), node)
    log.apply(Mutation(put_status=node))
    assert outlives(log) == 10.5


def test_every_holder_that_is_not_proven_to_be_out_counts_with_what_lingers_there(log: Log) -> None:
    log.must(delay("a"))
    before = [pb.Holder(node="n2", epoch=4), pb.Holder(node="n1", epoch=3)]
    log.assign(node="n4", epoch=6, previous_node="n3", previous_epoch=5, earlier=before)
    found = Assigned(log.machine, lambda node: {"n1": 10.0, "n3": 20.0}.get(node, 0.0))().groups["web"]
    assert found.before() == {"n3": 5, "n2": 4, "n1": 3}
    assert found.lingers == {"n1": 10.5, "n3": 20.5}


def test_a_node_of_the_group_may_hold_it_by_an_oath_that_no_record_names(log: Log) -> None:
    log.must(group("web", "n1", "n2"), delay("a"))
    log.assign(node="n1", epoch=1)
    assert Assigned(log.machine, lambda node: 10.0 if node == "n2" else 0.0)().groups["web"].lingers == {"n2": 10.5}


def test_a_record_of_an_older_version_names_the_one_previous_holder(log: Log) -> None:
    log.assign(node="n2", epoch=6, previous_node="n1", previous_epoch=5)
    assert Assigned(log.machine)().groups["web"].before() == {"n1": 5}


def test_what_may_run_on_waits_for_the_fence_from_outside(log: Log) -> None:
    obj = pb.Object()
    obj.fencing.metadata.name = "n1"
    obj.fencing.spec.wait.FromSeconds(3600)
    log.must(obj)
    assert outlives(log) == 0.0, "addresses are muted by their kernel"
    log.must(delay("a"))
    assert outlives(log) == 3600.0


def test_a_mount_may_stay_for_the_longest_unmount_timeout_after_the_lease(log: Log) -> None:
    log.must(disk(3.0), disk(7.0))
    assert outlives(log) == pytest.approx(TTL + 7.0)
    assert outlives(log, watchdog=10.0) == 10.5


def test_b2_a_replicated_volume_may_stay_mounted_as_long(log: Log) -> None:
    obj = pb.Object()
    obj.replicated_volume.metadata.name, obj.replicated_volume.metadata.group = "data", "web"
    obj.replicated_volume.spec.unmount_timeout.FromSeconds(9)
    log.must(obj)
    assert outlives(log) == pytest.approx(TTL + 9.0)


def test_without_a_written_timeout_the_schemas_default_counts(log: Log) -> None:
    obj = disk(1.0)
    obj.shared_disk.spec.ClearField("unmount_timeout")
    log.must(obj)
    assert outlives(log) == pytest.approx(TTL + 5.0)


def test_members_of_a_group_that_did_not_change_are_not_read_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    other = group("other")
    log.must(other, delay("a"), delay("b", of="other"))
    assigned, read = Assigned(log.machine), list[str]()
    members_of = log.machine.members_of

    def noted(name: str) -> Mapping[Ref, pb.Object]:
        read.append(name)
        return members_of(name)

    monkeypatch.setattr(log.machine, "members_of", noted)
    assert assigned().groups.keys() == {"web", "other"}
    assert sorted(read) == ["other", "web"]
    read.clear()
    log.must(delay("c", of="other"))
    log.assign(node="n1", epoch=1)
    assert assigned().groups["web"].epoch == 1
    assert read == ["other"], "the members of the other one changed, of this one its holder alone"


def test_what_may_be_left_follows_the_members_of_the_group(log: Log) -> None:
    log.assign(node="n1", epoch=1)
    assigned = Assigned(log.machine, lambda _: 10.0)
    assert assigned().groups["web"].lingers == {}
    log.must(delay("a"))
    assert assigned().groups["web"].lingers == {"n1": 10.5, "n2": 10.5}
    log.must(disk(7))
    assert assigned().groups["web"].outlives == TTL + 7
