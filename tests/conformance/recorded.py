"""What an earlier version stored, kept as files: made once by ``python -m tests.conformance.recorded``, read by every
later version (test_stored_objects.py).

Run it only to *add*: after a field, an enum value or a kind was added to proto/, so that from then on it is kept too.
It refuses to forget: what is recorded already must still be there.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from hasys.api.kinds import KINDS
from hasys.store.raft.disk import Folder
from hasys.store.raft.frames import SnapshotFile
from hasys.store.raft.journal import open_journal
from hasys.v1 import api_pb2, monitors_pb2, objects_pb2, raft_pb2, rules_pb2, store_pb2

DATA = Path(__file__).resolve().parents[1] / "data"
SCHEMA = DATA / "schema.binpb"
STORE = DATA / "store"
"""The data folder of a member: journal, snapshot, marks."""
MEANING = DATA / "meaning.json"
"""What the files of the store say, field by field, by name."""
FILES = (rules_pb2, monitors_pb2, objects_pb2, store_pb2, raft_pb2, api_pb2)


# ---------------------------------------------------------------- messages with every field set
class Filler:
    """Fills messages, each field with a value that no other one has."""

    def __init__(self) -> None:
        self._serial = 0

    def fill(self, message: Message, choice: int = 0) -> None:
        """Every field; of a union the one of that number (around the end: from the beginning again)."""
        for field in _wanted(message, choice):
            if _is_map(field):
                self._entry(getattr(message, field.name), field, choice)
            elif field.is_repeated:
                for turn in range(2):
                    self._append(getattr(message, field.name), field, choice + turn)
            elif field.message_type is not None:
                part = getattr(message, field.name)
                part.SetInParent()
                self.fill(part, choice)
            else:
                setattr(message, field.name, self._value(field, choice))

    def _append(self, values: Any, field: FieldDescriptor, choice: int) -> None:
        if field.message_type is not None:
            self.fill(values.add(), choice)
        else:
            values.append(self._value(field, choice))

    def _entry(self, values: Any, field: FieldDescriptor, choice: int) -> None:
        entry = _message(field).fields_by_name
        key = self._value(entry["key"], choice)
        if entry["value"].message_type is not None:
            self.fill(values[key], choice)
        else:
            values[key] = self._value(entry["value"], choice)

    def _value(self, field: FieldDescriptor, choice: int) -> Any:
        self._serial += 1
        kinds = FieldDescriptor
        if field.enum_type is not None:
            return field.enum_type.values[-1 - choice % len(field.enum_type.values)].number
        if field.type == kinds.TYPE_STRING:
            return f"t{self._serial}"
        if field.type == kinds.TYPE_BYTES:
            return f"b{self._serial}".encode()
        if field.type == kinds.TYPE_BOOL:
            return True
        if field.type in (kinds.TYPE_DOUBLE, kinds.TYPE_FLOAT):
            return self._serial + 0.5
        return self._serial


def _wanted(message: Message, choice: int) -> Iterator[Any]:
    for field in message.DESCRIPTOR.fields:
        union = field.containing_oneof
        if union is None or union.fields[choice % len(union.fields)] is field:
            yield field


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _message(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None
    return field.message_type


def filled_object(filler: Filler, kind: str) -> objects_pb2.Object:
    """An object of that kind, named as the store names one."""
    obj = objects_pb2.Object()
    part = getattr(obj, KINDS[kind].field)
    part.SetInParent()
    filler.fill(part, 1)
    part.metadata.name = f"a-{kind.lower()}"
    part.metadata.group = "a-group" if KINDS[kind].grouped or KINDS[kind].observes else ""
    if kind == "VirtualIP":  # the state machine compares addresses
        part.spec.address = "10.0.0.9/24"
    return obj


def filled_snapshot(filler: Filler) -> store_pb2.Snapshot:
    """Every kind once."""
    snapshot = store_pb2.Snapshot()
    filler.fill(snapshot)
    del snapshot.objects[:]
    snapshot.objects.extend(filled_object(filler, kind) for kind in sorted(KINDS))
    return snapshot


def filled_commands(filler: Filler) -> list[bytes]:
    """Payloads of log entries: a command with each kind of mutation, and what changes the members."""
    command = store_pb2.Command()
    filler.fill(command)
    del command.mutations[:]
    actions = store_pb2.Mutation.DESCRIPTOR.oneofs_by_name["action"].fields
    for choice in range(len(actions)):
        filler.fill(command.mutations.add(), choice)
    admission, membership = raft_pb2.Admission(), raft_pb2.Membership()
    filler.fill(admission)
    filler.fill(membership)
    return [command.SerializeToString(), admission.SerializeToString(), membership.SerializeToString()]


# ---------------------------------------------------------------- the files
def write_store(folder: Path) -> None:
    """A member's data folder as it stands after a snapshot and some entries, a term and a vote."""
    filler = Filler()
    snapshot = filled_snapshot(filler).SerializeToString(deterministic=True)
    folder.mkdir(parents=True)
    disk = Folder(folder)
    journal = open_journal(disk).journal
    for index, payload in enumerate([b"old", *filled_commands(filler)], start=2):
        journal.append(payload, index, 1)
    journal.ballot(7, "n2")
    journal.become_voter()
    journal.compact(SnapshotFile(2, 1, snapshot), keep=0)
    while (job := journal.take_job()) is not None:
        job.run()
        journal.done(job)
    disk.close()


def read_store(folder: Path) -> dict[str, Any]:
    """What the files say to this version, field by field. Opening may write: give it a copy."""
    disk = Folder(folder)
    opened = open_journal(disk)
    disk.close()
    journal = opened.journal
    assert journal.snapshot is not None, opened.lost
    payloads = [command for command, _, _ in journal.items[1:]]
    types: tuple[Any, ...] = (store_pb2.Command, raft_pb2.Admission, raft_pb2.Membership)
    return {
        "lost": opened.lost,
        "term": journal.term,
        "votedFor": journal.voted_for,
        "voting": journal.voting,
        "log": [[index, term] for _, index, term in journal.items],
        "snapshot": told(store_pb2.Snapshot.FromString(journal.snapshot.data)),
        "entries": [told(kind.FromString(payload)) for kind, payload in zip(types, payloads, strict=True)],
    }


def told(message: Message) -> Any:
    """The meaning of a message: names of fields and of enum values, no numbers of either."""
    return MessageToDict(message, preserving_proto_field_name=True)


def schema() -> FileDescriptorSet:
    """The schema that this version has."""
    found = FileDescriptorSet()
    for module in FILES:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        found.file.add().CopyFrom(file)
    return found


def main() -> int:
    """Record anew, unless that would forget something."""
    from tests.conformance.test_stored_objects import broken_promises

    if SCHEMA.exists():
        broken = broken_promises(FileDescriptorSet.FromString(SCHEMA.read_bytes()), schema())
        if broken:
            print("refused: stored objects of earlier versions could not be read:", *broken, sep="\n  ")
            return 1
    shutil.rmtree(STORE, ignore_errors=True)
    write_store(STORE)
    SCHEMA.write_bytes(schema().SerializeToString(deterministic=True))
    MEANING.write_text(json.dumps(read_store(STORE), indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
