"""What programs print, kept with a bound.

A program writes into a named pipe that it holds open for reading too: so it outlives the agent, and a flood is bounded
by the kernel. The agent empties the pipes into files, whose ends it keeps, at a bounded rate; who prints faster waits,
as with any log service. While the agent is away the pipe takes ``PIPE`` bytes, after which printing waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

KEEP = 64 * 1024
"""Bytes kept of each program's output when the file is cut."""
CUT_ABOVE = 4 * KEEP
"""Bytes at which it is cut."""
TAIL = 4 * 1024
"""Bytes that a status carries."""
PIPE = 1024 * 1024
"""Bytes that a program may print while nobody reads, and between two looks of the agent."""
PAUSE = 0.1
"""Seconds between two looks at a pipe that is never empty."""


class Outputs:
    """The output files of one node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._pipes: dict[Path, _Pipe] = {}
        self._tasks: TaskGroup | None = None

    def file(self, group: str, name: str) -> Path:
        """Where the end of what a resource prints is found; its pipe is there and emptied from now on."""
        file = self.directory / group / f"{name}.log"
        self._attend(file)
        return file

    def drain(self, file: Path) -> None:
        """Take over now what was printed so far."""
        if file in self._pipes:
            self._pipes[file].drain()

    def forget(self, file: Path) -> None:
        """Remove what one program printed."""
        if file in self._pipes:
            self._pipes.pop(file).close()
        for path in (file, pipe_of(file)):
            path.unlink(missing_ok=True)

    def forget_group(self, group: str) -> None:
        """Remove what the programs of a group printed."""
        directory = self.directory / group
        if directory.is_dir():
            for file in [f for f in self._pipes if f.parent == directory]:
                self._pipes.pop(file).close()
            shutil.rmtree(directory, ignore_errors=True)

    async def run(self) -> None:
        """Empty the pipes until cancelled, those of programs that an earlier agent started too."""
        async with anyio.create_task_group() as self._tasks:
            for pipe in tuple(self._pipes.values()):
                self._tasks.start_soon(pipe.follow)
            for path in self.directory.glob("*/*.pipe"):
                self._attend(path.with_suffix(".log"))
            await anyio.sleep_forever()

    def _attend(self, file: Path) -> None:
        """Have the pipe open; made anew when somebody removed it."""
        known = self._pipes.get(file)
        if known is not None:
            if known.there():
                return
            known.close()
        self._pipes[file] = pipe = _Pipe(file)
        if self._tasks is not None:
            self._tasks.start_soon(pipe.follow)


class _Pipe:
    """One program's way to its file."""

    def __init__(self, file: Path) -> None:
        """Raises ``OSError``."""
        self._file = file
        self._path = pipe_of(file)
        self._scope: anyio.CancelScope | None = None
        self._closed = False
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # not permitted: it keeps the kernel's usual size
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE)

    def there(self) -> bool:
        """Whether a program that opens the path would get this pipe."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except OSError:
            return False

    async def follow(self) -> None:
        """Empty it until closed."""
        if self._closed:
            return
        try:
            with anyio.CancelScope() as self._scope:
                while True:
                    await anyio.wait_readable(self._fd)
                    self.drain()
                    await anyio.sleep(PAUSE)
        finally:
            os.close(self._fd)

    def drain(self) -> None:
        """One look: at most as much as the pipe holds, of which the end is kept."""
        try:
            printed = os.read(self._fd, PIPE)
            with self._file.open("ab") as f:
                f.write(printed[-KEEP:])
                size = f.tell()
            if size > CUT_ABOVE:
                _cut(self._file)
        except OSError:
            return  # nothing there, or no place for it: neither is the program's fault

    def close(self) -> None:
        """Stop reading. The descriptor is closed when nobody waits for it any more: its number may come again."""
        self._closed = True
        if self._scope is None:
            os.close(self._fd)
        else:
            self._scope.cancel()


def pipe_of(file: Path) -> Path:
    """The pipe that leads to an output file."""
    return file.with_suffix(".pipe")


def tail(path: Path) -> str:
    """The end of the file as text of at most :data:`TAIL` bytes; empty when there is none."""
    try:
        with path.open("rb") as f:
            f.seek(0, os.SEEK_END)
            f.seek(max(0, f.tell() - TAIL))
            data = f.read(TAIL)
    except OSError:
        return ""
    text = data.decode("utf-8", "ignore").replace("\0", "")
    return text.encode()[-TAIL:].decode("utf-8", "ignore")


def last_line(path: Path) -> str:
    """The last line that says something, at most 200 characters."""
    lines = [line.strip() for line in tail(path).splitlines()]
    return next((line for line in reversed(lines) if line), "")[:200]


def _cut(path: Path) -> None:
    """Keep the end, from the beginning of a line."""
    with path.open("r+b") as f:
        f.seek(-KEEP, os.SEEK_END)
        kept = f.read(KEEP)
        f.seek(0)
        f.truncate()
        f.write(kept[kept.find(b"\n") + 1 :])
