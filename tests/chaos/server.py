"""The Toxiproxy server that tests use: the real one if ``TOXIPROXY_ADDRESS`` (HOST:PORT) names it, else a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESS = "TOXIPROXY_ADDRESS"


@contextmanager
def toxiproxy_server() -> Iterator[str]:
    """Its address. A stand-in is a process of its own, which ends with the context."""
    if given := os.environ.get(ADDRESS):
        yield given
        return
    argv = [sys.executable, "-m", "tests.chaos.standin", "127.0.0.1:0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
