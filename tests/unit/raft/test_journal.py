"""The journal: what was announced as durable survives any power cut; damage is noticed, a torn tail is not damage."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hasys.store.raft import frames
from hasys.store.raft.disk import Folder
from hasys.store.raft.frames import SnapshotFile
from hasys.store.raft.journal import JOURNAL, SNAPSHOT, Journal, LogItem, open_journal
from tests.sim.raft_disk import PowerCut, SimulatedDisk


@dataclass
class Promise:
    """What a journal has announced as durable."""

    durable: int = 0
    durable_index: int = 1
    term: int = 0
    items: tuple[LogItem, ...] = ()


def write_out(journal: Journal) -> None:
    while (job := journal.take_job()) is not None:
        job.run()
        journal.done(job)


def work(journal: Journal) -> Iterator[None]:
    """A life with appends, votes, truncation, compaction and a snapshot from a leader; one step at a time."""
    for index in range(2, 12):
        journal.append(b"\0entry %d" % index, index, 1)
        yield
    journal.ballot(2, "n2")
    journal.truncate(9)
    journal.append(b"\0other", 9, 2)
    yield
    journal.compact(SnapshotFile(8, 1, b"state at 8"), keep=2)
    yield
    journal.append(b"\0more", 10, 2)
    journal.ballot(3, "")
    yield
    journal.install(SnapshotFile(40, 3, b"state at 40"))
    yield
    journal.append(b"\0last", 41, 3)
    yield


def live(disk: SimulatedDisk, promise: Promise) -> None:
    """Work until the machine dies; keep in ``promise`` what was announced before."""
    journal = open_journal(disk).journal
    for _ in work(journal):
        job = journal.take_job()
        announced = Promise(0, journal.last, journal.term, tuple(journal.items))
        if job is not None:
            job.run()
            journal.done(job)
            promise.durable, promise.durable_index = journal.durable, journal.durable_index
            promise.term, promise.items = announced.term, announced.items


def operations_of_a_life() -> int:
    disk = SimulatedDisk()
    live(disk, Promise())
    return disk.operations


@pytest.mark.parametrize("fuse", range(operations_of_a_life()))
def test_a_power_cut_at_any_operation_loses_nothing_that_was_announced(fuse: int) -> None:
    for seed in range(8):
        disk, promise = SimulatedDisk(), Promise()
        disk.fuse = fuse
        with pytest.raises(PowerCut):
            live(disk, promise)
        disk.power_cut(random.Random(seed))
        opened = open_journal(disk)
        assert not opened.lost
        assert opened.journal.term >= promise.term
        kept = {index: (command, term) for command, index, term in opened.journal.items}
        snapshot = opened.journal.snapshot
        for command, index, term in promise.items[1:]:
            covered = snapshot is not None and index <= snapshot.index
            overwritten = index >= 9 and opened.journal.term > promise.term  # a later, unannounced truncation
            assert covered or overwritten or kept[index] == (command, term)


def test_entries_are_durable_when_their_job_is_done_and_not_before() -> None:
    journal = open_journal(SimulatedDisk()).journal
    write_out(journal)
    journal.append(b"\0a", 2, 1)
    job = journal.take_job()
    assert job is not None
    journal.append(b"\0b", 3, 1)
    job.run()
    assert journal.durable_index == 1
    journal.done(job)
    assert journal.durable_index == 2
    write_out(journal)
    assert journal.durable_index == 3


def test_truncated_entries_do_not_count_as_durable_when_their_job_ends_late() -> None:
    journal = open_journal(SimulatedDisk()).journal
    write_out(journal)
    journal.append(b"\0a", 2, 1)
    journal.append(b"\0b", 3, 1)
    job = journal.take_job()
    assert job is not None
    journal.truncate(3)
    journal.append(b"\0c", 3, 2)
    job.run()
    journal.done(job)
    assert journal.durable_index == 2


def test_one_job_carries_everything_recorded_while_the_one_before_ran() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk).journal
    write_out(journal)
    before = disk.operations
    for index in range(2, 100):
        journal.append(b"\0x", index, 1)
    write_out(journal)
    assert disk.operations - before == 3  # one append, one sync, one mark


def filled(disk: SimulatedDisk, batches: int = 5) -> None:
    journal = open_journal(disk).journal
    for index in range(2, 2 + batches):
        journal.append(b"\0entry", index, 1)
        write_out(journal)


def test_damage_in_the_middle_makes_a_new_incarnation_that_does_not_vote() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk).journal
    journal.become_voter()
    write_out(journal)
    filled(disk)
    content = disk.read(JOURNAL)
    assert content is not None
    disk.damage(JOURNAL, len(content) // 2)
    opened = open_journal(disk)
    assert "damaged" in opened.lost
    assert not opened.started
    assert not opened.journal.voting
    assert opened.journal.incarnation != journal.incarnation
    assert disk.read(JOURNAL) is None
    assert disk.read(JOURNAL + ".damaged") is not None


@pytest.mark.parametrize("at", range(20, 60, 3))
def test_damage_of_the_first_batch_is_never_taken_for_a_torn_tail(at: int) -> None:
    disk = SimulatedDisk()
    filled(disk)
    disk.damage(JOURNAL, at)
    assert open_journal(disk).lost


def test_a_torn_write_that_was_not_announced_is_cut_and_the_member_goes_on() -> None:
    disk = SimulatedDisk()
    filled(disk, batches=5)
    journal = open_journal(disk).journal
    write_out(journal)
    journal.append(b"\0never announced", 7, 1)
    job = journal.take_job()
    assert job is not None
    disk.fuse = 1
    with pytest.raises(PowerCut):
        job.run()
    disk.fuse = None
    content = disk.read(JOURNAL)
    assert content is not None
    disk.create(JOURNAL, content[:-3])
    opened = open_journal(disk)
    assert not opened.lost
    assert opened.journal.last == 6
    write_out(opened.journal)
    assert open_journal(disk).journal.last == 6


def test_an_announced_write_that_is_missing_at_the_end_is_noticed() -> None:
    disk = SimulatedDisk()
    filled(disk, batches=5)
    content = disk.read(JOURNAL)
    assert content is not None
    disk.create(JOURNAL, content[:-3])
    opened = open_journal(disk)
    assert "was acknowledged" in opened.lost
    assert not opened.journal.voting


def test_a_copy_of_an_earlier_journal_is_not_taken_for_the_present_one() -> None:
    disk = SimulatedDisk()
    filled(disk, batches=2)
    earlier = disk.read(JOURNAL)
    assert earlier is not None
    for index in range(4, 7):  # each start writes a new file
        journal = open_journal(disk).journal
        journal.append(b"\0x", index, 1)
        write_out(journal)
    disk.create(JOURNAL, earlier)
    assert "not the one" in open_journal(disk).lost


def test_a_journal_that_was_removed_is_missed() -> None:
    disk = SimulatedDisk()
    filled(disk)
    disk.rename(JOURNAL, "elsewhere")
    assert "missing" in open_journal(disk).lost


def test_a_damaged_snapshot_makes_a_new_incarnation() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk).journal
    for index in range(2, 9):
        journal.append(b"\0x", index, 1)
    journal.compact(SnapshotFile(8, 1, b"state"), keep=0)
    write_out(journal)
    disk.damage(SNAPSHOT, 30)
    assert "snapshot" in open_journal(disk).lost


def test_a_journal_without_the_snapshot_it_builds_on_is_refused() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk).journal
    for index in range(2, 9):
        journal.append(b"\0x", index, 1)
    journal.compact(SnapshotFile(8, 1, b"state"), keep=0)
    write_out(journal)
    disk.rename(SNAPSHOT, "elsewhere")
    assert "missing" in open_journal(disk).lost


def test_a_command_that_looks_like_a_batch_is_not_taken_for_one() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk).journal
    write_out(journal)
    forged = frames.batch(bytes(8), 3, b"") * 3
    journal.append(b"\0" + forged, 2, 1)
    job = journal.take_job()
    assert job is not None
    disk.fuse = 1
    with pytest.raises(PowerCut):
        job.run()
    content = disk.read(JOURNAL)
    assert content is not None
    disk.fuse = None
    disk.create(JOURNAL, content[:-20])
    assert not open_journal(disk).lost


def test_a_fresh_folder_has_not_started_and_does_not_vote(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    opened = open_journal(folder)
    folder.close()
    assert not opened.started
    assert not opened.journal.voting


def test_the_real_folder_keeps_term_vote_entries_and_standing(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    journal = open_journal(folder).journal
    journal.become_voter()
    journal.ballot(7, "n2")
    write_out(journal)
    journal.append(b"\0a", 2, 7)
    write_out(journal)
    folder.close()
    again = Folder(tmp_path / "data")
    opened = open_journal(again)
    again.close()
    assert opened.started
    assert (opened.journal.term, opened.journal.voted_for, opened.journal.voting) == (7, "n2", True)
    assert opened.journal.items[-1] == (b"\0a", 2, 7)
    assert opened.journal.incarnation == journal.incarnation


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    one, two = Folder(tmp_path), Folder(tmp_path)
    assert one.lock()
    assert not two.lock()
    one.close()
    assert two.lock()
    two.close()


def test_what_a_dead_process_wrote_is_relied_on_only_after_it_was_written_anew() -> None:
    """The process died between write and sync: the bytes are readable, and a power cut may still take them away."""
    disk = SimulatedDisk()
    journal = open_journal(disk).journal
    write_out(journal)
    journal.append(b"\0entry", 2, 1)
    journal.ballot(1, "n2")
    job = journal.take_job()
    assert job is not None
    disk.fuse = 1  # the append happens, the sync does not
    with pytest.raises(PowerCut):
        job.run()
    disk.fuse = None
    found = open_journal(disk).journal
    assert (found.last, found.term, found.voted_for) == (2, 1, "n2")
    assert found.durable_index < 2
    assert found.durable < found.ballot_seq
    write_out(found)
    assert found.durable_index == 2
    assert found.durable == found.ballot_seq


def test_processes_that_die_in_a_row_while_they_start_leave_what_was_announced_to_a_power_cut() -> None:
    """What such a process renamed may be undone by the power cut: the journal of before must still be known then."""
    disk = SimulatedDisk()
    filled(disk)
    start = disk.operations
    write_out(open_journal(disk).journal)
    fuses = range(1, disk.operations - start)
    for first, second, seed in itertools.product(fuses, fuses, range(6)):
        rng = random.Random(seed)
        disk = SimulatedDisk()
        filled(disk)
        disk.power_cut(rng)
        for fuse in (first, second):
            journal = open_journal(disk).journal
            disk.fuse = fuse
            with pytest.raises(PowerCut):
                write_out(journal)
            disk.fuse = None
        disk.power_cut(rng)
        opened = open_journal(disk)
        assert (opened.lost, opened.journal.last) == ("", 6), (first, second, seed)
