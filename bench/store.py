"""The store beside etcd and stock PySyncObj, in one run: writes, watches, a killed leader, a restart, what it costs.

    python -m bench.store [--quick] [--only writes --only kills ...] [--product hasys ...] [--json FILE]

``make bench-store`` installs Debian's etcd-server and etcd-client first; without them etcd is left out. Products take
their turn for each measurement, so that other work on the computer falls on all of them. ``bench/stores.py`` says how
each is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.stores import PRODUCTS, Hasys, Product, Stock

Row = dict[str, Any]
BATCH = 16
"""Objects of one call in the batched row."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    seconds: float
    clients: Sequence[int]
    sizes: Sequence[int]
    watchers: Sequence[int]
    changes: int
    kills: int
    objects: int


FULL = Scale(5.0, (1, 16, 64, 256), (256, 4096), (1, 100, 1000), 50, 10, 100_000)
QUICK = Scale(1.5, (1, 64), (256,), (1, 100), 10, 3, 10_000)


def summary(times: Sequence[float], seconds: float) -> Row:
    """Rate and latencies in milliseconds."""
    ordered = sorted(times)
    if not ordered:
        return {"per second": 0.0}
    return {
        "per second": len(ordered) / seconds,
        "median ms": statistics.median(ordered) * 1e3,
        "p99 ms": ordered[int(len(ordered) * 0.99)] * 1e3,
    }


def cost(product: Product) -> tuple[float, float]:
    """Processor seconds of all members so far, and their resident megabytes."""
    seconds = memory = 0.0
    for pid in product.pids().values():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        memory += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return seconds, memory


async def writes(product: Product, clients: int, size: int, seconds: float, *, own: bool = False) -> Row | None:
    """Every client: write after write, each of another value. ``own``: by hasys's own client."""
    if own and not isinstance(product, Hasys):
        return None
    ask = product.put if own else product.write
    before, _ = cost(product)
    times: list[float] = []
    if isinstance(product, Stock):
        times = await product.ask(await product.leader(), "write", clients, seconds, size)
    else:
        until = time.perf_counter() + seconds

        async def one(client: int) -> None:
            number = 0
            while (begun := time.perf_counter()) < until:
                number += 1
                await ask(client, (b"%d:" % number).ljust(size, b"x"))
                times.append(time.perf_counter() - begun)

        await asyncio.gather(*(one(i) for i in range(clients)))
    used, memory = cost(product)
    row: Row = {"measurement": f"{clients} clients, {size} bytes{', own client' * own}", **summary(times, seconds)}
    return {**row, "cpu ms per write": (used - before) / max(1, len(times)) * 1e3, "MB": memory}


async def batches(product: Product, clients: int, seconds: float) -> Row | None:
    """hasys alone: several objects in one call; the rate is of objects."""
    if not isinstance(product, Hasys):
        return None
    until = time.perf_counter() + seconds
    times: list[float] = []

    async def one(client: int) -> None:
        number = 0
        while (begun := time.perf_counter()) < until:
            number += 1
            await product.batch(client, BATCH, (b"%d:" % number).ljust(256, b"x"))
            times.extend([time.perf_counter() - begun] * BATCH)

    await asyncio.gather(*(one(i) for i in range(clients)))
    return {"measurement": f"{clients} clients, {BATCH} objects of 256 bytes a call", **summary(times, seconds)}


async def fan_out(product: Product, watchers: int, changes: int) -> Row | None:
    """From the beginning of a write to the last watcher that has it."""
    if not product.watches:
        return None
    title = f"a change to {watchers} watchers"
    arrived, ready = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def listen(number: int) -> None:
        established = False
        async for _ in product.watch(number):
            if established:
                arrived.release()
            else:
                established = True
                ready.release()

    tasks = [asyncio.create_task(listen(i)) for i in range(watchers)]
    times = []
    try:
        async with asyncio.timeout(30):
            for _ in range(watchers):
                await ready.acquire()
        for number in range(changes):
            begun = time.perf_counter()
            await product.change(b"change %d at %d" % (number, time.monotonic_ns()))
            async with asyncio.timeout(10):
                for _ in range(watchers):
                    await arrived.acquire()
            times.append(time.perf_counter() - begun)
    except TimeoutError:
        return {"measurement": title, "note": f"only {len(times)} of {changes} reached every watcher in time"}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {"measurement": title, **summary(times, sum(times)), "per second": watchers * changes / sum(times)}


async def losses(product: Product, count: int, *, frozen: bool) -> Row:
    """SIGKILL to the leader, which closes its connections, or SIGSTOP: then it is just silent, as after a power loss.
    Until the first write that succeeds, tried again and again."""
    times = []
    for _ in range(count):
        leader = await product.leader()
        if frozen:
            product.freeze(leader)
        else:
            product.kill(leader)
        begun = time.perf_counter()
        await product.settle()
        times.append(time.perf_counter() - begun)
        if frozen:
            product.kill(leader)
        product.boot(leader)
        await asyncio.sleep(2.0)  # not measured: the member rejoins
        await product.settle()
    times.sort()
    return {
        "measurement": f"leader {'frozen' if frozen else 'killed'} to next write",
        "median ms": statistics.median(times) * 1e3,
        "p95 ms": times[min(len(times) - 1, int(len(times) * 0.95))] * 1e3,
        "worst ms": times[-1] * 1e3,
    }


async def restart(product: Product, objects: int) -> Row:
    """Every member killed and started; until the first write."""
    begun = time.perf_counter()
    await product.fill(objects)
    filled = time.perf_counter() - begun
    _, memory = cost(product)
    for name in product.pids():
        os.kill(product.pids()[name], signal.SIGKILL)
    for name in product.pids():
        product.reap(name)
    begun = time.perf_counter()
    for name in list(product.pids()):
        product.boot(name)
    await product.settle()
    took = time.perf_counter() - begun
    row: Row = {"measurement": f"restart with {objects} objects", "median ms": took * 1e3, "MB": memory}
    return {**row, "note": f"stored in {filled:.1f} s"}


Measure = Callable[[Product], Awaitable[Row | None]]


def plan(scale: Scale) -> dict[str, list[Measure]]:
    """What is measured, by part, in order."""
    rates: list[Measure] = [
        partial(writes, clients=clients, size=size, seconds=scale.seconds)
        for size in scale.sizes
        for clients in scale.clients
    ]
    rates += [partial(writes, clients=clients, size=256, seconds=scale.seconds, own=True) for clients in (1, 64)]
    return {
        "writes": rates,
        "batches": [partial(batches, clients=64, seconds=scale.seconds)],
        "watch": [partial(fan_out, watchers=watchers, changes=scale.changes) for watchers in scale.watchers],
        "kills": [partial(losses, count=scale.kills, frozen=False)],
        "freezes": [partial(losses, count=scale.kills, frozen=True)],
        "restart": [partial(restart, objects=scale.objects)],
    }


async def run(names: Sequence[str], measures: Sequence[Measure]) -> list[Row]:
    """Every measurement, product by product."""
    rows: list[Row] = []
    products = [PRODUCTS[name]() for name in names]
    try:
        for product in products:
            await product.start()
        for measure in measures:
            for product in products:
                try:
                    row = await measure(product)
                except Exception as e:  # a product that fails is a result, not the end
                    title = rows[-1]["measurement"] if rows else "failed"
                    row = {"measurement": title, "note": f"failed: {type(e).__name__}: {e}"[:120]}
                if row is not None:
                    rows.append({"product": product.name, "load": os.getloadavg()[0], **row})
                    print(show(rows[-1], rows), flush=True)
    finally:
        for product in products:
            await product.stop()
    return rows


def show(row: Row, rows: Sequence[Row]) -> str:
    """One line of the table, with the ratio to hasys in the same measurement."""
    first = next((r for r in rows if r["measurement"] == row["measurement"]), row)
    cells = [f"{row['measurement']:44}", f"{row['product']:12}"]
    names = ("per second", "median ms", "p95 ms", "p99 ms", "cpu ms per write", "MB")
    cells += [f"{row[name]:10.2f}" if name in row else " " * 9 + "-" for name in names]
    ratio = row["median ms"] / first["median ms"] if "median ms" in row and first.get("median ms") else None
    return " ".join([*cells, f"{ratio:8.2f}" if ratio else " " * 7 + "-", f"{row['load']:6.1f}", row.get("note", "")])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The store beside etcd and stock PySyncObj.")
    parser.add_argument("--quick", action="store_true", help="a few minutes: fewer clients, watchers, kills, objects")
    parser.add_argument("--only", action="append", choices=tuple(plan(QUICK)), metavar="PART", help="of %(choices)s")
    parser.add_argument("--product", action="append", choices=sorted(PRODUCTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = arguments.product or [n for n in PRODUCTS if not n.startswith("etcd") or shutil.which("etcd")]
    machine = f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}"
    print(machine)
    heads = ("per second", "median ms", "p95 ms", "p99 ms", "cpu/write", "MB")
    print(f"{'measurement':44} {'product':12} {' '.join(f'{h:>10}' for h in heads)} {'ratio':>8} {'load':>6}")
    parts = plan(QUICK if arguments.quick else FULL)
    measures = [measure for part in arguments.only or parts for measure in parts[part]]
    rows = asyncio.run(run(names, measures))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "quick": arguments.quick, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
