"""The status as it changes: ``hasys status -w -o json --repeat`` on the client machine, started again when it ends."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hasys.lab.machine import Machine

Status = Mapping[str, Any]

_AGAIN = 0.3
"""Seconds before a command that ended (no server reached) is started again."""


class StatusFeed:
    """The latest status and when it came. A thread reads; anybody may wait."""

    def __init__(self, client: Machine, command: Sequence[str]) -> None:
        self._client = client
        self._command = list(command)
        self._changed = threading.Condition()
        self._latest: Status | None = None
        self._arrived = 0.0
        self._listener: Callable[[Status], None] | None = None
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="status-feed", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> Status | None:
        """The newest status; None before the first one."""
        with self._changed:
            return self._latest

    def on_change(self, listener: Callable[[Status], None]) -> None:
        """Call ``listener`` with each status that arrives, from the feed's thread."""
        self._listener = listener

    def wait(self, condition: Callable[[Status], object], timeout: float, what: str) -> Status:
        """The first status that arrives from now on and meets ``condition``; ``timeout`` in seconds.

        A condition that raises :class:`KeyError` (no such group yet) is not met. Raises :class:`TimeoutError`.
        """
        started = time.monotonic()
        with self._changed:
            while True:
                if self._latest is not None and self._arrived > started and holds(condition, self._latest):
                    return self._latest
                left = started + timeout - time.monotonic()
                if left <= 0:
                    seen = brief(self._latest) if self._latest and self._arrived > started else "no status at all"
                    raise TimeoutError(f"after {timeout:g} s still waiting for {what}; last seen: {seen}")
                self._changed.wait(left)

    def close(self) -> None:
        """End the command and the thread."""
        self._closing.set()
        if self._process is not None:
            self._client.kill_all("status", "-w")
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._process = self._client.spawn(*self._command, output=subprocess.PIPE)
            assert self._process.stdout
            with self._process.stdout as lines:
                for line in lines:
                    self._take(line)
            self._closing.wait(_AGAIN)

    def _take(self, line: bytes) -> None:
        try:
            status = json.loads(line)
        except ValueError:  # cut off in the middle of a line
            return
        with self._changed:
            self._latest, self._arrived = status, time.monotonic()
            self._changed.notify_all()
        if self._listener is not None:
            self._listener(status)


def holds(condition: Callable[[Status], object], status: Status) -> bool:
    """The condition is met; one that raises :class:`KeyError` (no such group yet) is not."""
    try:
        return bool(condition(status))
    except KeyError:
        return False


def brief(status: Status) -> str:
    """A status in one line."""
    cluster = status["cluster"]
    nodes = " ".join(f"{n['name']}:{n['state']}" for n in status["nodes"])
    groups = " ".join(
        f"{g['name']}:{g['phase']}@{g.get('active') or '-'} {g.get('reason') or ''}".strip() for g in status["groups"]
    )
    return f"leader {cluster.get('leader') or '-'}, {nodes}, {groups}"
