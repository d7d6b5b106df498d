"""The replicated state: every object, changed by committed commands alone.

Deterministic: the same commands in the same order give the same state and answers on every member. A command is one
transaction: all of its mutations, or none. Stored objects are shared with readers and never mutated: each change puts a
new message in place of the old one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

from google.protobuf.message import DecodeError

from hasys.api.kinds import Ref, copy, group_of, inner, ref_of
from hasys.store.indexes import Indexes
from hasys.store.transaction import FINISHED, Refusal, Transaction
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2
from hasys.v1.api_pb2 import WatchResponse

EVENTS_KEPT = 5_000
"""The newest events stay; older ones go without a trace in watches."""
OPERATIONS_KEPT = 1_000
"""The newest finished operations stay."""
PART = 500
"""Objects of one piece of a snapshot."""
COMMANDS_REMEMBERED = 4_096
"""Answers kept for repeated command ids: more than can be in flight."""


class Changed(NamedTuple):
    """One committed change, as watchers see it."""

    type: WatchResponse.Type.ValueType
    ref: Ref
    object: pb.Object
    """The new object; for DELETED the last one, with the resource version of its deletion."""


Answered = tuple[str, bytes]
"""Id of a command and the answer to it, encoded."""
Listener = Callable[[int, Sequence[Changed]], None]
"""Called after a command changed something: log index and changes. No changes at all means: everything was replaced by
a snapshot."""


class Machine:
    """Implements ``hasys.store.port.StateMachine``, and the reads of server and controllers."""

    def __init__(self) -> None:
        self._index = 0
        self._indexes = Indexes()
        self._event_serial = 0
        self._epoch_floor = 0
        self._finished: OrderedDict[Ref, None] = OrderedDict()
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._listeners: list[Listener] = []

    # ------------------------------------------------------------ reads

    def answered(self, command_id: str) -> bytes | None:
        """The outcome of the command of that id, if it is among the last ones that were applied."""
        return self._recent.get(command_id) if command_id else None

    @property
    def revision(self) -> int:
        """Index of the last applied command."""
        return self._index

    def get(self, ref: Ref) -> pb.Object | None:
        """The object of that identity. Do not change it."""
        return self._indexes.objects.get(ref)

    def list(self, kind: str = "", group: str = "", limit: int = 0) -> list[pb.Object]:
        """Objects of a kind (empty: all) that are about a group (empty: all), sorted by identity; events by age. With
        a limit: only so many, and of events the newest."""
        indexes = self._indexes
        if kind in ("", "Event"):
            events: Iterable[pb.Object] = indexes.kind("Event").values()
        else:
            events = ()
        refs = sorted(ref for ref in indexes.refs(kind, group) if ref.kind != "Event")
        found = [indexes.objects[ref] for ref in refs]
        if group:
            found = [obj for obj in found if group_of(obj) == group]
            events = (obj for obj in events if group_of(obj) == group)
        recent = list(events)
        if limit:
            found = found[:limit]
            recent = recent[-limit:]
        return found + recent

    def group(self, name: str) -> pb.Group | None:
        """The group of that name."""
        obj = self._indexes.objects.get(Ref("Group", "", name))
        return obj.group if obj is not None else None

    def node(self, name: str) -> pb.Node | None:
        """The node of that name."""
        obj = self._indexes.objects.get(Ref("Node", "", name))
        return obj.node if obj is not None else None

    def cluster(self) -> pb.Cluster | None:
        """The cluster object; None before the first leader wrote it."""
        for obj in self._indexes.kind("Cluster").values():
            return obj.cluster
        return None

    @property
    def level(self) -> int:
        """What every member understands, see :mod:`hasys.model.level`."""
        return self._indexes.level

    def members_of(self, group: str) -> Mapping[Ref, pb.Object]:
        """The resources and monitors of a group now; read it before the next change."""
        return self._indexes.group(group)

    def holders_of_address(self, address: str) -> tuple[Ref, ...]:
        """The virtual IPs that claim an address (any prefix length)."""
        return self._indexes.claims(address)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call the listener on every change; returns what ends the subscription."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # ------------------------------------------------------------ StateMachine

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply one committed command. Bad input is answered, never raised, and changes nothing."""
        self._index = index
        try:
            parsed = store_pb2.Command.FromString(command)
        except DecodeError:
            return _refused("Invalid", "the command cannot be read").SerializeToString()
        known = self._recent.get(parsed.id) if parsed.id else None
        if known is not None:
            return known
        answer = self._apply(index, parsed).SerializeToString()
        if parsed.id:
            self._recent[parsed.id] = answer
            if len(self._recent) > COMMANDS_REMEMBERED:
                self._recent.popitem(last=False)
        return answer

    def _apply(self, index: int, command: store_pb2.Command) -> store_pb2.Outcome:
        transaction = Transaction(self._indexes, index, command, self._event_serial, self._epoch_floor)
        try:
            transaction.run()
        except Refusal as refusal:
            return _refused(refusal.code, refusal.message)
        self._event_serial = transaction.event_serial
        self._epoch_floor = transaction.epoch_floor
        changes = [self._commit(ref, new, index) for ref, new in transaction.staged.items()]
        self._note_finished(transaction.staged)
        changes.extend(self._forget_old_operations(index))
        self._forget_old_events()
        done = [change for change in changes if change is not None]
        if done:
            self._tell(index, done)
        return store_pb2.Outcome(done=True, resource_version=index)

    def _commit(self, ref: Ref, new: pb.Object | None, index: int) -> Changed | None:
        old = self._indexes.objects.get(ref)
        if new is None:
            return self._remove(ref, index) if old is not None else None
        if new is old:
            return None
        self._indexes.put(ref, new)
        return Changed(WatchResponse.MODIFIED if old is not None else WatchResponse.ADDED, ref, new)

    def _note_finished(self, staged: Mapping[Ref, pb.Object | None]) -> None:
        """Sorted, so that a restored member forgets in the same order."""
        for ref, obj in sorted(staged.items(), key=lambda item: item[0]):
            if obj is not None and ref.kind == "Operation" and obj.operation.status.state in FINISHED:
                self._finished.setdefault(ref)

    def _remove(self, ref: Ref, index: int) -> Changed:
        last = copy(self._indexes.remove(ref))
        inner(last).metadata.resource_version = index
        self._finished.pop(ref, None)
        return Changed(WatchResponse.DELETED, ref, last)

    def _forget_old_operations(self, index: int) -> Iterable[Changed]:
        while len(self._finished) > OPERATIONS_KEPT:
            yield self._remove(next(iter(self._finished)), index)

    def _forget_old_events(self) -> None:
        events = self._indexes.kind("Event")
        while len(events) > EVENTS_KEPT:
            self._indexes.remove(next(iter(events)))

    def snapshot(self) -> bytes:
        """The whole state; equal states give equal bytes."""
        return b"".join(self.snapshot_parts())

    def snapshot_parts(self) -> Iterator[bytes]:
        """The same piece by piece, of the state as it is at this call, whatever is applied meanwhile: objects are
        replaced and never changed, so a copy of their table is enough. Each piece takes a few milliseconds."""
        head = store_pb2.Snapshot(index=self._index, event_serial=self._event_serial, epoch_floor=self._epoch_floor)
        events = list(self._indexes.kind("Event").values())
        return _parts(head, dict(self._indexes.objects), events, list(self._recent.items()))

    def restore(self, index: int, data: bytes) -> None:
        """Replace everything by a snapshot. Raises ValueError, and changes nothing, when it cannot be read."""
        try:
            snapshot = store_pb2.Snapshot.FromString(data)
        except DecodeError as e:
            raise ValueError(f"snapshot after entry {index} cannot be read: {e}") from None
        indexes = Indexes()
        finished = []
        for obj in snapshot.objects:
            kept = copy(obj)  # a part of the snapshot would keep all of it in memory
            ref = ref_of(kept)
            indexes.put(ref, kept)
            if ref.kind == "Operation" and kept.operation.status.state in FINISHED:
                finished.append((kept.operation.metadata.resource_version, ref))
        self._index = snapshot.index  # of its last command: the log may have gone on with entries that are none
        self._indexes = indexes
        self._event_serial = snapshot.event_serial
        self._epoch_floor = snapshot.epoch_floor
        self._finished = OrderedDict((ref, None) for _, ref in sorted(finished))
        self._recent = OrderedDict((one.id, one.outcome.SerializeToString()) for one in snapshot.recent)
        self._tell(self._index, ())

    def _tell(self, index: int, changes: Sequence[Changed]) -> None:
        for listener in tuple(self._listeners):
            listener(index, changes)


def _parts(
    head: store_pb2.Snapshot, objects: Mapping[Ref, pb.Object], events: Sequence[pb.Object], recent: Sequence[Answered]
) -> Iterator[bytes]:
    """Messages that follow each other are one message (protobuf's encoding), so each part is a snapshot of its own."""
    tables: defaultdict[tuple[str, str], list[Ref]] = defaultdict(list)
    refs = iter(objects)
    while batch := list(islice(refs, 10 * PART)):
        for ref in batch:
            if ref.kind != "Event":  # which come by age
                tables[ref.kind, ref.group].append(ref)
        if len(batch) == 10 * PART:
            yield b""
    ordered = (ref for table in sorted(tables) for ref in sorted(tables[table]))
    state = chain((objects[ref] for ref in ordered), events)
    while part := list(islice(state, PART)):
        head.objects.extend(part)
        yield head.SerializeToString(deterministic=True)
        head = store_pb2.Snapshot()
    answers = iter(recent)
    while some := list(islice(answers, PART)):
        for name, answer in some:
            head.recent.add(id=name).outcome.ParseFromString(answer)
        yield head.SerializeToString(deterministic=True)
        head = store_pb2.Snapshot()
    yield head.SerializeToString(deterministic=True)  # of a state without anything


def _refused(code: str, message: str) -> store_pb2.Outcome:
    return store_pb2.Outcome(done=False, code=code, message=message)
