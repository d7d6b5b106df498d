"""The hardware (or softdog) watchdog: resets the machine when the guard no longer pets it. Optional.

Petted only right after a fresh grant, so that a machine whose guard is dead, frozen or cut off is reset.
Interface: Documentation/watchdog/watchdog-api.rst.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Protocol

WDIOC_SETTIMEOUT, WDIOC_KEEPALIVE = 0xC0045706, 0x80045705


class Watchdog(Protocol):
    """``name`` for status; ``timeout`` in seconds, 0 when there is none."""

    name: str
    timeout: float

    def pet(self) -> None:
        """A fresh grant has come. Raises ``OSError``."""
        ...

    def disarm(self) -> None:
        """Orderly stop with nothing held."""
        ...


class NoWatchdog:
    """None is configured."""

    name, timeout = "none", 0.0

    def pet(self) -> None:
        """Nothing to pet."""

    def disarm(self) -> None:
        """Nothing to disarm."""


class LinuxWatchdog:
    """``/dev/watchdog``: armed from the moment it is opened."""

    def __init__(self, device: Path, timeout: int) -> None:
        self._fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        granted = fcntl.ioctl(self._fd, WDIOC_SETTIMEOUT, struct.pack("i", timeout))
        self.timeout = float(struct.unpack("i", granted)[0])
        self.name = f"{device.name} {self.timeout:g}s"

    def pet(self) -> None:
        fcntl.ioctl(self._fd, WDIOC_KEEPALIVE, 0)

    def disarm(self) -> None:
        os.write(self._fd, b"V")  # "magic close": without it, closing resets the machine
        os.close(self._fd)
