"""Store processes that start in milliseconds: forked from one that has imported everything and done nothing yet.

A run of a thousand kills would otherwise spend its time importing modules. ``python -m tests.chaos.zygote`` reads
``CONFIG<TAB>LOG`` lines and answers each with the pid of the store that it forked.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent dies. Nothing stays behind when a run is ended."""


class Process(Protocol):
    """What of a process is used here; ``subprocess.Popen`` has it."""

    def poll(self) -> int | None: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


class Forked:
    """A process that is the zygote's child, not ours. Its exit status is not known: 0 stands for any."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def __del__(self) -> None:
        os.close(self._fd)

    def _ended(self, timeout: float | None) -> bool:
        return bool(select.select([self._fd], [], [], timeout)[0])

    def poll(self) -> int | None:
        """None while it runs."""
        return 0 if self._ended(0) else None

    def send_signal(self, sig: int) -> None:
        """Never hits another process that got the same pid."""
        if not self._ended(0):
            signal.pidfd_send_signal(self._fd, signal.Signals(sig))

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Until it has ended."""
        self._ended(None)
        return 0


class Zygote:
    """``start`` forks a store."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", "tests.chaos.zygote"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, config: Path, log: Path) -> Forked:
        """A store with this node.yaml; what it writes is appended to ``log``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(config, log, sep="\t", file=self._process.stdin, flush=True)
        return Forked(int(self._process.stdout.readline()))

    def close(self) -> None:
        """What it started ends with it."""
        self._process.communicate()


def _store(config: Path, log: Path) -> None:
    """In the child: what ``hasys store run`` does."""
    from hasys.cli.run import store_run

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for fd, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(fd, target)
    store_run.main(["--config", str(config)])


def main() -> None:
    """Fork a store per line, until the end of input."""
    import hasys.store.main  # noqa: F401  (what every child would import)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    for line in iter(sys.stdin.readline, ""):
        config, log = (Path(part) for part in line.rstrip("\n").split("\t"))
        pid = os.fork()
        if pid == 0:
            _store(config, log)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
