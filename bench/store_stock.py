"""One member of stock PySyncObj in a process of its own, for the store benchmark."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated

WAIT = 0.25
"""Seconds that one write may take before it counts as failed."""


class Table(SyncObj):  # type: ignore[misc]  # PySyncObj has no types
    """A dictionary on all members. As it comes: its thread, tick and timeouts; journal and dump without fsync."""

    def __init__(self, own: str, others: Sequence[str], journal: str) -> None:
        super().__init__(own, list(others), SyncObjConf(journalFile=journal, fullDumpFile=f"{journal}.dump"))
        self.data: dict[int, bytes] = {}

    @replicated  # type: ignore[untyped-decorator]
    def put(self, key: int, value: bytes) -> None:
        """One write."""
        self.data[key] = value


def main() -> None:
    """Run a member and answer orders, JSON line by JSON line, until standard input ends.

    A process of its own that imports nothing of hasys: there pickle, which PySyncObj needs, is out of reach.
    """
    journal, own, *others = sys.argv[1:]
    table = Table(own, others, journal)
    for line in sys.stdin:
        print(json.dumps(_answer(table, *json.loads(line))), flush=True)


def _answer(table: Table, order: str, *numbers: Any) -> Any:
    if order == "leads":
        return bool(table._isLeader())
    if order == "put":
        return _put(table, -1, b"x" * numbers[0])
    if order == "fill":
        for first in range(0, numbers[0], 500):
            _burst(table, range(first, min(first + 500, numbers[0])), b"x" * 64)
        return True
    return _write(table, *numbers)


def _put(table: Table, key: int, value: bytes) -> bool:
    done = threading.Event()
    outcome: list[Any] = []

    def ended(_: object, error: object) -> None:
        outcome.append(error)
        done.set()

    table.put(key, value, callback=ended)
    return done.wait(WAIT) and not outcome[0]


def _burst(table: Table, keys: range, value: bytes) -> None:
    left = threading.Semaphore(0)
    for key in keys:
        table.put(key, value, callback=lambda *_: left.release())
    for _ in keys:
        left.acquire(timeout=10)


def _write(table: Table, writers: int, seconds: float, size: int) -> list[float]:
    """That many writers, each with one write outstanding; the time of every write, in seconds."""
    until = time.perf_counter() + seconds
    times: list[float] = []
    ended = threading.Semaphore(0)

    def begin(key: int) -> None:
        begun = time.perf_counter()

        def done(_: object, error: object) -> None:
            if not error:
                times.append(time.perf_counter() - begun)
            if time.perf_counter() < until:
                begin(key)
            else:
                ended.release()

        table.put(key, b"x" * size, callback=done)

    for key in range(writers):
        begin(key)
    for _ in range(writers):
        ended.acquire(timeout=seconds + 10)
    return times


if __name__ == "__main__":
    main()
