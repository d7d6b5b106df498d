"""hasys's own processes on this node: one of them is restarted because an operator asks for it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio

from hasys.model.errors import Refused
from hasys.processes import Identity, RoleLock

LOOK = 0.05
"""Seconds between looks for the new process."""
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL: a process that hangs is what people want to restart."""
PATIENCE = 30.0
"""Seconds until a new process must have the role."""


class Own:
    """``send`` signals a process, if it still lives; tests have another one."""

    def __init__(self, run_dir: Path, send: Callable[[Identity, signal.Signals], None] | None = None) -> None:
        self._run_dir = run_dir
        self._send = send or _signal

    def pid(self, role: str) -> int:
        """Of the process that has the role; 0: none."""
        found = RoleLock(self._run_dir, role).recorded()
        return found.pid if found else 0

    async def restart(self, role: str) -> str:
        """Stop the process; whoever started it starts it again. How it went; of our own role the next agent says it.
        Raises ``Refused`` with the reason."""
        lock = RoleLock(self._run_dir, role)
        before = lock.recorded()
        if before is None:
            raise Refused(f"no {role} runs here")
        if not self._comes_back():
            raise Refused(
                f"nothing would start the {role} again: neither systemd nor 'hasys node run' keeps it running"
            )
        self._send(before, signal.SIGTERM)
        with anyio.move_on_after(PATIENCE):
            kill_at = anyio.current_time() + GRACE
            while (now := lock.recorded()) in (None, before):
                if now == before and anyio.current_time() >= kill_at:
                    self._send(before, signal.SIGKILL)
                await anyio.sleep(LOOK)
            assert now is not None
            return f"pid {before.pid} ended, pid {now.pid} took over"
        raise Refused(f"pid {before.pid} was stopped, and no new {role} runs after {PATIENCE:g} s")

    def _comes_back(self) -> bool:
        by_systemd = "INVOCATION_ID" in os.environ
        return by_systemd or RoleLock(self._run_dir, "supervisor").recorded() is not None


def _signal(process: Identity, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if process.alive:  # else the pid is another's by now
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)
