"""A cluster of real store processes on loopback, made and changed by the command line alone."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import Result

from tests.chaos.cluster import subnet
from tests.chaos.zygote import Process, Zygote
from tests.unit.cli.conftest import Run

STORES = ("n1", "n2", "w")
PATIENCE = 20.0
"""Seconds that any change may take before it counts as stuck."""


@dataclass
class RealCluster:
    """``n1`` and ``n2`` are nodes, ``w`` a witness; later members get the next addresses."""

    hasys: Run
    folder: Path
    zygote: Zygote
    network: str = field(default_factory=subnet)
    processes: dict[str, Process] = field(default_factory=dict)
    names: list[str] = field(default_factory=lambda: list(STORES))

    def address(self, name: str) -> str:
        """Where that member is, or will be."""
        if name not in self.names:
            self.names.append(name)
        return f"{self.network}.{self.names.index(name) + 1}"

    def init(self, stores: Sequence[str] = STORES) -> None:
        """Folders as ``hasys init`` writes them, all started, the first election over."""
        options = [w for n in stores for w in ("--witness" if n == "w" else "--node", f"{n}={self.address(n)}")]
        self.ok("init", "--cluster", "real", *options, "--out", self.folder)
        self.start(stores)
        self.until(lambda: self.states().get("n1") in ("Leader", "Follower"), "a leader")

    def start(self, names: Iterable[str]) -> None:
        """Start these stores."""
        for name in names:
            config = self.folder / name / "node.yaml"
            if "runDir" not in config.read_text():
                with config.open("a") as settings:
                    settings.write(f"runDir: {self.folder / name / 'run'}\n")
            self.processes[name] = self.zygote.start(config, self.folder / f"{name}.log")

    def kill(self, *names: str) -> None:
        """SIGKILL, all before waiting for any."""
        dying = [self.processes.pop(name) for name in names]
        for process in dying:
            process.kill()
        for process in dying:
            process.wait()

    def wipe(self, name: str) -> None:
        """The disk of a stopped member is lost."""
        shutil.rmtree(self.folder / name / "data")

    def close(self) -> None:
        self.kill(*self.processes)

    def run(self, *words: object, text: str | None = None) -> Result:
        """One command as administrator."""
        return self.hasys("--context", self.folder / "client" / "client.yaml", *words, text=text)

    def ok(self, *words: object, text: str | None = None) -> str:
        """One that must succeed; its output."""
        result = self.hasys(*words) if words[0] == "init" else self.run(*words, text=text)
        assert result.exit_code == 0, result.output
        return result.stdout

    def refused(self, *words: object) -> str:
        """One that must be refused with exit status 1 and one line; the line."""
        result = self.run(*words)
        assert result.exit_code == 1, result.output
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr

    def add(self, name: str, *words: object) -> tuple[object, ...]:
        """The words that add this member."""
        return ("member", "add", name, *self.where(name), *words)

    def where(self, name: str) -> tuple[object, ...]:
        """The options that say where a newcomer is and who vouches for it."""
        return ("--address", self.address(name), "--ca", self.folder / "ca", "--out", self.folder)

    def states(self) -> dict[str, str]:
        """``hasys member list``; empty while nobody answers."""
        result = self.run("member", "list", "-o", "json")
        return {m["name"]: m["state"] for m in json.loads(result.stdout)["members"]} if result.exit_code == 0 else {}

    def leader(self) -> str:
        return next(name for name, state in self.states().items() if state == "Leader")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Ask again until it holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {PATIENCE:g} s: {what}; now {self.states()}\n{self.logs()}")
            time.sleep(0.02)

    def until_votes(self, name: str) -> None:
        self.until(lambda: self.states().get(name) in ("Leader", "Follower"), f"{name} votes")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def logs(self) -> str:
        return "\n".join(f"--- {file.name}\n{file.read_text()[-1500:]}" for file in sorted(self.folder.glob("*.log")))
