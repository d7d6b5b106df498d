"""A cluster of three real store processes on loopback addresses, for benchmarks: no root, no namespaces."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("n1", "n2", "w")
READY = 15.0
"""Seconds within which a fresh cluster must answer."""
SETTLED = 120.0
"""Seconds within which each store must have told about its memory, on a busy computer too."""
INSIDE = Path(__file__).with_name("inside.py")


def _hasys(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "hasys", *words]


class Loopback:
    """``with Loopback() as cluster``: three ``hasys store run`` processes; ``cluster.context`` is their client.yaml."""

    def __init__(self, profile_to: Path | None = None, *, observers: int = 0, inside: bool = False) -> None:
        self.names = (*NAMES, *(f"o{i}" for i in range(1, observers + 1)))
        """Members; stores run for :data:`NAMES` alone."""
        self.folder = self._folder = Path(tempfile.mkdtemp(prefix="hasys-bench."))
        self._profile_to = profile_to
        """When given, each process runs under cProfile and writes ``NAME.prof`` there at its end."""
        self._inside = inside
        """Each process tells what its memory consists of: see :meth:`census`."""
        self._subnet = f"127.77.{secrets.randbelow(256)}"
        """A random one: several clusters may run beside each other."""
        self.context = self._folder / "client" / "client.yaml"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        roles = {name: "witness" if name == "w" else "node" if name in NAMES else "observer" for name in self.names}
        members = [f"--{roles[name]}={name}={self._subnet}.{i}" for i, name in enumerate(self.names, 1)]
        out = ["--out", str(self._folder / "made")]
        subprocess.run(_hasys("init", "--cluster", "bench", *members, *out), check=True, capture_output=True)
        for item in (self._folder / "made").iterdir():
            item.rename(self._folder / item.name)
        for name in self.names:
            with (self._folder / name / "node.yaml").open("a") as f:
                f.write(f"runDir: {self._folder}/{name}/run\ndataDir: {self._folder}/{name}/data\n")
        for name in NAMES:
            self.boot(name)
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def boot(self, name: str) -> None:
        """Start this member, which does not run."""
        self.processes[name] = self._start(name)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        config = self._folder / name / "node.yaml"
        argv = _hasys("store", "run", "--config", str(config))
        if self._profile_to is not None:
            argv[2:3] = ["-m", "cProfile", "-o", str(self._profile_to / f"{name}.prof"), "-m"]
        if self._inside:
            argv[2:4] = [str(INSIDE), str(self._folder / f"{name}.inside")]
        with (self._folder / f"{name}.log").open("wb") as said:
            return subprocess.Popen(argv, stderr=said, stdout=said, env={**os.environ, "HASYS_LOG": "WARNING"})

    def _wait(self) -> None:
        until = time.monotonic() + READY
        argv = _hasys("--context", str(self.context), "get", "cluster", "-o", "json")
        while subprocess.run(argv, capture_output=True, check=False).returncode:
            if time.monotonic() > until:
                logs = " | ".join((self._folder / f"{name}.log").read_text()[-200:] for name in NAMES)
                raise RuntimeError(f"the cluster on {self._subnet}.0 did not answer within {READY:g} s: {logs}")

    def cpu(self) -> dict[str, float]:
        """Processor seconds used by each store so far."""
        ticks = os.sysconf("SC_CLK_TCK")
        used = {}
        for name, process in self.processes.items():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
            used[name] = (int(fields[11]) + int(fields[12])) / ticks
        return used

    def ask(self, *, settle: bool = False) -> None:
        """Let each process write down what its memory consists of (``bench/inside.py``)."""
        for process in self.processes.values():
            process.send_signal(signal.SIGUSR2 if settle else signal.SIGUSR1)

    def settle(self) -> None:
        """The same, and wait: each frees first what it can, in steps that are labelled."""
        self.ask(settle=True)
        until = time.monotonic() + SETTLED
        while any(not rows or rows[-1]["label"] != "trimmed" for rows in self.census().values()):
            if time.monotonic() > until:
                raise RuntimeError("a store did not tell what its memory consists of")
            time.sleep(0.1)

    def census(self) -> dict[str, list[dict[str, Any]]]:
        """What each process has written down so far."""
        found = {}
        for name in self.processes:
            file = self._folder / f"{name}.inside"
            lines = file.read_text().splitlines(keepends=True) if file.exists() else []
            found[name] = [json.loads(line) for line in lines if line.endswith("\n")]
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
