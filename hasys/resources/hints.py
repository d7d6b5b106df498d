"""Waits until the kernel may have something new to say about addresses and links.

It blocks, in a thread: an event loop that waits with a deadline, looks and waits again wakes a dozen times as often.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading

from hasys.resources.fingerprint import Fingerprint

LOOK = 0.8
"""Seconds between looks when nothing is heard: below the 1 s within which drift must be repaired."""
LOOKS = 10
"""Quiet looks after which a wait ends: who waits then knows that the kernel answers."""
LINK_LOOK = 40
"""Links change rarely and their dump is the expensive one: due each this many quiet looks, and after each event."""
RTMGRP = 0x1 | 0x10 | 0x100
"""Multicast groups LINK, IPV4_IFADDR and IPV6_IFADDR (linux/rtnetlink.h)."""


class Hints:
    """Of the network namespace that this process lives in. What the kernel says is not parsed: it is a hint, and a
    lost message (a full buffer) hints just as well."""

    def __init__(self) -> None:
        self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._events.bind((0, RTMGRP))
        self._over = os.eventfd(0)
        self._poll = select.poll()
        for descriptor in (self._events.fileno(), self._over):
            self._poll.register(descriptor, select.POLLIN)
        self._fingerprint = Fingerprint()
        self._waiting = threading.Lock()
        self._quiet = 0
        self._closed = False

    def wait(self) -> bool | None:
        """Block until addresses may be others than when they were last said to be; True: links too; None: nothing in
        :data:`LOOKS` looks, or another thread called :meth:`close`. Raises ``OSError``."""
        with self._waiting:
            for _ in range(LOOKS):
                if self._closed:
                    break
                heard = self._poll.poll(LOOK * 1000)
                self._quiet = 0 if heard else self._quiet + 1
                if heard:
                    self._drain()
                if self._quiet % LINK_LOOK == 0:
                    return True
                if self._fingerprint.changed():
                    return False
            return None

    def close(self) -> None:
        """End a wait and give the sockets back."""
        self._closed = True
        os.eventfd_write(self._over, 1)
        with self._waiting:
            self._events.close()
            self._fingerprint.close()
            os.close(self._over)

    def _drain(self) -> None:
        while True:
            try:
                self._events.recv(65536)
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
