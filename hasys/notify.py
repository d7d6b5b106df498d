"""What a process tells whoever started it: ready, still alive, stopping. The protocol of systemd's ``sd_notify(3)``.

A datagram to the socket that ``NOTIFY_SOCKET`` names, or nothing at all where nobody listens. It never blocks and never
fails: a message that cannot be delivered now is not worth more than the work that waits behind it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping

READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"

_PARTS = 3
"""Signs of life in the time after which the listener counts us as dead: two may be late."""
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The listener of this process, if there is one."""

    def __init__(self, address: str = "", period: float = 0.0) -> None:
        """``period``: seconds between signs of life; 0: nobody waits for them."""
        self.period = period
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:  # not connected: the listener may be replaced by another one at the same path
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """What the variables say. They are removed: what this process starts must not speak for it."""
        address, period, pid = (environment.pop(name, "") for name in _VARIABLES)
        for_us = not pid or pid == str(os.getpid())
        return cls(address, int(period) / 1e6 / _PARTS if for_us and period.isdecimal() else 0.0)

    def say(self, word: str) -> None:
        """Send it, if somebody listens and has room."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(word.encode(), socket.MSG_DONTWAIT, self._address)

    def close(self) -> None:
        """No more is said."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
