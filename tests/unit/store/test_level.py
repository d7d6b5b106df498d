"""What only some members understand gets into no log, so that the states of all stay equal during an upgrade."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hasys.api.kinds import KINDS, wrap
from hasys.config import Member
from hasys.model import level
from hasys.store import seed, transaction
from hasys.store.machine import Machine
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2
from tests.unit.store.build import Log, delay, group
from tests.unit.store.test_controllers import MEMBERS, config

FIRST_KINDS = {
    "Application", "Cluster", "Command", "Database", "Delay", "Event", "Group", "Monitor", "Node", "Operation",
    "SharedDisk", "SystemdUnit", "VirtualIP",
}  # fmt: skip
FIRST_OPERATIONS = {
    "Drain", "Failover", "FenceConfirm", "Pause", "Resolve", "Resume", "Retry", "Run", "Switchover", "Undrain",
    "Unspecified",
}  # fmt: skip
OPERATIONS = pb.OperationSpec.Type.DESCRIPTOR.values_by_name
ALL_NEW = {member.name: level.LEVEL for member in MEMBERS}


@pytest.fixture
def log() -> Log:
    """The store of a cluster that an older version made."""
    found = Log()
    found.must(wrap(pb.Cluster(metadata=pb.Metadata(name="demo"), spec=pb.ClusterSpec(profile="default"))))
    return found


def raised(log: Log, levels: Mapping[str, int], stores: tuple[Member, ...] | None = None) -> bool:
    """Does the leader raise the level, knowing these?"""
    command = seed.raise_level(config(), log.machine, stores, levels)
    if command is None:
        return False
    log.index += 1
    return store_pb2.Outcome.FromString(log.machine.apply(log.index, command.SerializeToString())).done


def test_every_kind_and_type_of_operation_has_its_level() -> None:
    """What is added gets a higher one: hasys/model/level.py says how."""
    assert {kind for kind in KINDS if level.of_kind(kind) == level.FIRST} == FIRST_KINDS
    assert {t for t in OPERATIONS if level.of_operation(t) == level.FIRST} == FIRST_OPERATIONS
    assert max(map(level.of_kind, KINDS)) <= level.LEVEL


def test_the_level_is_raised_once_when_the_last_member_tells(log: Log) -> None:
    assert log.machine.level == level.FIRST
    assert not raised(log, {})
    assert not raised(log, {**ALL_NEW, "w": level.FIRST})
    assert not raised(log, {name: known for name, known in ALL_NEW.items() if name != "w"}), "w is not heard"
    assert raised(log, ALL_NEW)
    assert log.machine.level == level.LEVEL
    assert [o.event.reason for o in log.machine.list("Event")] == ["LevelRaised"]
    assert not raised(log, ALL_NEW)
    assert not raised(log, {**ALL_NEW, "w": level.FIRST}), "it never falls"
    assert log.machine.level == level.LEVEL


def test_the_members_of_the_log_count_and_not_those_of_node_yaml(log: Log) -> None:
    added = Member("n3", "Voter", ("10.0.0.4",))
    assert not raised(log, ALL_NEW, (*MEMBERS, added))
    assert raised(log, {**ALL_NEW, "n3": level.LEVEL}, (*MEMBERS, added))


def test_a_new_cluster_begins_with_what_all_that_are_heard_understand() -> None:
    for levels, expected in ((ALL_NEW, level.LEVEL), ({**ALL_NEW, "w": level.FIRST}, level.FIRST)):
        machine = Machine()
        command = seed.seed(config(), machine, None, levels)
        assert command is not None
        machine.apply(1, command.SerializeToString())
        assert machine.level == expected


def test_a_rule_of_the_state_machine_holds_from_its_level_on(log: Log) -> None:
    """A member of the version before would not know it, and its state would be another."""
    log.must(group())
    log.must(*(delay(f"d{number}") for number in range(transaction.GROUP_MEMBERS + 1)))
    assert raised(log, ALL_NEW)
    assert log.put(delay("one-more")).code == "TooLarge"


def test_a_member_restored_from_a_snapshot_knows_the_level(log: Log) -> None:
    assert raised(log, ALL_NEW)
    other = Machine()
    other.restore(log.index, log.machine.snapshot())
    assert other.level == level.LEVEL
