"""Power cuts: every store's disk forgets, at one instant, whatever was not synced. No acknowledged write may be lost.

``python -m tests.chaos.powercuts --times 50`` (root: it mounts). The stores are real processes on a file system of ours
(``dropfs``): what survives is what they synced, by fsync of files and folders, as the kernel passed it on; of the rest
random pages survive, which is less kind than most disks. Not shown: a disk or file system that breaks its promises.
``--lie`` makes sync do nothing, to show that the check notices.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hasys.api.client import Client
from hasys.model.errors import HasysError
from tests.chaos.cluster import NAMES, Cluster
from tests.chaos.kills import OBJECTS, READY, WRITERS, Result
from tests.chaos.writers import Ledger, group, read_all, write_for_ever
from tests.chaos.zygote import Zygote

LONGEST = 1.0
"""Seconds of work before a cut, at most."""

KILLED_BEFORE = 0.4
"""Share of cuts that follow closely on a kill: what the killed process wrote and did not sync is there when the next
one starts, and may be gone after the cut."""


class Disks:
    """A disk for each node, with one switch for the power of all."""

    def __init__(self, folder: Path) -> None:
        self.folders = {name: folder / f"disk-{name}" for name in NAMES}
        for path in self.folders.values():
            path.mkdir(parents=True)
        argv = [sys.executable, "-m", "tests.chaos.dropfs", *map(str, self.folders.values())]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "mounted", "not mounted: root and /dev/fuse are needed"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def command(self, text: str) -> str:
        """Its answer; see ``dropfs``."""
        print(text, file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Unmount."""
        self._process.communicate()


async def run(
    cluster: Cluster, disks: Disks, times: int, rng: random.Random, *, seconds: float, patience: float
) -> Result:
    """Cut the power until it was cut ``times``, ``seconds`` have passed, or something is wrong; not to serve again
    within ``patience`` seconds is."""
    result, ledger, until = Result(), Ledger(), time.monotonic() + seconds
    cluster.start()
    await cluster.ready(READY)
    clients = [Client(cluster.context()) for _ in range(WRITERS)]
    await clients[0].apply([group()], timeout=READY)
    tasks = [
        asyncio.create_task(write_for_ever(client, ledger, [f"w{i}-{j}" for j in range(OBJECTS)]))
        for i, client in enumerate(clients)
    ]
    changed = 0
    while result.rounds < times and not result.faults and time.monotonic() < until:
        ledger.news.clear()
        async with asyncio.timeout(READY):
            await ledger.news.wait()
        await asyncio.sleep(rng.uniform(0, LONGEST))
        if rng.random() < KILLED_BEFORE:
            cluster.kill(rng.sample(NAMES, rng.randint(1, len(NAMES))))
            cluster.start()
            await asyncio.sleep(rng.uniform(0, 2 * LONGEST))
        before = dict(ledger.acknowledged)  # and what is acknowledged until the power is off is not counted
        changed += await asyncio.to_thread(cut, cluster, disks, rng)
        result.rounds += 1
        try:
            await cluster.ready(patience)
            found = await read_all(cluster.context(), patience)
        except HasysError as e:
            result.faults.append(f"not serving within {patience:g} s after a power cut: {e}")
            break
        result.checked += len(before)
        result.faults += ledger.lost(before, found)
    for name in NAMES:
        if "set aside" in cluster.log(name):
            result.faults.append(f"{name} took its journal for damaged")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for client in clients:
        await client.close()
    print(
        f"{result.rounds} power cuts of all nodes, {changed} files were not what they had been: {ledger.writes} writes"
        f" acknowledged, {result.checked} values checked, {len(result.faults)} faults"
    )
    return result


def cut(cluster: Cluster, disks: Disks, rng: random.Random) -> int:
    """Power off for disks and processes, then on; answers how many files had changed."""
    disks.command("off")
    cluster.kill(NAMES)
    changed = int(disks.command(f"on {rng.getrandbits(32)}"))
    cluster.start()
    return changed


def try_it(
    folder: Path, times: int, seed: int, *, minutes: float = 60.0, lie: bool = False, patience: float = READY
) -> Result:
    """A cluster on such disks from beginning to end."""
    zygote, disks = Zygote(), Disks(folder)
    cluster = Cluster(folder, zygote=zygote)
    cluster.data_dirs = disks.folders
    try:
        if lie:
            disks.command("lie")
        cluster.write()
        rng = random.Random(seed)
        return asyncio.run(run(cluster, disks, times, rng, seconds=minutes * 60, patience=patience))
    finally:
        cluster.close()
        disks.close()
        zygote.close()


def main() -> None:
    """Exit status 1 when anything was lost; the logs are kept then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--lie", action="store_true")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="hasys-powercuts."))
    print(f"seed {seed}, logs in {folder}", flush=True)
    result = try_it(folder, options.times, seed, minutes=options.minutes, lie=options.lie)
    for fault in result.faults:
        print(fault)
    if result.faults:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
