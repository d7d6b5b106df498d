"""Is the real store linearizable while its processes die and freeze and its networks fail?

``python -m tests.chaos.linearize --minutes 10 --seed 1``: rounds of half a minute, each with a fresh set of registers
and a verdict. The seed decides the faults and their times, not how processes and networks interleave.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hasys.api.client import Client
from tests.chaos.checker import Operation, Verdict, check
from tests.chaos.cluster import NAMES, Cluster
from tests.chaos.nemesis import Nemesis, Proxies
from tests.chaos.registers import INITIAL, LABEL, Library, Recorder, Register
from tests.chaos.server import toxiproxy_server
from tests.chaos.writers import group

CLIENTS = 5
REGISTERS = 3
ANY = "any"
"""In place of a server: the client library chooses."""
READY = 30.0
"""Seconds within which a healed cluster must answer."""


@dataclass(frozen=True)
class Round:
    """What one round has shown."""

    faults: tuple[str, ...]
    outcomes: dict[str, int]
    history: tuple[Operation, ...]
    verdicts: tuple[Verdict, ...]
    declined: tuple[Operation, ...] = ()
    """Changes that must not have happened."""

    @property
    def refused(self) -> list[Verdict]:
        """Registers whose history no order of operations explains."""
        return [verdict for verdict in self.verdicts if not verdict]


async def one_round(cluster: Cluster, nemesis: Nemesis, rng: random.Random, seconds: float, serial: int) -> Round:
    """Clients work, faults come and go for ``seconds``; then everything heals and every register is read once more."""
    loop = asyncio.get_running_loop()
    names = [f"r{serial}-{i}" for i in range(REGISTERS)]
    await cluster.ready(READY)
    async with Client(cluster.context()) as client:
        await client.apply([group(name, **{LABEL: INITIAL}) for name in names], timeout=READY)
    servers: dict[str, Register | Library] = {name: Register(cluster.context([name])) for name in NAMES}
    servers[ANY] = Library(cluster.context())
    recorder = Recorder(servers, names, rng)
    tasks = [asyncio.create_task(recorder.work(f"c{i}")) for i in range(CLIENTS)]
    nemesis.history.clear()
    try:
        until = loop.time() + seconds
        await nemesis.run(lambda: loop.time() >= until)
        await recorder.read_everything(READY)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers.values():
            await server.close()
    for error in ended:
        if not isinstance(error, asyncio.CancelledError):
            raise AssertionError(f"a client ended: {error!r}")
    history = tuple(recorder.history)
    verdicts, declined = tuple(check(history, INITIAL)), tuple(recorder.refused)
    return Round(tuple(nemesis.history), recorder.outcomes, history, verdicts, declined)


async def run(folder: Path, server: str, rng: random.Random, rounds: Sequence[float]) -> list[Round]:
    """Rounds of so many seconds on one cluster; ends after the first that is refused."""
    cluster = Cluster(folder)
    proxies = Proxies(server, cluster)
    found: list[Round] = []
    try:
        proxies.create()
        cluster.write()
        cluster.start()
        nemesis = Nemesis(cluster, proxies, rng)
        for serial, seconds in enumerate(rounds):
            found.append(await one_round(cluster, nemesis, rng, seconds, serial))
            print(f"round {serial}: {found[-1].outcomes}; {', '.join(found[-1].faults)}", flush=True)
            if found[-1].refused:
                break
    finally:
        cluster.close()
        proxies.remove()
    return found


def explain(result: Round) -> str:
    """Where the checker could not go on, with what happened around it."""
    lines = [f"faults: {', '.join(result.faults)}"]
    for verdict in result.refused:
        lines.append(f"{verdict.register}: the value is {verdict.state!r}, and none of these can be next:")
        lines += [f"    {operation}" for operation in verdict.stuck]
        at = min(operation.called for operation in verdict.stuck)
        near = [o for o in result.history if o.register == verdict.register and abs(o.called - at) < 2]
        lines += ["  around it:", *(f"    {operation}" for operation in sorted(near, key=lambda o: o.called))]
        values = {operation.value for operation in verdict.stuck}
        lines += [f"  refused, and yet seen: {o}" for o in result.declined if o.value in values]
    return "\n".join(lines)


def main() -> None:
    """Exit status 1 and the refused history when the store is not linearizable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    rounds = [30.0] * max(1, round(options.minutes * 2))
    with tempfile.TemporaryDirectory(prefix="hasys-linearize.") as folder, toxiproxy_server() as server:
        found = asyncio.run(run(Path(folder), server, random.Random(seed), rounds))
    operations = sum(verdict.operations for result in found for verdict in result.verdicts)
    refused = [result for result in found if result.refused]
    print(
        f"{len(found)} rounds, {operations} operations, {sum(len(r.faults) for r in found)} faults in"
        f" {time.monotonic() - began:.0f} s: {len(refused)} refused"
    )
    for result in refused:
        print(explain(result))
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
