"""What grants learn from the stored objects."""

from __future__ import annotations

import pytest

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


def test_without_a_written_timeout_the_schemas_default_counts(log: Log) -> None:
    obj = disk(1.0)
    obj.shared_disk.spec.ClearField("unmount_timeout")
    log.must(obj)
    assert outlives(log) == pytest.approx(TTL + 5.0)
