"""How the supervisor hears that its children are ready and alive: a socket per role, that of ``sd_notify(3)``.

What it hears it passes on to whoever started it: ready when every child is, alive while the vital one is. An adopted
child goes on to speak to the same path.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from hasys.notify import ALIVE, READY

SILENCE = 6.0
"""Seconds without a sign of life after which a child does not count as alive; signs come three times as often."""


class Ear:
    """What one role said last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ready = False
        self._heard = 0.0
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        path.unlink(missing_ok=True)
        try:
            self._socket.bind(str(path))
        except OSError:  # a path that is too long for a socket: nothing is heard, the process itself must do
            self._socket.close()
            self._socket = None

    @property
    def environment(self) -> Mapping[str, str]:
        """For the child that is started next."""
        if self._socket is None:
            return os.environ
        return {**os.environ, "NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": str(int(SILENCE * 1e6))}

    def listen(self, now: float, *, runs: bool) -> None:
        """Take in what was said."""
        if self._socket is None:
            self.ready, self._heard = runs, now if runs else self._heard
            return
        with contextlib.suppress(BlockingIOError):
            while said := self._socket.recv(4096).decode("ascii", "replace").split("\n"):
                if READY in said or ALIVE in said:
                    self.ready, self._heard = True, now

    def alive(self, now: float) -> bool:
        """Was it heard lately?"""
        return self.ready and now - self._heard < SILENCE

    def ended(self) -> None:
        """The process is gone; the next one speaks for itself."""
        self.ready = False

    def close(self) -> None:
        """Nobody is heard any more."""
        if self._socket is not None:
            self._socket.close()
            self.path.unlink(missing_ok=True)
