"""The watchdog of the machine: resets it when the guard no longer pets it. Optional; node.yaml says how (``watchdog``).

While anything is held it is petted right after a fresh grant and at no other time: what outlives a lost node is then
over its timeout after the last grant, which is what a leader waits for (``hasys.store.assigned``). While nothing is
held it is petted by a timer: a node without a majority is no reason for a reset. It is never petted while a fence is
not finished, nor by a guard that wakes too late: then the machine is reset, and that is what it is for.
Interface: Documentation/watchdog/watchdog-api.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from hasys.config import Watchdog
from hasys.guard.loop import Loop

TURN = 0.5
"""Seconds between pets while nothing is held."""
OPEN_AGAIN = 10.0
"""Seconds between attempts to arm one that could not be armed."""
_GETSUPPORT, _SETTIMEOUT, _KEEPALIVE = 0x80285700, 0xC0045706, 0x80045705
_MAGICCLOSE = 0x0100
_INFO = struct.Struct("II32s")


class Device(Protocol):
    """An armed watchdog. Each call may raise ``OSError``."""

    timeout: float
    """Seconds, as the driver granted it."""
    stoppable: bool
    """An orderly end can disarm it."""

    def pet(self) -> None: ...

    def close(self) -> None:
        """Let go of it: one that still works stays armed."""
        ...

    def disarm(self) -> None:
        """Orderly end. One that is not stoppable goes on, and resets the machine unless somebody else pets it."""
        ...


class LinuxDevice:
    """``/dev/watchdog``: armed from the moment it is opened, and when this process dies too."""

    def __init__(self, settings: Watchdog) -> None:
        self._fd = os.open(settings.device, os.O_WRONLY | os.O_CLOEXEC)
        try:
            info = fcntl.ioctl(self._fd, _GETSUPPORT, bytes(_INFO.size))
            granted = fcntl.ioctl(self._fd, _SETTIMEOUT, struct.pack("i", settings.timeout))
        except OSError:
            self.disarm()
            raise
        self.timeout = float(struct.unpack("i", granted)[0])
        self.stoppable = bool(_INFO.unpack(info)[0] & _MAGICCLOSE) and not _no_way_out(settings.device)

    def pet(self) -> None:
        fcntl.ioctl(self._fd, _KEEPALIVE, 0)

    def close(self) -> None:
        os.close(self._fd)

    def disarm(self) -> None:
        try:
            os.write(self._fd, b"V")  # the magic close: without it, closing leaves the watchdog running
        finally:
            os.close(self._fd)


def _no_way_out(device: Path) -> bool:
    """Was the driver told never to stop?"""
    name = device.name if device.name != "watchdog" else "watchdog0"
    try:
        return Path("/sys/class/watchdog", name, "nowayout").read_text().strip() == "1"
    except OSError:
        return False


class WatchdogKeeper:
    """Arms the watchdog, pets it, and says how it stands. ``held`` tells whether anything of a group may be here,
    ``fencing`` whether something is being given up."""

    def __init__(
        self,
        settings: Watchdog,
        loop: Loop,
        late: float,
        open: Callable[[Watchdog], Device] = LinuxDevice,
    ) -> None:
        self.held: Callable[[], bool] = lambda: False
        self.fencing: Callable[[], bool] = lambda: False
        self.lost: Callable[[str], None] = lambda why: None
        """It is required and not there: nothing may be held."""
        self.skipped = 0
        """Pets left out because the guard woke too late."""
        self._settings, self._loop, self._late, self._open = settings, loop, late, open
        self._device: Device | None = None
        self._missing = ""

    @property
    def name(self) -> str:
        """For status and for the leader: ``watchdog 10s`` when it is armed, else ``none``."""
        if self._device is None:
            return "none"
        return f"{self._settings.device.name} {self._device.timeout:g}s"

    @property
    def timeout(self) -> float:
        """Seconds; 0: not armed."""
        return 0.0 if self._device is None else self._device.timeout

    @property
    def missing(self) -> str:
        """Why it is not armed though node.yaml asks for it."""
        return self._missing

    @property
    def refusal(self) -> str:
        """Why nothing may be held here; empty: it may."""
        if self._settings.mode != "required" or not self._missing:
            return ""
        return f"watchdog required: {self._missing}"

    def start(self) -> None:
        """Arm it, and go on from there."""
        if self._settings.mode != "off":
            self._arm()
            self._loop.at(self._loop.now() + TURN, self._turn)

    def granted(self) -> None:
        """A fresh grant covers all that is held."""
        if not self.fencing():
            self._pet()

    def stop(self) -> str:
        """Orderly end of the guard: disarm it if nothing is held. Returns what to say about it; "" for nothing."""
        device, self._device = self._device, None
        if device is None:
            return ""
        if self.held() or self.fencing():
            return (
                f"the watchdog stays armed, for something is held: it resets this machine within {device.timeout:g} s"
            )
        with suppress(OSError):
            device.disarm()
        if not device.stoppable:
            return f"the watchdog cannot be disarmed: it resets this machine within {device.timeout:g} s"
        return ""

    def _turn(self) -> None:
        if self._device is None:
            self._arm()
        elif not self.held() and not self.fencing():
            self._pet()
        pause = TURN if self._device is not None else OPEN_AGAIN
        self._loop.at(self._loop.now() + pause, self._turn)

    def _arm(self) -> None:
        device = self._settings.device
        try:
            self._device = self._open(self._settings)
        except OSError as e:
            hint = ": another program has it" if e.errno == errno.EBUSY else ""
            self._gone(f"{device}: {e.strerror or e}{hint}")
            return
        self._missing = ""

    def _pet(self) -> None:
        if self._device is None:
            return
        if self._loop.lag.last > self._late:
            self.skipped += 1
            return
        try:
            self._device.pet()
        except OSError as e:
            device, self._device = self._device, None
            with suppress(OSError):
                device.close()  # else it would be busy for ever
            self._gone(f"{self._settings.device}: {e.strerror or e}")

    def _gone(self, why: str) -> None:
        self._missing = why
        if self.refusal:
            self.lost(self.refusal)
