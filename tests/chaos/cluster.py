"""Three real store processes on loopback addresses, which see each other, and are seen, as the test likes.

Every node gets its own view: the addresses at which it finds the others may be those of proxies.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from hasys.api.client import Client, Context
from hasys.config import API_PORT, LEASE_PORT, RAFT_PORT
from hasys.lease.wire import derive_key
from hasys.model.errors import TimedOut, Unavailable
from tests.certs import Authority, Files, issue, make_ca
from tests.chaos.zygote import Process, Zygote

NAMES = ("n1", "n2", "n3")
CLIENT = "client"
CLUSTER = "chaos"


def subnet() -> str:
    """Three bytes of 127/8 that no other run uses at the same time."""
    return f"127.{secrets.choice(range(96, 120))}.{secrets.randbelow(250) + 1}"


class Cluster:
    """Writes what the nodes need; starts, stops and kills them. No root needed."""

    def __init__(self, folder: Path, *, network: str = "", zygote: Zygote | None = None) -> None:
        self.folder = folder
        self.network = network or subnet()
        self.views: dict[str, dict[str, str]] = {}
        """By viewer (a node, or the client): at which address it finds each node, where that is not the node's own."""
        self._zygote = zygote
        self._processes: dict[str, Process] = {}
        self._cluster_id = secrets.token_hex(8)
        self._authority: Authority = make_ca(self._cluster_id)
        self._lease_secret = secrets.token_bytes(32)
        self._admin: Files | None = None
        self.data_dirs: Mapping[str, Path] = {}
        """Where a node's data lives, when not in its folder."""

    def address(self, name: str) -> str:
        """Where the node really listens."""
        return f"{self.network}.{NAMES.index(name) + 1}"

    def write(self) -> None:
        """Certificates, secrets and node.yaml of every node."""
        self._admin = issue(self._authority, self.folder / CLIENT, "admin", ou="admin")
        for name in NAMES:
            self._write_node(name)

    def _write_node(self, name: str) -> None:
        folder = self.folder / name
        seen_at = {self.address(name), *(view[name] for view in self.views.values() if name in view)}
        issue(self._authority, folder, name, ips=tuple(sorted(seen_at)))
        for file, secret in (
            ("lease.secret", self._lease_secret), ("node.secret", derive_key(self._lease_secret, name)),
        ):  # fmt: skip
            (folder / file).touch(mode=0o600)
            (folder / file).write_text(secret.hex())
        view = self.views.get(name, {})
        members = [
            {"name": n, "role": "Voter", "addresses": [view.get(n, self.address(n))],
             "apiPort": API_PORT, "raftPort": RAFT_PORT, "leasePort": LEASE_PORT}
            for n in NAMES
        ]  # fmt: skip
        config = {
            "cluster": CLUSTER, "clusterId": self._cluster_id, "node": name, "members": members,
            "dataDir": str(self.data_dirs.get(name, folder / "data")), "runDir": str(folder / "run"),
        }  # fmt: skip
        (folder / "node.yaml").write_text(yaml.safe_dump(config))

    def context(self, names: Iterable[str] = NAMES) -> Context:
        """How an administrator reaches these nodes."""
        assert self._admin is not None, "write() first"
        view = self.views.get(CLIENT, {})
        servers = tuple(f"{view.get(name, self.address(name))}:{API_PORT}" for name in names)
        return Context(CLUSTER, servers, self._admin.ca, self._admin.certificate, self._admin.key)

    # ------------------------------------------------------------ processes
    @property
    def running(self) -> list[str]:
        """Nodes whose process was started and has not ended."""
        return [name for name, process in self._processes.items() if process.poll() is None]

    def start(self, names: Iterable[str] = NAMES) -> None:
        """Start the stores that do not run."""
        for name in sorted(set(names) - set(self.running)):
            config, log = self.folder / name / "node.yaml", self.folder / f"{name}.log"
            self._processes[name] = self._zygote.start(config, log) if self._zygote else _spawn(config, log)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a node's store."""
        self._processes[name].send_signal(number)

    def kill(self, names: Iterable[str]) -> None:
        """SIGKILL, to all of them before waiting for any."""
        processes = [self._processes[name] for name in names if name in self._processes]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()

    def close(self) -> None:
        """Nothing is left running."""
        self.kill(tuple(self._processes))

    async def ready(self, timeout: float) -> None:
        """Wait until it serves and knows its nodes. Raises ``hasys.model.errors`` when it does not."""
        until = time.monotonic() + timeout
        async with Client(self.context()) as client:
            while True:
                try:
                    nodes = await client.list("Node", timeout=1.0)
                    if len(nodes.objects) == len(NAMES):
                        return
                except (Unavailable, TimedOut):
                    if time.monotonic() > until:
                        raise
                await asyncio.sleep(0.05)

    def log(self, name: str) -> str:
        """What the node's store wrote so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")


def _spawn(config: Path, log: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-P", "-m", "hasys", "store", "run", "--config", str(config)]
    with log.open("ab") as said:
        return subprocess.Popen(
            argv, stdout=said, stderr=said, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.getcwd()}
        )
