"""The few file operations that the journal needs, so that a simulated disk can stand in for the real one.

Each operation says what it promises after a power cut; the journal relies on nothing else.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Protocol

LOCK = "lock"
ROOM = 256 * 1024
"""Bytes that must be free before a member promises to keep anything."""


class Disk(Protocol):
    """A folder of files. Names are plain; errors are :class:`OSError`."""

    def read(self, name: str) -> bytes | None:
        """The whole file, or None when there is none."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write a new file, or the same name anew. Nothing is promised before :meth:`sync`."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Write at the end. After a power cut any part of it, or garbage in its place, may be there."""
        ...

    def overwrite(self, name: str, at: int, data: bytes) -> None:
        """Write over a part of the file that exists, inside one sector. Before :meth:`sync` a power cut leaves the old
        bytes, the new ones, or garbage there, and everything else alone."""
        ...

    def sync(self, name: str) -> None:
        """Return when the content of the file survives a power cut."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Atomic; which of the two names exists after a power cut is open until :meth:`sync_names`."""
        ...

    def sync_names(self) -> None:
        """Return when every rename and new name survives a power cut."""
        ...


class Folder:
    """The real thing. Keeps the file that is appended to open; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, int] = {}
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            path.chmod(0o700)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, name: str, data: bytes) -> None:
        self._forget(name)
        fd = os.open(self._path / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self._open[name] = fd
        _write_all(fd, data)

    def append(self, name: str, data: bytes) -> None:
        fd = self._open.get(name)
        if fd is None:
            fd = self._open[name] = os.open(self._path / name, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        _write_all(fd, data)

    def overwrite(self, name: str, at: int, data: bytes) -> None:
        fd = self._open.get(name)
        if fd is None:
            fd = self._open[name] = os.open(self._path / name, os.O_WRONLY | os.O_CLOEXEC)
        os.pwrite(fd, data, at)

    def sync(self, name: str) -> None:
        os.fdatasync(self._open[name])

    def rename(self, old: str, new: str) -> None:
        os.replace(self._path / old, self._path / new)
        self._forget(new)
        if old in self._open:
            self._open[new] = self._open.pop(old)

    def sync_names(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self) -> bool:
        """Claim the folder for this process, until :meth:`close`. False: another process has it."""
        fd = os.open(self._path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._open[LOCK] = fd
        return True

    def probe(self) -> None:
        """Is there room, and can it be written? Raises :class:`OSError`: a full disk is known before it is needed."""
        path = self._path / "probe"
        try:
            with path.open("wb") as file:
                file.write(bytes(ROOM))
                file.flush()
                os.fdatasync(file.fileno())
        finally:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        for name in list(self._open):
            self._forget(name)

    def _forget(self, name: str) -> None:
        fd = self._open.pop(name, None)
        if fd is not None:
            os.close(fd)


def replace(disk: Disk, name: str, data: bytes) -> None:
    """Put ``data`` in the place of a file, so that a crash leaves the old content or the new one, never a mixture."""
    temporary = name + ".new"
    disk.create(temporary, data)
    disk.sync(temporary)
    disk.rename(temporary, name)
    disk.sync_names()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
