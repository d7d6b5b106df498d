"""Tokens of two nodes without a third voter: kept in the book while the machine runs, on the disk beyond its power.

The rules are in :mod:`hasys.lease.tokens`, the argument in docs/decisions/0007. A disk may hang: it is written by a
thread, and the guard goes on. A token is in the book before what it permits, and off the disk before the guard says
that it is gone; so what lies on the disk is never more than what the book knows.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hasys.files import private_folder
from hasys.guard.loop import Loop
from hasys.guard.protocol import is_number
from hasys.lease.durable import TokenDropped, TokenTaken
from hasys.lease.tokens import TokenKeeper
from hasys.model.errors import Refused

if TYPE_CHECKING:
    from hasys.guard.core import Guard

AGAIN = 1.0
"""Seconds between attempts to write what could not be written."""
_STACK = 256 * 1024
"""Bytes: memory is locked, and the thread needs little."""


def load(path: Path) -> dict[str, int]:
    """What was kept, by group its epoch. Raises :class:`Refused` when it cannot be read: then nobody can say whether
    this node may start alone."""
    try:
        found = dict(json.loads(path.read_bytes()).items())
        if not all(is_number(epoch) for epoch in found.values()):
            raise ValueError("an epoch that nobody counts to")
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as e:
        raise Refused(
            f"{path}: {e}: it says what this node may start alone; remove it when the peer is up, it knows the rest"
        ) from None


def save(path: Path, tokens: Mapping[str, Any]) -> None:
    """Replace the file as a whole; durable when it returns. Raises ``OSError``, ``Refused`` for a folder of others."""
    private_folder(path.parent)
    beside = path.with_suffix(".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(dict(tokens)).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(beside, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Disk:
    """Writes in order, in a thread of its own; says so in the guard's."""

    def __init__(self, path: Path, loop: Loop, save: Callable[[Path, Mapping[str, Any]], None] = save) -> None:
        self._path = path
        self._save = save
        self._asked: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._calls: list[Callable[[OSError | None], None]] = []
        loop.reader(self._woken.fileno(), self._finished)
        size = threading.stack_size(_STACK)
        threading.Thread(target=self._run, name="tokens", daemon=True).start()
        threading.stack_size(size)

    def put(self, tokens: Mapping[str, Any], done: Callable[[OSError | None], None]) -> None:
        """Make this the content; ``done`` is called from the loop, with what went wrong."""
        self._calls.append(done)
        self._asked.put(dict(tokens))

    def _run(self) -> None:
        while True:
            tokens, error = self._asked.get(), None
            try:
                self._save(self._path, tokens)
            except OSError as e:
                error = e
            except Refused as e:  # the folder is not ours any more
                error = OSError(0, str(e))
            self._done.put(error)
            self._wake.send(b"x")

    def _finished(self) -> None:
        self._woken.recv(1)
        self._calls.pop(0)(self._done.get())


class Tokens:
    """One per guard, in its thread."""

    def __init__(self, guard: Guard, keeper: TokenKeeper, disk: Disk) -> None:
        self._guard, self._keeper, self._disk = guard, keeper, disk
        self._wanted = dict(keeper.tokens())

    def start(self) -> None:
        """What an earlier guard kept in one place, it may not have kept in the other."""
        book = self._guard.book
        if dict(book.tokens) != self._wanted:
            self._guard.remember(replace(book, tokens=dict(self._wanted)))
        self._write(lambda: None)

    def taken(self, effect: TokenTaken) -> bool:
        """In the book; False when that cannot be stored."""
        guard = self._guard
        self._wanted[effect.group] = effect.epoch
        if not guard.save(replace(guard.book, tokens={**guard.book.tokens, effect.group: effect.epoch})):
            return False
        self._write(lambda: None)
        return True

    def dropped(self, effect: TokenDropped) -> None:
        """Off the disk, then out of the book, then said."""
        if self._wanted.get(effect.group) == effect.epoch:
            del self._wanted[effect.group]
        self._write(lambda: self._forget(effect))

    def _forget(self, effect: TokenDropped) -> None:
        guard = self._guard
        if guard.book.tokens.get(effect.group) == effect.epoch:
            left = {group: epoch for group, epoch in guard.book.tokens.items() if group != effect.group}
            if not guard.save(replace(guard.book, tokens=left)):
                guard.parts.loop.at(guard.now() + AGAIN, lambda: self._forget(effect))
                return
        self._keeper.token_gone(effect.group, effect.epoch, guard.now())
        guard.tick()

    def _write(self, then: Callable[[], None]) -> None:
        def done(error: OSError | None) -> None:
            guard = self._guard
            guard.troubles["tokens"] = "" if error is None else f"tokens cannot be stored: {error.strerror}"
            if error is None:
                then()
            else:
                guard.parts.loop.at(guard.now() + AGAIN, lambda: self._write(then))

        self._disk.put(self._wanted, done)
