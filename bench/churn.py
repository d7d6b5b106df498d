"""Does memory stay where it is? Objects come, change and go, events and operations pile up, watchers come and go.

    python -m bench.churn [--minutes 10] [--pause 0.3] [--json FILE]

Starts three stores of its own on loopback (``bench/loopback.py``) and prints the resident memory of each once in a
while, at the end what it consists of in each quarter of the time (``bench/inside.py``), before and after a collection
and after the allocator gave back what was free. At first the bounded histories are filled (20,000 changes for
watchers, 4,096 answers, 5,000 events, 1,000 operations), which would otherwise take a quarter of an hour and look like
a leak. ``--pause`` is the time between two rounds of a writer: 4 s cost a tenth of a core, 0.1 s are forty times that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

from bench.loopback import Loopback
from hasys.api.client import Client, load_context
from hasys.api.convert import now
from hasys.api.kinds import Ref
from hasys.model.errors import HasysError
from hasys.v1 import objects_pb2 as pb

GROUPS = 8
RESOURCES = 20
"""Per group, created, changed and deleted over and over."""
TEXT = "x" * 1_000
"""Makes each object about a kilobyte."""
PAUSE = 0.3
"""Seconds between two rounds of a writer: a busy cluster, not a saturated one."""
SAMPLE = 10.0
"""Seconds between two readings of the memory."""
HOUR = 150_000
"""Objects that change in an hour with a pause of 4 s."""
NOTABLE = 200
"""Objects of one type more than before are told."""
FIELDS = ("rss", "pss", "used", "free", "mapped", "blocks", "objects")
"""See ``bench/inside.py``."""
EVENTS, OPERATIONS, CHANGES = 5_000, 1_000, 20_000
"""What the bounded histories hold."""


def application(group: int, number: int, generation: int) -> pb.Object:
    """A resource of about a kilobyte that differs from generation to generation."""
    obj = pb.Object()
    obj.application.metadata.name = f"a{number}-{generation % 7}"
    obj.application.metadata.group = f"churn{group}"
    obj.application.spec.run.command.append("/bin/true")
    obj.application.spec.run.env["TEXT"] = f"{generation}{TEXT}"
    return obj


def head_of(group: int) -> pb.Object:
    """A group that nothing starts."""
    head = pb.Object()
    head.group.metadata.name = f"churn{group}"
    head.group.spec.nodes.add(name="n1", priority=10)
    head.group.spec.failover.mode = pb.Failover.Manual
    return head


async def operate(client: Client, group: int, generation: int, counts: dict[str, int]) -> None:
    """Ask for an operation that ends at once."""
    with contextlib.suppress(HasysError):
        kind = pb.OperationSpec.Pause if generation % 2 else pb.OperationSpec.Resume
        await client.create_operation(pb.OperationSpec(type=kind, group=f"churn{group}"))
        counts["operations"] += 1


async def fill(client: Client, counts: dict[str, int]) -> None:
    """Fill every bounded history."""
    await client.apply([head_of(group) for group in range(GROUPS)])
    for _ in range(EVENTS // 100):
        events = [pb.Event(type="Normal", reason="Churn", message=TEXT[:100], time=now()) for _ in range(100)]
        await client.report("n1", events=events)

    async def ask(group: int) -> None:
        for number in range(OPERATIONS // GROUPS + 1):
            await operate(client, group, number, counts)

    await asyncio.gather(*(ask(group) for group in range(GROUPS)))
    for number in range(CHANGES // RESOURCES):
        await client.apply([application(0, item, 7 * number) for item in range(RESOURCES)])


async def churn(client: Client, group: int, until: float, pause: float, counts: dict[str, int]) -> None:
    """One writer: whole groups of resources come, change and go; operations are asked for."""
    head = head_of(group)
    generation = 0
    while time.monotonic() < until:
        generation += 1
        objects = [head, *(application(group, number, generation) for number in range(RESOURCES))]
        with contextlib.suppress(HasysError):  # a conflict with a deletion that is under way: the next round writes
            await client.apply(objects, prune=True)
            counts["objects"] += len(objects)
        if generation % 5 == 0:
            await operate(client, group, generation, counts)
        await asyncio.sleep(pause)
        if generation % 50 == 0:
            with contextlib.suppress(HasysError):
                await client.delete(Ref("Group", "", f"churn{group}"))


async def look(client: Client, until: float, pause: float, counts: dict[str, int]) -> None:
    """Watchers that come, take a little and go; one in ten wants everything."""
    number = 0
    while time.monotonic() < until:
        kinds = ("Application", "Group") if number % 10 else ()
        with contextlib.suppress(HasysError, TimeoutError):
            async with asyncio.timeout(pause / 2):
                async for answer in client.watch(kinds):
                    counts["watched"] += len(answer.changes)
        counts["watches"] += 1
        number += 1


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


async def sample(cluster: Loopback, until: float, counts: dict[str, int]) -> None:
    """Ask each store for its memory once in a while; print how much is resident."""
    begun = time.monotonic()
    while time.monotonic() < until:
        await asyncio.sleep(SAMPLE)
        cluster.ask()
        row = {name: round(resident(process.pid), 1) for name, process in cluster.processes.items()}
        told = "  ".join(f"{name} {value:g}" for name, value in row.items())
        print(f"{time.monotonic() - begun:.0f} s  {counts['objects']} objects  {told}", flush=True)


def quarters(rows: list[dict[str, Any]], field: str) -> list[float]:
    """Mean of a figure in each quarter of the time."""
    regular = [float(row[field]) for row in rows if not row["label"]]
    size = max(1, len(regular) // 4)
    return [round(statistics.mean(regular[n * size : (n + 1) * size] or [0.0]), 2) for n in range(4)]


def grown(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Types of which there are many more at the end than after the first quarter."""
    regular = [row["kinds"] for row in rows if not row["label"]]
    early, late = regular[len(regular) // 4], regular[-1]
    more = {kind: count - early.get(kind, 0) for kind, count in late.items()}
    return {kind: count for kind, count in sorted(more.items(), key=lambda item: -item[1]) if count > NOTABLE}


async def run(cluster: Loopback, minutes: float, pause: float) -> dict[str, Any]:
    """Churn for so long; what each store's memory was in each quarter of that time."""
    counts = {"objects": 0, "operations": 0, "watches": 0, "watched": 0}
    context = load_context(cluster.context)
    async with Client(context) as one, Client(context) as other:
        await fill(one, counts)
        until = time.monotonic() + 60 * minutes
        used, begun = cluster.cpu(), time.monotonic()
        writers = [churn(one, group, until, pause, counts) for group in range(GROUPS)]
        watchers = [look(other, until, pause, counts) for _ in range(4)]
        await asyncio.gather(*writers, *watchers, sample(cluster, until, counts))
        passed = time.monotonic() - begun
        percent = {name: round(100 * (end - used[name]) / passed, 1) for name, end in cluster.cpu().items()}
    cluster.settle()
    census = cluster.census()
    return {
        "minutes": minutes,
        "pause": pause,
        "counts": counts,
        "hours_of_life": round(counts["objects"] / HOUR, 2),
        "cpu_percent": percent,
        "quarters": {name: {field: quarters(rows, field) for field in FIELDS} for name, rows in census.items()},
        "end": {name: {row["label"]: row["rss"] for row in rows if row["label"]} for name, rows in census.items()},
        "grown": {name: grown(rows) for name, rows in census.items()},
        "census": census,
    }


def main() -> None:
    """Print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--pause", type=float, default=PAUSE)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with Loopback(inside=True) as cluster:
        result = asyncio.run(run(cluster, arguments.minutes, arguments.pause))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    del result["census"]
    for name, told in result.pop("quarters").items():
        for field, values in told.items():
            print(name, field, *(f"{value:g}" for value in values))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
