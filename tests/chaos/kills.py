"""Kill -9 at random moments, one store or all at once, and check after each restart that no acknowledged write is lost.

``python -m tests.chaos.kills --times 1000`` (``--times`` counts processes killed). Data on the disk of ``--folder``.
Proves what a crash of the processes does; the page cache survives it, so that a missing fsync is not seen here: see
``python -m tests.chaos.powercuts``.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hasys.api.client import Client
from hasys.model.errors import HasysError
from tests.chaos.cluster import NAMES, Cluster
from tests.chaos.writers import Ledger, group, read_all, write_for_ever
from tests.chaos.zygote import Zygote

WRITERS = 6
OBJECTS = 8
"""Per writer."""
READY = 60.0
"""Seconds within which a cluster must serve again; far more than it needs, for busy machines."""
AT_ONCE = 0.5
"""Share of rounds in which every store dies at the same moment."""
EARLY = 0.25
"""Share of rounds that do not wait until the cluster serves again: stores die while they start and elect."""
LONGEST = 0.6
"""Seconds of work before a kill, at most."""


@dataclass
class Result:
    """What happened."""

    kills: int = 0
    rounds: int = 0
    all_at_once: int = 0
    checked: int = 0
    """Values compared with what was acknowledged."""
    faults: list[str] = field(default_factory=list)


class Round:
    """One kill after the other on one cluster."""

    def __init__(self, cluster: Cluster, ledger: Ledger, rng: random.Random) -> None:
        self._cluster, self._ledger, self._rng = cluster, ledger, rng
        self.result = Result()

    async def run(self) -> None:
        """Work, kill, start again, check. Ends the run by a fault in ``result``."""
        rng, result = self._rng, self.result
        if rng.random() >= EARLY and not await self._progress():
            return
        await asyncio.sleep(rng.uniform(0, LONGEST))
        self._expect_all_running()
        victims: Sequence[str] = NAMES if rng.random() < AT_ONCE else [rng.choice(NAMES)]
        self._cluster.kill(victims)
        result.kills += len(victims)
        result.rounds += 1
        result.all_at_once += len(victims) == len(NAMES)
        before = dict(self._ledger.acknowledged)
        self._cluster.start()
        await self._check(before)

    async def _progress(self) -> bool:
        self._ledger.news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(READY):
                await self._ledger.news.wait()
                return True
        self.result.faults.append(f"no write succeeded within {READY:g} s")
        return False

    async def _check(self, before: dict[str, int]) -> None:
        if self._rng.random() < EARLY:
            return  # the next kill comes while they start
        try:
            await self._cluster.ready(READY)
            found = await read_all(self._cluster.context(), READY)
        except HasysError as e:
            self.result.faults.append(f"no read within {READY:g} s: {e}")
            return
        self.result.checked += len(before)
        self.result.faults += self._ledger.lost(before, found)

    def _expect_all_running(self) -> None:
        for name in set(NAMES) - set(self._cluster.running):
            self.result.faults.append(f"{name} ended by itself: {self._cluster.log(name)[-300:]}")
        for name in NAMES:
            if "set aside" in self._cluster.log(name):
                self.result.faults.append(f"{name} took its journal for damaged")


async def run(cluster: Cluster, times: int, rng: random.Random, seconds: float) -> Result:
    """Kill until ``times`` processes are dead, ``seconds`` have passed, or something is wrong."""
    until = time.monotonic() + seconds
    ledger = Ledger()
    cluster.start()
    await cluster.ready(READY)
    clients = [Client(cluster.context()) for _ in range(WRITERS)]
    await clients[0].apply([group()], timeout=READY)
    tasks = [
        asyncio.create_task(write_for_ever(client, ledger, [f"w{i}-{j}" for j in range(OBJECTS)]))
        for i, client in enumerate(clients)
    ]
    rounds = Round(cluster, ledger, rng)
    result = rounds.result
    said = 0
    while result.kills < times and not result.faults and time.monotonic() < until:
        await rounds.run()
        if result.kills - said >= 100:
            said = result.kills
            print(f"{result.kills} kills, {ledger.writes} writes acknowledged", flush=True)
    for task in tasks:
        if task.done():
            result.faults.append(f"a writer ended: {task.exception()!r}")
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if not result.faults:
        await cluster.ready(READY)
        result.checked += len(ledger.acknowledged)
        result.faults += ledger.lost(ledger.acknowledged, await read_all(cluster.context(), READY))
    for client in clients:
        await client.close()
    print(
        f"{result.kills} kills in {result.rounds} rounds ({result.all_at_once} times all at once): {ledger.writes}"
        f" writes acknowledged, {result.checked} values checked, {len(result.faults)} faults"
    )
    return result


def main() -> None:
    """Exit status 1 when anything was lost; the folder is kept then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="hasys-kills.", dir=options.folder))
    zygote = Zygote()
    cluster = Cluster(folder, zygote=zygote)
    cluster.write()
    print(f"seed {seed}, data in {folder}", flush=True)
    try:
        result = asyncio.run(run(cluster, options.times, random.Random(seed), options.minutes * 60))
    finally:
        cluster.close()
        zygote.close()
    for fault in result.faults:
        print(fault)
    if result.faults:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
