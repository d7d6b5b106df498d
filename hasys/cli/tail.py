"""Output of the children of ``hasys node run``: each writes to its own file, the supervisor repeats it with a prefix.

Files and not pipes: a pipe whose reader was killed, or does not read, stops or kills its writer; a guard must not be
stopped by a terminal. The files live on /run, so a slow disk does not matter either.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
from pathlib import Path

from hasys.config import Log

_CHUNK = 4096
"""PIPE_BUF: a pipe that polls writable takes this much without blocking."""


class Terminal:
    """Where the supervisor prints. Never blocks: what cannot be printed now is read from the file later."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._broken = False
        self.watched = os.isatty(descriptor)
        """Somebody may sit before it."""

    @property
    def ready(self) -> bool:
        """May one chunk be printed now?"""
        if self._broken:
            return False
        try:
            events = self._poll.poll(0)
        except OSError:
            self._broken = True
            return False
        return bool(events) and bool(events[0][1] & select.POLLOUT)

    def print(self, data: bytes) -> None:
        """Print whole lines, at most a chunk. A reader that went away is forgotten, not an error."""
        try:
            os.write(self._descriptor, data)
        except OSError:
            self._broken = True


class Tail:
    """Repeats what a child appends to its file."""

    def __init__(self, path: Path, prefix: str, terminal: Terminal, log: Log = Log()) -> None:  # noqa: B008  frozen
        self.path = path
        self._log = log
        self._prefix = prefix.encode()
        self._terminal = terminal
        self._offset = path.stat().st_size if path.exists() else 0

    def open_for_child(self) -> int:
        """A descriptor for the child's output; the caller closes it."""
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def follow(self) -> None:
        """Print the new whole lines, as far as the terminal takes them, and keep the file within its limit."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return
        if size < self._offset:
            self._offset = 0
        if size > self._offset:
            self._print_new()
        if size > self._log.size and (self._offset >= size or size > 4 * self._log.size):
            self._keep_aside()

    def _keep_aside(self) -> None:
        """The full file becomes ``.1``, the one before ``.2``; the child goes on to write where it did."""
        for number in range(self._log.keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._kept(number).replace(self._kept(number + 1))
        shutil.copyfile(self.path, self._kept(1))
        os.truncate(self.path, 0)
        self._offset = 0

    def _kept(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _print_new(self) -> None:
        with self.path.open("rb") as file:
            while self._terminal.ready:
                file.seek(self._offset)
                taken, text = _next_chunk(file.read(_CHUNK), self._prefix)
                if not taken:
                    return
                self._terminal.print(text)
                self._offset += taken


def _next_chunk(block: bytes, prefix: bytes) -> tuple[int, bytes]:
    """How much of the block to take, and its whole lines with the prefix: at most a chunk. An endless line is cut."""
    taken, text = 0, b""
    for line in block.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        if len(text) + len(prefix) + len(line) > _CHUNK:
            break
        taken += len(line)
        text += prefix + line
    if not taken and len(block) > _CHUNK // 2:
        taken = _CHUNK // 2
        text = prefix + block[:taken].rstrip(b"\n") + b"\n"
    return taken, text
