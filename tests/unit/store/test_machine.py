"""The state machine: transactions, versions, two-phase deletion, bounds, determinism."""

from __future__ import annotations

import pytest

from hasys.api.kinds import Ref, copy
from hasys.store import machine as machine_module
from hasys.store import transaction
from hasys.store.machine import COMMANDS_REMEMBERED, Changed, Machine
from hasys.v1 import objects_pb2 as pb
from hasys.v1.api_pb2 import WatchResponse
from hasys.v1.store_pb2 import Mutation, Outcome
from tests.unit.store.build import GROUP, Log, delay, group, operation, vip

IP = Ref("VirtualIP", "web", "ip")


@pytest.fixture
def log() -> Log:
    return Log()


def test_generation_grows_with_spec_and_resource_version_with_everything(log: Log) -> None:
    log.must(group())
    log.must(group("web", "n1"))
    assert log.assign(node="n1", epoch=1).done
    meta = log.stored(GROUP).group.metadata
    assert (meta.generation, meta.resource_version) == (2, 3)


def test_putting_the_same_spec_again_changes_nothing(log: Log) -> None:
    log.must(group())
    before = log.stored(GROUP)
    log.must(group())
    assert log.stored(GROUP) is before


def test_putting_a_spec_keeps_status_uid_and_creation_time(log: Log) -> None:
    log.must(group())
    log.assign(node="n1", epoch=1)
    first = log.stored(GROUP).group
    changed = group("web", "n1")
    changed.group.metadata.uid = "mine"
    changed.group.status.phase = "Running"
    log.must(changed)
    second = log.stored(GROUP).group
    assert second.metadata.uid == first.metadata.uid
    assert second.metadata.created == first.metadata.created
    assert second.status.assignment == first.status.assignment
    assert second.status.phase == "Stopped"


def test_one_refused_mutation_refuses_the_whole_command(log: Log) -> None:
    outcome = log.put(group(), delay("a"), delay("b", of="nowhere"))
    assert (outcome.done, outcome.code) == (False, "Invalid")
    assert log.machine.list() == []
    assert log.machine.revision == 1


def test_expected_version_that_is_not_the_stored_one_is_a_conflict(log: Log) -> None:
    log.must(group())
    log.must(group("web", "n1"))
    outcome = log.apply(Mutation(put_spec=group("web", "n2"), expect_version=1))
    assert outcome.code == "Conflict"
    assert log.apply(Mutation(put_spec=group("web", "n2"), expect_version=2)).done


def test_expected_absence_is_refused_when_the_object_exists(log: Log) -> None:
    log.must(group())
    assert log.apply(Mutation(put_spec=group("web", "n1"), expect_absent=True)).code == "Exists"


def test_a_repeated_command_id_gets_the_first_answer_and_changes_nothing(log: Log) -> None:
    first = log.apply(Mutation(put_spec=group()), command_id="same")
    again = log.apply(Mutation(put_spec=group("other")), command_id="same")
    assert again == first
    assert log.machine.group("other") is None


def test_only_so_many_command_ids_are_remembered(log: Log) -> None:
    log.apply(Mutation(put_spec=group()), command_id="old")
    for _ in range(COMMANDS_REMEMBERED):
        log.apply()
    log.apply(Mutation(put_spec=group("other")), command_id="old")
    assert log.machine.group("other") is not None


def test_bytes_that_are_no_command_are_answered_and_change_nothing() -> None:
    machine = Machine()
    outcome = Outcome.FromString(machine.apply(1, b"\xff\xff\xff garbage"))
    assert (outcome.done, outcome.code) == (False, "Invalid")


def test_resources_version_follows_specs_of_the_group_and_not_statuses(log: Log) -> None:
    def version() -> int:
        return log.stored(GROUP).group.status.resources_version

    log.must(group())
    assert version() == 1
    log.must(delay("a"))
    assert version() == 2
    log.assign(node="n1", epoch=1)
    assert version() == 2
    log.must(delay("a", seconds=5))
    assert version() == 4
    log.delete(Ref("Delay", "web", "a"))
    assert version() == 5


def test_a_controller_cannot_turn_resources_version_back(log: Log) -> None:
    log.must(group())
    stale = copy(log.stored(GROUP))
    log.must(delay("a"))
    stale.group.status.phase = "Running"
    assert log.apply(Mutation(put_status=stale)).done
    assert log.stored(GROUP).group.status.resources_version == 2


# ---------------------------------------------------------------- invariants at apply time


@pytest.mark.parametrize("other", ["10.77.0.100/24", "10.77.0.100/16"])
def test_an_address_belongs_to_one_group_whatever_its_prefix(log: Log, other: str) -> None:
    log.must(group(), group("db"), vip())
    outcome = log.put(vip("ip2", "db", other))
    assert outcome.code == "Invalid"
    assert "belongs to VirtualIP/ip of group 'web'" in outcome.message


def test_two_addresses_that_are_the_same_in_one_command_are_refused(log: Log) -> None:
    log.must(group())
    assert log.put(vip("a", address="fd00::1/64"), vip("b", address="fd00:0::1/64")).code == "Invalid"


def test_farms_may_share_an_address_with_each_other_but_not_with_a_mirror(log: Log) -> None:
    log.must(group("f1", farm=True), group("f2", farm=True), group("m"))
    log.must(vip("a", "f1"), vip("b", "f2"))
    assert log.put(vip("c", "m")).code == "Invalid"
    assert log.put(vip("d", "f1")).code == "Invalid"


def test_address_and_mode_never_change(log: Log) -> None:
    log.must(group(), vip())
    assert log.put(vip(address="10.77.0.101/24")).code == "Invalid"
    assert log.put(group(farm=True)).code == "Invalid"


def test_a_name_is_unique_in_its_group_across_kinds(log: Log) -> None:
    log.must(group(), group("db"), vip("x"))
    assert log.put(delay("x")).code == "Invalid"
    log.must(delay("x", of="db"))


def test_a_circle_of_arrows_is_refused_with_its_path(log: Log) -> None:
    log.must(group(), delay("a"), delay("b", after=["a"]))
    outcome = log.put(delay("a", after=["b"]))
    assert outcome.message.endswith("a -> b -> a")


def test_an_arrow_to_a_resource_that_is_not_there_is_refused(log: Log) -> None:
    log.must(group())
    assert log.put(delay("a", after=["b"])).code == "Invalid"
    log.must(delay("a", after=["b"]), delay("b"))
    assert log.delete(Ref("Delay", "web", "b")).code == "Invalid"


def test_epochs_only_grow_and_another_node_needs_another_epoch(log: Log) -> None:
    log.must(group())
    assert log.assign(node="n1", epoch=3).done
    assert log.assign(epoch=2).code == "Invalid"
    assert log.assign(node="n2").code == "Invalid"
    assert log.assign(node="n2", epoch=4).done


def test_a_resource_status_of_an_older_epoch_is_a_conflict(log: Log) -> None:
    log.must(group(), vip())
    newer = copy(log.stored(IP))
    newer.virtual_ip.status.epoch = 4
    assert log.apply(Mutation(put_status=newer)).done
    older = copy(newer)
    older.virtual_ip.status.epoch = 3
    assert log.apply(Mutation(put_status=older)).code == "Conflict"


def test_an_operation_that_ended_never_changes_again(log: Log) -> None:
    log.must(operation("pause-a"))
    done = copy(log.stored(Ref("Operation", "", "pause-a")))
    done.operation.status.state = "Succeeded"
    assert log.apply(Mutation(put_status=done)).done
    done.operation.status.state = "Failed"
    assert log.apply(Mutation(put_status=done)).code == "Conflict"
    assert log.put(operation("pause-a")).code == "Invalid"


def test_a_change_of_timing_keeps_the_longest_ttl_until_somebody_lowers_it(log: Log) -> None:
    cluster = pb.Object()
    cluster.cluster.metadata.name = "demo"
    cluster.cluster.spec.profile = "default"
    log.must(cluster)
    for name in ("wan", "fast", "default"):
        cluster.cluster.spec.profile = name
        log.must(cluster)
    stored = log.machine.cluster()
    assert stored is not None
    assert stored.status.ttl_max.seconds == 5
    assert stored.status.timing_version == 4


# ---------------------------------------------------------------- deletion


def test_an_unassigned_group_goes_at_once_with_its_resources(log: Log) -> None:
    log.must(group(), vip(), delay("a", after=["ip"]))
    assert log.delete(GROUP).done
    assert log.machine.list() == []
    assert log.machine.holders_of_address("10.77.0.100") == ()


def test_a_deleted_resource_of_an_assigned_group_waits_until_its_node_says_gone(log: Log) -> None:
    log.must(group(), vip())
    log.assign(node="n1", epoch=1)
    log.delete(IP)
    marked = log.stored(IP)
    assert marked.virtual_ip.metadata.HasField("deleting")
    assert log.put(vip("again")).code == "Invalid"  # the address is not free yet
    assert log.put(vip()).code == "Conflict"
    gone = copy(marked)
    gone.virtual_ip.status.CopyFrom(pb.ResourceStatus(node="n2", epoch=1, state="Stopped", gone=True))
    log.apply(Mutation(put_status=gone))
    assert log.machine.get(IP) is not None
    gone.virtual_ip.status.node = "n1"
    log.apply(Mutation(put_status=gone))
    assert log.machine.get(IP) is None
    log.must(vip("again"))


def test_gone_does_not_count_while_an_earlier_node_may_still_have_it(log: Log) -> None:
    log.must(group(), vip())
    log.assign(node="n2", epoch=2, previous_node="n1", previous_epoch=1)
    log.delete(IP)
    gone = copy(log.stored(IP))
    gone.virtual_ip.status.CopyFrom(pb.ResourceStatus(node="n2", epoch=2, state="Stopped", gone=True))
    log.apply(Mutation(put_status=gone))
    assert log.machine.get(IP) is not None
    log.assign(node="n2", epoch=2, previous_node="", previous_epoch=0)
    assert log.machine.get(IP) is None


def test_what_waits_for_deletion_goes_when_the_group_is_held_by_nobody(log: Log) -> None:
    log.must(group(), vip(), delay("a"))
    log.assign(node="n1", epoch=1)
    log.delete(IP)
    log.assign(node="", previous_node="n1", previous_epoch=1)
    assert log.machine.get(IP) is not None
    log.assign(previous_node="", previous_epoch=0)
    assert log.machine.get(IP) is None
    assert log.machine.get(Ref("Delay", "web", "a")) is not None


def test_a_deleted_group_goes_by_purge_and_its_name_never_repeats_an_epoch(log: Log) -> None:
    log.must(group(), vip())
    log.assign(node="n1", epoch=7)
    log.delete(GROUP)
    assert log.stored(IP).virtual_ip.metadata.HasField("deleting")
    assert log.put(delay("late")).code == "Conflict"
    assert log.delete(GROUP, purge=True).done
    assert log.machine.list() == []
    log.must(group())
    assert log.stored(GROUP).group.status.assignment.epoch == 7


# ---------------------------------------------------------------- bounds


def test_only_the_newest_events_stay(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "EVENTS_KEPT", 3)
    for number in range(5):
        log.apply(Mutation(record=pb.Event(reason=f"R{number}")))
    events = log.machine.list("Event")
    assert [(one.event.metadata.name, one.event.reason) for one in events] == [("e3", "R2"), ("e4", "R3"), ("e5", "R4")]
    assert [one.event.reason for one in log.machine.list("Event", limit=2)] == ["R3", "R4"]


def test_only_the_newest_finished_operations_stay_and_pending_ones_always(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "OPERATIONS_KEPT", 2)
    for number in range(5):
        log.must(operation(f"o{number}"))
    for number in (3, 1, 2):
        done = copy(log.stored(Ref("Operation", "", f"o{number}")))
        done.operation.status.state = "Failed"
        log.apply(Mutation(put_status=done))
    assert [one.operation.metadata.name for one in log.machine.list("Operation")] == ["o0", "o1", "o2", "o4"]


def test_an_object_over_the_limit_is_refused(log: Log) -> None:
    big = group()
    big.group.metadata.labels["x"] = "y" * 300_000
    assert log.put(big).code == "TooLarge"


# ---------------------------------------------------------------- listeners and snapshots


def test_listeners_see_each_change_once_and_deletions_with_their_version(log: Log) -> None:
    seen: list[Changed] = []
    log.machine.subscribe(lambda _, changes: seen.extend(changes))
    log.must(group())
    log.must(group())
    log.must(group("web", "n1"))
    log.delete(GROUP)
    assert [(one.type, one.object.group.metadata.resource_version) for one in seen] == [
        (WatchResponse.ADDED, 1), (WatchResponse.MODIFIED, 3), (WatchResponse.DELETED, 4),
    ]  # fmt: skip


def test_a_snapshot_that_cannot_be_read_is_refused_and_changes_nothing(log: Log) -> None:
    log.must(group())
    with pytest.raises(ValueError, match="snapshot"):
        log.machine.restore(9, b"\xff\xff")
    assert log.machine.revision == 1
    assert log.machine.group("web") is not None


def test_an_object_over_its_limit_is_refused_and_changes_nothing(log: Log) -> None:
    log.must(group())
    fat = delay("fat")
    fat.delay.metadata.labels["text"] = "x" * transaction.OBJECT_BYTES
    answer = log.put(fat)
    assert (answer.done, answer.code) == (False, "TooLarge")
    assert str(transaction.OBJECT_BYTES) in answer.message
    assert log.machine.get(Ref("Delay", "web", "fat")) is None


def test_a_group_with_more_members_than_its_limit_is_refused_and_changes_nothing(log: Log) -> None:
    log.must(group())
    log.must(*(delay(f"d{number}") for number in range(transaction.GROUP_MEMBERS - 1)))
    answer = log.put(delay("last"), delay("one-more"))
    assert (answer.done, answer.code) == (False, "TooLarge")
    assert f"Group/web: more than {transaction.GROUP_MEMBERS} resources" in answer.message
    assert log.machine.get(Ref("Delay", "web", "last")) is None
    log.must(delay("last"))


def test_an_event_over_its_limit_is_refused_and_changes_nothing(log: Log) -> None:
    answer = log.apply(Mutation(record=pb.Event(message="x" * transaction.EVENT_BYTES)))
    assert (answer.done, answer.code) == (False, "TooLarge")
    assert log.machine.list("Event") == []


def test_a_full_store_refuses_what_is_new_and_lets_go_of_what_is_old(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.must(group())
    monkeypatch.setattr(transaction, "STATE_BYTES", 0)
    assert log.put(group("other")).code == "TooLarge"
    assert log.apply(Mutation(record=pb.Event(message="x" * 10_000))).code == "TooLarge"
    log.must(group("web", "n1"))
    assert log.delete(GROUP).done


def test_a_restored_member_has_the_revision_of_the_others_though_the_log_went_on_without_commands() -> None:
    """Otherwise a watcher that resumes on another member is told that its version lies in the future."""
    log = Log()
    log.must(group())
    restored = Machine()
    restored.restore(log.machine.revision + 5, log.machine.snapshot())
    assert restored.revision == log.machine.revision
    assert restored.snapshot() == log.machine.snapshot()


def test_a_snapshot_in_pieces_is_of_the_state_at_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "PART", 2)
    log = Log()
    log.must(group(), group("other"), vip(), *(delay(f"d{n}", of="other") for n in range(9)))
    log.apply(Mutation(record=pb.Event(message="x")), command_id="a")
    whole = log.machine.snapshot()
    pieces = log.machine.snapshot_parts()
    made = [next(pieces)]
    log.must(delay("d0", of="other", seconds=5), delay("new"))
    log.delete(Ref("Delay", "other", "d8"))
    log.apply(Mutation(record=pb.Event(message="y")), command_id="b")
    made += pieces
    assert len(made) > 6
    assert b"".join(made) == whole != log.machine.snapshot()
    restored = Machine()
    restored.restore(1, whole)
    assert restored.snapshot() == whole
