"""Real store processes lose nothing that they acknowledged: killed at any moment, without power, on a damaged disk."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from hasys.api.client import Client
from hasys.store.raft import frames
from hasys.v1 import raft_pb2 as pb
from tests.chaos import kills, powercuts
from tests.chaos.cluster import Cluster
from tests.chaos.dropdisk import PAGE, Disk
from tests.chaos.kills import READY
from tests.chaos.writers import delay, group, read_all
from tests.chaos.zygote import Zygote

needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="root and /dev/fuse are needed"
)


# ---------------------------------------------------------------- the disk that forgets
def test_what_was_synced_survives_and_what_was_not_may_not() -> None:
    seen = set()
    for seed in range(50):
        disk = Disk()
        file = disk.create("journal", 0o600)
        file.write(0, b"a" * PAGE)
        disk.sync(file)
        disk.sync_names()
        file.write(PAGE, b"b" * PAGE)
        file.write(2 * PAGE, b"c" * PAGE)
        disk.lose_power(random.Random(seed))
        content = bytes(disk.names["journal"].content)
        assert content[:PAGE] == b"a" * PAGE
        seen.add(content[PAGE:])
    assert {b"", b"b" * PAGE + b"c" * PAGE, bytes(PAGE) + b"c" * PAGE} <= seen


def test_names_that_were_not_synced_are_old_or_new_but_never_both() -> None:
    seen = set()
    for seed in range(30):
        disk = Disk()
        disk.sync(disk.create("a", 0o600))
        disk.sync_names()
        disk.rename("a", "b")
        disk.lose_power(random.Random(seed))
        seen.add(tuple(disk.names))
    assert seen == {("a",), ("b",)}


# ---------------------------------------------------------------- processes
@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kills(tmp_path: Path) -> None:
    zygote = Zygote()
    cluster = Cluster(tmp_path, zygote=zygote)
    cluster.write()
    try:
        result = asyncio.run(kills.run(cluster, 10, random.Random(5), 100.0))
    finally:
        cluster.close()
        zygote.close()
    assert result.faults == []
    assert result.kills >= 10
    assert result.checked > 0


@needs_fuse
@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_every_node_loses_power(tmp_path: Path) -> None:
    result = powercuts.try_it(tmp_path, 2, seed=3)
    assert result.faults == []
    assert result.checked > 0


@needs_fuse
@pytest.mark.slow
def test_a_disk_that_does_not_sync_is_found_out(tmp_path: Path) -> None:
    """Either something is missing, or every member knows that it has lost its journal and none serves."""
    result = powercuts.try_it(tmp_path, 1, seed=3, lie=True, patience=10.0)
    assert result.rounds == 1
    assert result.faults


@pytest.mark.slow
def test_a_member_whose_journal_was_cut_says_so_and_counts_again_once_it_has_everything(tmp_path: Path) -> None:
    """After its return a majority needs it: another member is gone for good."""

    async def live(cluster: Cluster) -> dict[str, int]:
        cluster.start()
        await cluster.ready(READY)
        async with Client(cluster.context()) as client:
            await client.apply([group(), delay("kept", 1)], timeout=READY)
            cluster.kill(["n3"])
            cut_what_was_acknowledged(tmp_path / "n3" / "data")
            cluster.start(["n3"])
            await until_voting(cluster, "n3")
            cluster.kill(["n1"])
            await cluster.ready(READY)
            await client.apply([delay("new", 2)], timeout=READY)
        return await read_all(cluster.context(["n2", "n3"]), READY)

    cluster = Cluster(tmp_path)
    cluster.write()
    try:
        found = asyncio.run(live(cluster))
        assert "was acknowledged; it was set aside" in cluster.log("n3")
        assert (tmp_path / "n3" / "data" / "journal.damaged").exists()
    finally:
        cluster.close()
    assert found == {"kept": 1, "new": 2}


def cut_what_was_acknowledged(folder: Path) -> None:
    """Take the last bytes of the newest write that was announced as durable, and what follows it: killed a moment ago,
    the store may have been writing more, whose end may be missing."""
    journal = folder / "journal"
    data = journal.read_bytes()
    salt = frames.salt_of(data)
    marks = frames.read_marks((folder / "marks").read_bytes())
    announced = max(mark.serial for mark in marks if mark.salt == salt)
    writes = enumerate(frames.read_journal(data)[:announced], 1)
    end = len(frames.journal_header(salt)) + sum(len(frames.batch(salt, serial, w)) for serial, w in writes)
    journal.write_bytes(data[: end - 5])


async def until_voting(cluster: Cluster, name: str) -> None:
    """Wait until the old journal is set aside and the new one says that the member votes."""
    async with asyncio.timeout(READY):
        while True:
            data = cluster.folder / name / "data"
            if (data / "journal.damaged").exists() and votes(data):
                return
            await asyncio.sleep(0.05)


def votes(folder: Path) -> bool | None:
    """Does the journal in the folder, as it is on disk now, say that its member votes? None: there is none."""
    try:
        payloads = frames.read_journal((folder / "journal").read_bytes())
    except (OSError, frames.Corrupt):
        return None
    records = [record for payload in payloads for record in pb.Batch.FromString(payload).records]
    standings = [record.standing.voting for record in records if record.WhichOneof("record") == "standing"]
    return standings[-1] if standings else None
