"""Damage of the files of a journal is noticed, or does no harm: a member never goes on with less, or with other things,
than it has announced as durable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasys.store.raft.frames import SnapshotFile
from hasys.store.raft.journal import JOURNAL, MARKS, SNAPSHOT, Journal, LogItem, Opened, open_journal
from tests.sim.raft_disk import SimulatedDisk


@dataclass(frozen=True)
class Files:
    """What lies on the disk, and what must be read from it."""

    content: dict[str, bytes]
    expected: tuple[object, ...]

    def opened(self, **changed: bytes | None) -> Opened:
        """Open with some files changed, or taken away."""
        disk = SimulatedDisk()
        for name, data in {**self.content, **changed}.items():
            if data is not None:
                disk.create(name, data)
        return open_journal(disk)


def known(journal: Journal) -> tuple[object, ...]:
    """All that a member must never forget."""
    items: list[LogItem] = journal.items
    return (journal.term, journal.voted_for, journal.voting, journal.incarnation, journal.snapshot, *items)


def write_out(journal: Journal) -> None:
    while (job := journal.take_job()) is not None:
        job.run()
        journal.done(job)


def a_life() -> Files:
    disk = SimulatedDisk()
    journal = open_journal(disk).journal
    journal.become_voter()
    journal.ballot(1, "n1")
    for index in range(2, 8):
        journal.append(b"\0entry %d" % index, index, 1)
        write_out(journal)
    journal.compact(SnapshotFile(5, 1, b"the state at 5"), keep=1)
    write_out(journal)
    for index in range(8, 11):
        journal.ballot(index, "n2")
        journal.append(b"\0entry %d" % index, index, 2)
        write_out(journal)
    content = {name: disk.read(name) or b"" for name in (JOURNAL, SNAPSHOT, MARKS)}
    return Files(content, known(journal))


FILES = a_life()


def expect_noticed(opened: Opened) -> None:
    assert opened.lost
    assert not opened.started
    assert not opened.journal.voting
    assert opened.journal.incarnation not in FILES.expected
    assert opened.journal.last == 1


def expect_noticed_or_harmless(opened: Opened) -> None:
    if opened.lost:
        expect_noticed(opened)
    else:
        assert known(opened.journal) == FILES.expected


def flips(data: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_undamaged_files_give_back_what_was_written() -> None:
    opened = FILES.opened()
    assert not opened.lost
    assert known(opened.journal) == FILES.expected


@pytest.mark.parametrize("name", [JOURNAL, SNAPSHOT])
def test_every_flipped_bit_is_noticed(name: str) -> None:
    for changed in flips(FILES.content[name]):
        expect_noticed(FILES.opened(**{name: changed}))


def test_every_flipped_bit_of_the_marks_is_noticed_or_harmless() -> None:
    for changed in flips(FILES.content[MARKS]):
        expect_noticed_or_harmless(FILES.opened(**{MARKS: changed}))


@pytest.mark.parametrize("name", [JOURNAL, SNAPSHOT])
def test_every_cut_is_noticed(name: str) -> None:
    data = FILES.content[name]
    for length in range(len(data)):
        expect_noticed(FILES.opened(**{name: data[:length]}))


@pytest.mark.parametrize("name", [JOURNAL, SNAPSHOT, MARKS])
def test_a_missing_file_is_noticed(name: str) -> None:
    expect_noticed(FILES.opened(**{name: None}))


def test_every_range_that_is_there_twice_is_noticed_or_harmless() -> None:
    data = FILES.content[JOURNAL]
    for start in range(0, len(data), 7):
        for end in range(start + 1, len(data) + 1, 5):
            expect_noticed_or_harmless(FILES.opened(journal=data[:end] + data[start:end] + data[end:]))


def test_every_range_of_zeros_is_noticed() -> None:
    """What a file system may leave of a block that it never wrote."""
    data = FILES.content[JOURNAL]
    for start in range(0, len(data), 3):
        for end in range(start + 1, len(data) + 1, 11):
            changed = data[:start] + bytes(end - start) + data[end:]
            if changed != data:
                expect_noticed(FILES.opened(journal=changed))


edits = st.lists(
    st.tuples(
        st.sampled_from([JOURNAL, SNAPSHOT, MARKS]),
        st.floats(0, 1), st.floats(0, 1), st.binary(max_size=40) | st.none(),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


@given(edits)
@settings(max_examples=400, deadline=None)
def test_any_edit_of_any_file_is_noticed_or_harmless(changes: list[tuple[str, float, float, bytes | None]]) -> None:
    """A range is replaced by other bytes, or by what stands elsewhere in the file."""
    content = dict(FILES.content)
    for name, where, what, data in changes:
        old = content[name]
        at, source = int(where * len(old)), int(what * len(old))
        new = old[source : source + 30] if data is None else data
        content[name] = old[:at] + new + old[at + int(what * 20) :]
    opened = FILES.opened(**content)
    if content[MARKS] == FILES.content[MARKS]:
        expect_noticed_or_harmless(opened)
    elif not opened.lost:  # the marks are hit too: what was cut may be missing, what is there must be right
        assert set(opened.journal.items) <= set(FILES.expected)


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=600))
@settings(max_examples=200, deadline=None)
def test_files_of_garbage_are_noticed(journal: bytes, snapshot: bytes, marks: bytes) -> None:
    expect_noticed(FILES.opened(journal=journal, snapshot=snapshot, marks=marks))
