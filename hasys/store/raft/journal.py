"""The durable log of one member: entries, term and vote, standing; group commit, truncation, compaction.

Everything is recorded in memory at once and becomes durable later, in the same order: each record has a sequence
number, and what may only leave the process after a record waits until ``durable`` has reached that number. At most one
disk job is under way; it carries everything recorded since the job before (group commit). The job runs wherever the
owner likes (a worker thread, a simulator), the journal itself is used by one thread.

A record is never changed in place: truncation is a record, compaction replaces the whole file atomically. So after a
power cut the file holds a prefix of what was recorded, at least as long as what was announced as durable.

A file of marks says how much was announced. It is written before the announcement and synced only with each new
journal file: after a crash of the process it is exact, after a power cut it may be older (the kernel writes it within
half a minute). So a journal that was cut short, restored from a copy or replaced is not taken for a torn tail.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from hasys.store.raft import frames
from hasys.store.raft.disk import Disk, replace
from hasys.store.raft.frames import Corrupt, Mark, SnapshotFile
from hasys.v1 import raft_pb2 as pb

JOURNAL = "journal"
SNAPSHOT = "snapshot"
MARKS = "marks"
FIRST_INDEX = 1
"""Every log begins with the same entry 1 of term 0, which nobody proposed."""

LogItem = tuple[bytes, int, int]
"""(command, index, term), the shape in which PySyncObj keeps its log."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one group commit writes."""

    seq: int
    """Records up to this number are durable once the job is done."""
    run: Callable[[], None]
    """Blocking. Raises OSError; the journal must then not be used any more: what a failed sync left is unknown."""


class Journal:
    """See the module. Create it with :func:`open_journal`."""

    def __init__(self, disk: Disk, incarnation: int, voting: bool) -> None:
        self._disk = disk
        self.items: list[LogItem] = [(b"", FIRST_INDEX, 0)]
        """From the base entry on, whose command is in the snapshot."""
        self.term = 0
        self.voted_for = ""
        self.incarnation = incarnation
        self.voting = voting
        self.snapshot: SnapshotFile | None = None
        self.seq = 0
        self.durable = 0
        self.durable_index = FIRST_INDEX
        """Entries up to this index, as they are now, are durable."""
        self.ballot_seq = 0
        """Number of the latest record of term or vote."""
        self.written = 0
        """Bytes of log since the file was last replaced."""
        self._salt = frames.new_salt()
        self._serial = 0
        self._pair: int | None = None
        """Which pair of slots has the marks of the present journal file; None: there are no marks yet."""
        self._pending: list[pb.Record] = []
        self._unsynced: deque[tuple[int, int]] = deque()  # (sequence number, last index it made)
        self._replace = True
        self._snapshot_due = False
        self._job: Job | None = None

    # ------------------------------------------------------------ reading
    @property
    def first(self) -> int:
        """Index of the base: the oldest entry whose term is known."""
        return self.items[0][1]

    @property
    def last(self) -> int:
        return self.items[-1][1]

    @property
    def last_term(self) -> int:
        return self.items[-1][2]

    def term_at(self, index: int) -> int:
        """Raises IndexError outside of [first, last]."""
        if not self.first <= index <= self.last:
            raise IndexError(index)
        return self.items[index - self.first][2]

    def slice(self, start: int, max_bytes: int) -> list[LogItem]:
        """Entries from ``start`` (after the base) on: at least one if there is one, about ``max_bytes`` at most."""
        found: list[LogItem] = []
        size = 0
        for at in range(start - self.first, len(self.items)):
            item = self.items[at]
            size += len(item[0])
            if found and size > max_bytes:
                break
            found.append(item)
        return found

    @property
    def busy(self) -> bool:
        """A job is under way."""
        return self._job is not None

    # ------------------------------------------------------------ recording
    def append(self, command: bytes, index: int, term: int) -> None:
        if index != self.last + 1:
            raise AssertionError(f"entry {index} after {self.last}")
        self.items.append((command, index, term))
        self._record(pb.Record(entry=pb.LogEntry(index=index, term=term, command=command)))
        self.written += len(command)
        self._unsynced.append((self.seq, index))

    def truncate(self, index: int) -> None:
        """Drop the entries from ``index`` on."""
        if not self.first < index <= self.last:
            raise AssertionError(f"truncate at {index} of {self.first}..{self.last}")
        del self.items[index - self.first :]
        self._record(pb.Record(truncate=index))
        self.durable_index = min(self.durable_index, index - 1)
        self._unsynced = deque((seq, min(last, index - 1)) for seq, last in self._unsynced)

    def ballot(self, term: int, voted_for: str) -> None:
        if (term, voted_for) == (self.term, self.voted_for):
            return
        if term < self.term:
            raise AssertionError(f"term {term} after {self.term}")
        self.term, self.voted_for = term, voted_for
        self._record(pb.Record(ballot=pb.Ballot(term=term, voted_for=voted_for)))
        self.ballot_seq = self.seq

    def become_voter(self) -> None:
        self.voting = True
        self._record(pb.Record(standing=pb.Standing(incarnation=self.incarnation, voting=True)))
        self.ballot_seq = self.seq

    def compact(self, snapshot: SnapshotFile, keep: int) -> None:
        """Store a snapshot of our own; entries up to ``keep`` entries before it are dropped."""
        self.snapshot = snapshot
        base = max(self.first, snapshot.index - keep)
        term = self.term_at(base)
        self.items = [(b"", base, term), *self.items[base + 1 - self.first :]]
        self._rewrite()

    def install(self, snapshot: SnapshotFile) -> None:
        """Store a leader's snapshot. Entries behind it stay only if the log agrees with it."""
        self.snapshot = snapshot
        agrees = self.first <= snapshot.index <= self.last and self.term_at(snapshot.index) == snapshot.term
        tail = self.items[snapshot.index + 1 - self.first :] if agrees else []
        self.items = [(b"", snapshot.index, snapshot.term), *tail]
        if not agrees:
            self.durable_index = min(self.durable_index, snapshot.index - 1)
            self._unsynced.clear()
        self._rewrite()
        self._unsynced.append((self.seq, snapshot.index))

    def _rewrite(self) -> None:
        self.seq += 1
        self.written = 0
        self._replace = self._snapshot_due = True

    def _record(self, record: pb.Record) -> None:
        self.seq += 1
        self._pending.append(record)

    # ------------------------------------------------------------ disk
    def take_job(self) -> Job | None:
        """The next group commit; None while one is under way or when there is nothing to write."""
        if self._job is not None or (not self._pending and not self._replace):
            return None
        if self._replace:
            self._job = self._replacement()
        else:
            self._serial += 1
            payload = pb.Batch(records=self._pending).SerializeToString()
            data = frames.batch(self._salt, self._serial, payload)
            self._job = Job(self.seq, _Append(self._disk, data, self._mark()))
        self._pending = []
        return self._job

    def _replacement(self) -> Job:
        _, index, term = self.items[0]
        records = [
            pb.Record(base=pb.Base(index=index, term=term)),
            pb.Record(standing=pb.Standing(incarnation=self.incarnation, voting=self.voting)),
            pb.Record(ballot=pb.Ballot(term=self.term, voted_for=self.voted_for)),
        ]
        records += [pb.Record(entry=pb.LogEntry(index=i, term=t, command=c)) for c, i, t in self.items[1:]]
        self._salt, self._serial = frames.new_salt(), 1
        data = frames.journal_header(self._salt)
        data += frames.batch(self._salt, 1, pb.Batch(records=records).SerializeToString())
        snapshot = self.snapshot if self._snapshot_due else None
        self._replace = self._snapshot_due = False
        first, self._pair = self._pair is None, 0 if self._pair is None else 1 - self._pair
        before = _Mark(2 * self._pair, self._salt, 0)
        return Job(self.seq, _Replace(self._disk, data, snapshot, before, self._mark(), first))

    def _mark(self) -> _Mark:
        """The first slot of a pair stays as it was synced, whatever a power cut makes of the second."""
        assert self._pair is not None
        return _Mark(2 * self._pair + 1, self._salt, self._serial)

    def found(self) -> None:
        """The journal was read back. What an earlier process wrote may still be in the kernel's memory alone: nothing
        of it may be relied on, nor said to anybody, before the first job has written it anew."""
        self.seq = self.ballot_seq = 1
        self._unsynced.append((1, self.last))

    def marked_in(self, slot: int) -> None:
        """The present file has its marks there."""
        self._pair = slot // 2

    def done(self, job: Job) -> None:
        """The job has run: what it carried is durable."""
        if job is not self._job:
            raise AssertionError("done: another job is under way")
        self._job = None
        self.durable = job.seq
        while self._unsynced and self._unsynced[0][0] <= job.seq:
            self.durable_index = max(self.durable_index, self._unsynced.popleft()[1])


@dataclass(frozen=True, slots=True)
class _Mark:
    slot: int
    salt: bytes
    serial: int

    def write(self, disk: Disk) -> None:
        disk.overwrite(MARKS, self.slot * frames.MARK_SECTOR, frames.mark(self.salt, self.serial))


@dataclass(frozen=True, slots=True)
class _Append:
    disk: Disk
    data: bytes
    mark: _Mark

    def __call__(self) -> None:
        self.disk.append(JOURNAL, self.data)
        self.disk.sync(JOURNAL)
        self.mark.write(self.disk)


@dataclass(frozen=True, slots=True)
class _Replace:
    disk: Disk
    data: bytes
    snapshot: SnapshotFile | None
    before: _Mark
    """Names the new file before it exists: a journal that no mark names is not ours."""
    after: _Mark
    first: bool

    def __call__(self) -> None:
        """The snapshot first: a journal whose base has no snapshot would have lost its entries."""
        if self.snapshot is not None:
            replace(self.disk, SNAPSHOT, frames.snapshot_file(self.snapshot))
        if self.first:
            replace(self.disk, MARKS, frames.fresh_marks(self.before.salt))
        else:
            self.disk.sync_names()  # else a power cut may bring back a journal whose mark is about to be overwritten
            self.before.write(self.disk)
            self.disk.sync(MARKS)
        replace(self.disk, JOURNAL, self.data)
        self.after.write(self.disk)


# ---------------------------------------------------------------- opening
@dataclass(frozen=True, slots=True)
class Opened:
    journal: Journal
    started: bool
    """There was a journal: this member has been part of the cluster before."""
    lost: str
    """Why an earlier journal could not be used (it was set aside); empty otherwise."""


def open_journal(disk: Disk) -> Opened:
    """Read back what is there. Blocking; raises OSError.

    A journal that was damaged is set aside, and the member starts as a new incarnation that does not vote: it may
    have acknowledged what it no longer knows.
    """
    data = disk.read(JOURNAL)
    raw_snapshot = disk.read(SNAPSHOT)
    marks = frames.read_marks(disk.read(MARKS) or b"")
    try:
        if data is None:
            _refuse_missing(raw_snapshot is not None, marks)
            return Opened(_fresh(disk), started=False, lost="")
        journal = _rebuild(disk, data, frames.read_snapshot(raw_snapshot) if raw_snapshot is not None else None, marks)
    except Corrupt as e:
        _set_aside(disk)
        return Opened(_fresh(disk), started=False, lost=str(e))
    return Opened(journal, started=True, lost="")


def _fresh(disk: Disk) -> Journal:
    return Journal(disk, secrets.randbits(64), voting=False)


def _refuse_missing(snapshot: bool, marks: list[Mark]) -> None:
    """A power cut at the very first start may leave marks alone, but none that anything was announced."""
    if snapshot:
        raise Corrupt("there is a snapshot but no journal")
    if any(mark.serial for mark in marks):
        raise Corrupt("the journal is missing")


def _set_aside(disk: Disk) -> None:
    for name in (SNAPSHOT, JOURNAL, MARKS):
        if disk.read(name) is not None:
            disk.rename(name, name + ".damaged")
    disk.sync_names()


def _rebuild(disk: Disk, data: bytes, snapshot: SnapshotFile | None, marks: list[Mark]) -> Journal:
    journal = Journal(disk, 0, voting=False)
    payloads = frames.read_journal(data)
    _check_length(journal, len(payloads), [mark for mark in marks if mark.salt == frames.salt_of(data)])
    for payload in payloads:
        for record in _records(payload):
            _replay(journal, record)
    if snapshot is None and journal.first > FIRST_INDEX:
        raise Corrupt("the snapshot that the journal builds on is missing")
    if snapshot is not None:
        _join(journal, snapshot)
    journal.found()
    return journal


def _check_length(journal: Journal, batches: int, marks: list[Mark]) -> None:
    """Nothing that was announced may be missing at the end."""
    if not marks:
        raise Corrupt("the journal is not the one that was written here last")
    newest = max(marks, key=lambda mark: mark.serial)
    if batches < newest.serial:
        raise Corrupt(f"the journal ends after write {batches}, but write {newest.serial} was acknowledged")
    journal.marked_in(newest.slot)


def _records(payload: bytes) -> Iterable[pb.Record]:
    try:
        return pb.Batch.FromString(payload).records
    except DecodeError:
        raise Corrupt("the journal has a batch that is no message") from None


def _replay(journal: Journal, record: pb.Record) -> None:
    kind = record.WhichOneof("record")
    if kind == "entry":
        entry = record.entry
        if entry.index != journal.last + 1:
            raise Corrupt(f"the journal has entry {entry.index} after {journal.last}")
        journal.items.append((entry.command, entry.index, entry.term))
        journal.written += len(entry.command)
    elif kind == "truncate":
        if not journal.first < record.truncate <= journal.last:
            raise Corrupt(f"the journal truncates {journal.first}..{journal.last} at {record.truncate}")
        del journal.items[record.truncate - journal.first :]
    elif kind == "ballot":
        journal.term, journal.voted_for = record.ballot.term, record.ballot.voted_for
    elif kind == "base":
        journal.items = [(b"", record.base.index, record.base.term)]
    elif kind == "standing":
        journal.incarnation, journal.voting = record.standing.incarnation, record.standing.voting


def _join(journal: Journal, snapshot: SnapshotFile) -> None:
    """Snapshot and journal are replaced one after the other: the snapshot may be newer than the journal's base."""
    if snapshot.index < journal.first:
        raise Corrupt(f"the snapshot ends at {snapshot.index}, the journal begins after {journal.first}")
    journal.snapshot = snapshot
    if snapshot.index > journal.last or journal.term_at(snapshot.index) != snapshot.term:
        journal.items = [(b"", snapshot.index, snapshot.term)]
        journal.term = max(journal.term, snapshot.term)
