"""What programs print, kept with a bound.

A program writes straight into a file (a pipe would end with the agent, and the program with it), opened for appending
so that it can be cut under its feet. The agent cuts it each second; while the agent is away nobody does, which the
guard bounds: it fences a node whose agent stays away for the grace time.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import anyio

KEEP = 64 * 1024
"""Bytes kept of each program's output when the file is cut."""
CUT_ABOVE = 4 * KEEP
"""Bytes at which it is cut."""
TAIL = 4 * 1024
"""Bytes that a status carries."""
PERIOD = 1.0
"""Seconds between looks."""


class Outputs:
    """The output files of one node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: set[Path] = set()

    def file(self, group: str, name: str) -> Path:
        """The file of a resource; kept within the bound from now on."""
        path = self.directory / group / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # each time: somebody may have removed it
        self._open.add(path)
        return path

    def forget_group(self, group: str) -> None:
        """Remove what the programs of a group printed."""
        directory = self.directory / group
        if directory.is_dir():
            self._open = {path for path in self._open if path.parent != directory}
            shutil.rmtree(directory, ignore_errors=True)

    async def run(self) -> None:
        """Keep the files within the bound until cancelled."""
        while True:
            await anyio.sleep(PERIOD)
            self.cut()

    def cut(self) -> None:
        """Cut what has grown over the bound."""
        for path in self._open:
            try:
                if os.stat(path).st_size > CUT_ABOVE:
                    _cut(path)
            except OSError:
                continue  # removed by hand: it is made again at the next start


def tail(path: Path, size: int = TAIL) -> str:
    """The end of the file as text of at most ``size`` bytes; empty when there is none."""
    try:
        with path.open("rb") as f:
            f.seek(0, os.SEEK_END)
            f.seek(max(0, f.tell() - size))
            data = f.read(size)
    except OSError:
        return ""
    text = data.decode("utf-8", "ignore").replace("\0", "")
    return text.encode()[-size:].decode("utf-8", "ignore")


def last_line(path: Path) -> str:
    """The last line that says something, at most 200 characters."""
    lines = [line.strip() for line in tail(path).splitlines()]
    return next((line for line in reversed(lines) if line), "")[:200]


def _cut(path: Path) -> None:
    """Keep the end. What is written between reading and cutting is lost: at most a few lines of a flood."""
    with path.open("r+b") as f:
        f.seek(-KEEP, os.SEEK_END)
        kept = f.read(KEEP)
        f.truncate(0)
    with path.open("ab") as f:  # appends, as the program does: neither overwrites the other
        f.write(kept[kept.find(b"\n") + 1 :])
