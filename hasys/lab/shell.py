"""Running other programs, and waiting with a deadline and a name for what is awaited."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


class LabError(Exception):
    """The lab itself failed (not the product in it): one line, with what the failed program said."""


def run(*argv: str, feed: str | None = None, timeout: float = 30.0) -> str:
    """Run a program and return its standard output. Raises :class:`LabError` when it fails or takes too long."""
    try:
        done = subprocess.run(argv, input=feed, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)}: no end after {timeout:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().replace("\n", "; ")
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {said}")
    return done.stdout


def until(condition: Callable[[], T | None], timeout: float, what: str, every: float = 0.02) -> T:
    """Wait until ``condition`` returns something true and return that; ``timeout`` and ``every`` in seconds.

    Raises :class:`TimeoutError` naming ``what`` was awaited.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout:g} s still waiting for {what}")
        time.sleep(every)


def in_netns(name: str, function: Callable[[], T]) -> T:
    """Call ``function`` in a thread that entered the network namespace ``name``.

    A socket keeps the namespace it was made in, so one made here serves any thread afterwards.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            enter_netns(name)
            result.append(function())
        except BaseException as e:  # handed to the caller's thread below
            failure.append(e)

    thread = threading.Thread(target=body, name=f"netns-{name}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def enter_netns(name: str) -> None:
    """Move the calling thread into a named network namespace. Raises :class:`OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(Path("/run/netns") / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, _CLONE_NEWNET):
            errno = ctypes.get_errno()
            raise OSError(errno, f"setns {name}: {os.strerror(errno)}")
    finally:
        os.close(fd)
