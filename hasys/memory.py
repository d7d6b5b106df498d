"""Memory that stays: what a process needs to keep a lease is not to be read back from a disk that is busy or gone."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import re
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SMALL = 250_000
"""Tracked objects that a full collection may look at whoever waits: some 50 ms."""

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def lock(*, touched_only: bool = False) -> None:
    """Keep every page of this process in memory, now and later (``mlockall(2)``); children do not inherit it.

    ``touched_only``: from its first use on (``MCL_ONFAULT``), so that pages that are never used take no memory. Raises
    :class:`OSError` where there is a limit: what is mapped later would fail once it is reached.
    """
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY and not _may_lock():
        raise OSError(errno.EPERM, "RLIMIT_MEMLOCK is not infinite, and CAP_IPC_LOCK is missing")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | (_MCL_ONFAULT if touched_only else 0)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _may_lock() -> bool:
    """``CAP_IPC_LOCK``, as capabilities(7) numbers it."""
    found = re.search(r"^CapEff:\s+([0-9a-f]+)$", Path("/proc/self/status").read_text("ascii"), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> 14 & 1)


@contextmanager
def looked_at_once(busy: Callable[[], bool]) -> Iterator[None]:
    """In this block the collector looks no more at what has survived a full collection (``gc.freeze``) while this
    process is ``busy``.

    A full collection looks at every tracked object: a third of a second with 100,000 stored ones, in which a leader
    sends no heartbeat. Stored objects refer to nothing in circles and go when they are replaced, frozen or not. Circles
    that were alive at such a moment wait for a full collection while the process is not busy, or is small.
    """

    def watch(phase: str, collection: Mapping[str, int]) -> None:
        if collection["generation"] != 2:
            return
        if phase == "stop":
            gc.freeze()
        elif gc.get_freeze_count() < SMALL or not busy():
            gc.unfreeze()

    gc.callbacks.append(watch)
    try:
        yield
    finally:
        gc.callbacks.remove(watch)
        gc.unfreeze()
