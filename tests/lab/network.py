"""A network namespace of the test's own, entered by the thread that runs it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000


def ip(*words: str) -> str:
    """Run ip(8) and return what it printed."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextmanager
def own_network() -> Iterator[None]:
    """A namespace with eth0 (10.9.0.1/24), whose cable ends at the link ``far``. Threads and processes made from here
    on live in it too."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        ip("link", "add", "eth0", "type", "veth", "peer", "name", "far")
        for link in ("lo", "eth0", "far"):
            ip("link", "set", link, "up")
        ip("address", "add", "10.9.0.1/24", "dev", "eth0")
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)
