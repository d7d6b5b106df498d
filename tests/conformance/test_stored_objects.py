"""What an earlier version stored means the same to this one: no number of a field used anew, no type changed, no value
of an enum taken away. Recorded in tests/data; how to add to it: tests/conformance/recorded.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from hasys.api.kinds import KINDS
from hasys.store.machine import Machine
from hasys.store.raft.disk import Folder
from hasys.store.raft.journal import open_journal
from hasys.v1 import store_pb2
from tests.conformance.recorded import MEANING, SCHEMA, STORE, Filler, filled_snapshot, read_store, schema


# ---------------------------------------------------------------- comparing two schemas
def messages(of: FileDescriptorSet) -> dict[str, DescriptorProto]:
    """Full name -> message, nested ones too."""

    def walk(prefix: str, found: DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
        name = f"{prefix}.{found.name}"
        yield name, found
        for inner in found.nested_type:
            yield from walk(name, inner)

    return dict(pair for file in of.file for top in file.message_type for pair in walk(file.package, top))


def enums(of: FileDescriptorSet) -> dict[str, EnumDescriptorProto]:
    """Full name -> enum, nested ones too."""
    found = {f"{file.package}.{enum.name}": enum for file in of.file for enum in file.enum_type}
    for name, message in messages(of).items():
        found.update({f"{name}.{enum.name}": enum for enum in message.enum_type})
    return found


def broken_promises(old: FileDescriptorSet, new: FileDescriptorSet) -> list[str]:
    """What stored bytes of ``old`` would lose or mean differently under ``new``; empty: nothing."""
    present, broken = messages(new), []
    for name, message in messages(old).items():
        if name not in present:
            broken.append(f"{name}: the message is gone")
            continue
        fields = {field.name: field for field in present[name].field}
        for field in message.field:
            broken += [f"{name}.{field.name}: {why}" for why in _differences(field, fields.get(field.name))]
    present_enums = enums(new)
    for name, enum in enums(old).items():
        values = {value.name: value.number for value in present_enums[name].value} if name in present_enums else {}
        for value in enum.value:
            if values.get(value.name) != value.number:
                broken.append(f"{name}.{value.name}: was {value.number}, is {values.get(value.name, 'gone')}")
    return broken


def _differences(old: FieldDescriptorProto, new: FieldDescriptorProto | None) -> Iterator[str]:
    if new is None:
        yield "the field is gone"
        return
    for what in ("number", "type", "label", "type_name", "proto3_optional"):
        if getattr(old, what) != getattr(new, what):
            yield f"its {what} was {getattr(old, what)}, is {getattr(new, what)}"
    if old.HasField("oneof_index") is not new.HasField("oneof_index"):
        yield "it joined a union, or left one"


# ---------------------------------------------------------------- the recorded files
@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A copy of the recorded data folder."""
    return Path(shutil.copytree(STORE, tmp_path / "store"))


def test_the_schema_keeps_every_field_and_value_that_was_ever_stored() -> None:
    assert broken_promises(FileDescriptorSet.FromString(SCHEMA.read_bytes()), schema()) == []


def test_a_recorded_data_folder_means_what_it_meant(store: Path) -> None:
    assert read_store(store) == json.loads(MEANING.read_text())


def test_the_state_machine_serves_every_recorded_object(store: Path) -> None:
    disk = Folder(store)
    snapshot = open_journal(disk).journal.snapshot
    disk.close()
    assert snapshot is not None
    recorded = store_pb2.Snapshot.FromString(snapshot.data)
    machine = Machine()
    machine.restore(snapshot.index, snapshot.data)
    served = {obj.WhichOneof("kind"): obj for kind in KINDS for obj in machine.list(kind)}
    assert served == {obj.WhichOneof("kind"): obj for obj in recorded.objects}
    assert store_pb2.Snapshot.FromString(machine.snapshot()).epoch_floor == recorded.epoch_floor


def test_the_recorded_snapshot_has_no_unknown_fields(store: Path) -> None:
    """Bytes whose field is gone would be carried along unread."""
    disk = Folder(store)
    snapshot = open_journal(disk).journal.snapshot
    disk.close()
    assert snapshot is not None
    recorded = store_pb2.Snapshot.FromString(snapshot.data)
    before = recorded.ByteSize()
    recorded.DiscardUnknownFields()
    assert recorded.ByteSize() == before


def test_every_kind_of_object_is_recorded() -> None:
    recorded = {kind for obj in json.loads(MEANING.read_text())["snapshot"]["objects"] for kind in obj}
    missing = {kind.field for kind in KINDS.values()} - recorded
    assert missing == set(), "run python -m tests.conformance.recorded"


def test_the_filler_leaves_no_field_of_a_kind_out() -> None:
    for obj in filled_snapshot(Filler()).objects:
        part = getattr(obj, obj.WhichOneof("kind") or "")
        assert {f.name for f in part.DESCRIPTOR.fields} == {f.name for f, _ in part.ListFields()}


# ---------------------------------------------------------------- the comparison bites
def _field(of: FileDescriptorSet, message: str, name: str) -> FieldDescriptorProto:
    return next(field for field in messages(of)[message].field if field.name == name)


def _renumber(of: FileDescriptorSet) -> None:
    _field(of, "hasys.v1.GroupStatus", "phase").number = 77


def _retype(of: FileDescriptorSet) -> None:
    _field(of, "hasys.v1.Assignment", "epoch").type = FieldDescriptorProto.TYPE_STRING


def _repeat(of: FileDescriptorSet) -> None:
    _field(of, "hasys.v1.Assignment", "node").label = FieldDescriptorProto.LABEL_REPEATED


def _rename(of: FileDescriptorSet) -> None:
    _field(of, "hasys.v1.Event", "reason").name = "why"


def _drop_message(of: FileDescriptorSet) -> None:
    file: FileDescriptorProto = next(f for f in of.file if f.name.endswith("objects.proto"))
    del file.message_type[[m.name for m in file.message_type].index("Delay")]


def _drop_value(of: FileDescriptorSet) -> None:
    del enums(of)["hasys.v1.Failover.Mode"].value[-1]


def _swap_values(of: FileDescriptorSet) -> None:
    enums(of)["hasys.v1.NodeSpec.Role"].value[1].number = 9


def _another_message(of: FileDescriptorSet) -> None:
    _field(of, "hasys.v1.Application", "spec").type_name = ".hasys.v1.DelaySpec"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_renumber, "hasys.v1.GroupStatus.phase: its number was 2, is 77"),
        (_retype, "hasys.v1.Assignment.epoch: its type was 4, is 9"),
        (_repeat, "hasys.v1.Assignment.node: its label was 1, is 3"),
        (_rename, "hasys.v1.Event.reason: the field is gone"),
        (_drop_message, "hasys.v1.Delay: the message is gone"),
        (_drop_value, "hasys.v1.Failover.Mode.Manual: was 1, is gone"),
        (_swap_values, "hasys.v1.NodeSpec.Role.Witness: was 1, is 9"),
        (
            _another_message,
            "hasys.v1.Application.spec: its type_name was .hasys.v1.ApplicationSpec, is .hasys.v1.DelaySpec",
        ),
    ],
)
def test_a_schema_that_breaks_a_promise_is_named_with_what_it_breaks(
    change: Callable[[FileDescriptorSet], None], says: str
) -> None:
    changed = schema()
    change(changed)
    assert says in broken_promises(schema(), changed)


def test_what_is_added_breaks_nothing() -> None:
    changed = schema()
    messages(changed)["hasys.v1.Event"].field.add(name="more", number=99, type=FieldDescriptorProto.TYPE_STRING)
    enums(changed)["hasys.v1.Failover.Mode"].value.add(name="Later", number=9)
    assert broken_promises(schema(), changed) == []
