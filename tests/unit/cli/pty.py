"""A real terminal of 80x24 around a command: what it prints, and keys that are typed into it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class Terminal:
    """``with Terminal(["top"], environment) as terminal``. A wait ends with the words or with the command; the test's
    own time limit ends it otherwise."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str], folder: Path, prefix: Sequence[str] = ()
    ) -> None:
        """``prefix``: what stands before the command, as of nsenter."""
        self._own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "hasys", *words], stdin=other, stdout=other, stderr=other, cwd=folder,
            env={**os.environ, "TERM": "xterm-256color", **environment}, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(other)
        self.printed, self.everything = b"", b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._own)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._own, keys.encode())

    def until(self, words: str) -> None:
        """Read until these words were printed since the last call; an end before that is a failure."""
        while words.encode() not in self.printed:
            assert self._read(), f"ended before it printed {words!r}: {self.printed.decode(errors='replace')}"
        self.printed = self.printed[self.printed.index(words.encode()) + len(words.encode()) :]

    def rest(self) -> str:
        """Everything until the end of the command."""
        while self._read():
            pass
        self.process.wait()
        return self.printed.decode(errors="replace")

    def _read(self) -> bool:
        try:
            more = os.read(self._own, 65536)
        except OSError:  # EIO: the other end is closed
            return False
        self.printed += more
        self.everything += more
        return bool(more)
