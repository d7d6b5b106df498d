"""Make this process hard to delay: locked memory, real-time priority, no garbage collection.

Each step is allowed to fail; what failed is shown in status: a guard that can be delayed may have to give up a lease.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

from hasys import memory

PRIORITY = 40
"""Of SCHED_FIFO (1..99): above ordinary work, below the kernel's own threads (50)."""


def harden() -> list[str]:
    """Do all of it; returns one line for each thing that was not allowed. Call once, when everything is imported."""
    missing = []
    for step in (_lock_memory, _priority, _no_oom):
        try:
            step()
        except OSError as e:
            missing.append(f"{step.__doc__}: {e.strerror}")
    gc.collect()
    gc.freeze()
    gc.disable()
    return missing


def _lock_memory() -> None:
    """memory not locked"""
    memory.lock()


def _priority() -> None:
    """no real-time priority"""
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))


def _no_oom() -> None:
    """not exempt from the out-of-memory killer"""
    Path("/proc/self/oom_score_adj").write_text("-1000")
