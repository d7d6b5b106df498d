"""Runs a command of hasys in this process and tells, when asked by a signal, what its memory consists of.

    python bench/inside.py FILE store run --config node.yaml

SIGUSR1 appends one line of JSON to FILE. SIGUSR2 does so before, after a full collection, and after the allocator has
given back what it does not need: what only waited to be freed, and what only lay free, are then told apart.
"""

from __future__ import annotations

import ctypes
import gc
import json
import runpy
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

KINDS = 40
"""So many of the most frequent types of objects are told."""


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of the C library; bytes, all arenas together."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    ))  # fmt: skip


_libc = ctypes.CDLL(None)
_libc.mallinfo2.restype = _Mallinfo


def _pages() -> dict[str, float]:
    """Resident and proportional size, and the part of it that no file stands behind, in MiB."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) / 1024
    return {"rss": found["Rss"], "pss": found["Pss"], "anonymous": found["Anonymous"]}


def census(label: str = "") -> dict[str, object]:
    """What there is now. ``used``, ``free``, ``mapped``: of the C library's allocator, in MiB; ``blocks``: Python's
    small objects; ``objects``, ``kinds``: those that its collector knows."""
    blocks = sys.getallocatedblocks()
    info = _libc.mallinfo2()
    mib = 1024.0 * 1024.0
    kinds = Counter(type(one).__name__ for one in gc.get_objects())
    sizes = {
        **_pages(),
        "used": info.uordblks / mib,
        "free": info.fordblks / mib,
        "mapped": info.hblkhd / mib,
        "top": info.keepcost / mib,
    }
    return {
        "at": round(time.monotonic(), 1),
        "label": label,
        **{name: round(value, 2) for name, value in sizes.items()},
        "blocks": blocks,
        "objects": kinds.total(),
        "kinds": dict(kinds.most_common(KINDS)),
    }


def garbage() -> dict[str, object]:
    """Free what only waited for the collector; tell what it was, and which functions' frames were in it."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    kinds = Counter(type(one).__name__ for one in gc.garbage)
    frames = Counter(one.f_code.co_qualname for one in gc.garbage if isinstance(one, FrameType))
    gc.garbage.clear()
    gc.collect()
    return {"garbage": dict(kinds.most_common(KINDS)), "frames": dict(frames.most_common(KINDS))}


def main() -> None:
    """Install the signals, then be hasys."""
    into = Path(sys.argv[1])

    def write(label: str = "", **more: object) -> None:
        with into.open("a") as file:
            file.write(json.dumps({**census(label), **more}) + "\n")

    def settle(*_: object) -> None:
        write("before")
        waiting = garbage()
        write("collected", **waiting)
        _libc.malloc_trim(0)
        write("trimmed")

    signal.signal(signal.SIGUSR1, lambda *_: write())
    signal.signal(signal.SIGUSR2, settle)
    sys.argv[:2] = ["hasys"]
    runpy.run_module("hasys", run_name="__main__")


if __name__ == "__main__":
    main()
