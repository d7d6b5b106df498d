"""DRBD on this machine, as a driver needs it: read from the kernel, never remembered; changed by ``drbdadm`` alone."""

from __future__ import annotations

import subprocess

import anyio
from anyio.abc import Process

from hasys import drbd
from hasys.drbd import Kernel
from hasys.model.drbd import Volume
from hasys.model.errors import HasysError

LOOK = 10.0
"""Seconds that DRBD may take to say how it is."""
ENDING = 1.0
"""Seconds for a program that was killed to be gone."""
SAID = 256 * 1024
"""Bytes of its output that are read."""
SECONDARY = 30.0
"""Seconds that it may take to step back where no driver is asked."""


class Drbd:
    """See the module."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        self._kernel = kernel or Kernel()
        self._hangs: Process | None = None

    async def look(self, resource: str, device: str) -> Volume:
        """The volume as it is now. Raises ``drbd.Down`` where nothing of it can be Primary, else ``HasysError``."""
        return await drbd.look(resource, device, self._run, self._kernel)

    async def become(self, role: str, resource: str, limit: float) -> str:
        """Make it ``primary`` or ``secondary`` within so many seconds. Never by force: what that may lose is for
        people to decide. Returns why not; "" when done. Raises ``HasysError``."""
        code, said = await self._run((self._kernel.program("drbdadm"), role, resource), limit)
        if code == 0:
            return ""
        lines = [line.strip() for line in said.splitlines()]
        why = next((line for line in reversed(lines) if line and not line.startswith("Command '")), "no reason given")
        return f"drbdadm {role} {resource}: {why[:200]} (exit status {code})"

    async def stray(self, resource: str, device: str) -> str:
        """The volume is Primary where it must not be: it steps back unless it is in use. Returns what was found."""
        try:
            if not (await self.look(resource, device)).primary:
                return ""
            why = await self.become("secondary", resource, SECONDARY)
        except HasysError:  # nothing of it is up, or nobody can tell
            return ""
        return f"{resource} was Primary" + (f" and stays so: {why}" if why else "")

    async def _run(self, argv: tuple[str, ...], limit: float = LOOK) -> tuple[int | None, str]:
        """A program that hangs in the kernel cannot be ended: it is given up, and no other is started beside it."""
        if self._hangs is not None and self._hangs.returncode is None:
            raise HasysError(f"an earlier question to DRBD (process {self._hangs.pid}) has not ended")
        try:
            # Shielded: a start that is cancelled half-way leaves a process behind that nobody waits for.
            with anyio.CancelScope(shield=True):
                process = await anyio.open_process(argv, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        except OSError as e:
            raise HasysError(f"{argv[0]}: {e.strerror}: install drbd-utils on this node") from None
        try:
            with anyio.fail_after(limit):
                said = await _output(process)
                return await process.wait(), said
        except TimeoutError:
            raise HasysError(f"{argv[0]} did not answer within {limit:g} s") from None
        finally:
            await self._ended(process)

    async def _ended(self, process: Process) -> None:
        with anyio.move_on_after(ENDING, shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
        if process.returncode is None:
            self._hangs = process


async def _output(process: Process) -> str:
    """The first part of what it prints; the rest is read and thrown away."""
    said = b""
    assert process.stdout is not None
    async for piece in process.stdout:
        said += piece[: SAID - len(said)]
    return said.decode("utf-8", "replace")
