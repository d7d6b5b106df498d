"""The loads. Each is a context manager that begins one on a settled stage and ends it; ``alive`` raises when the load
itself has died, for a load that is over proves nothing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hasys.lab.machine import Machine
from hasys.lab.shell import until
from tests.lab.endurance import writer
from tests.lab.stage import GROUP, Stage

MEMORY_CONTROLLER = Path("/sys/fs/cgroup/memory")
"""cgroup v1; where it is missing there is no memory load."""
HOUR = 3600
TAKEN = 256 << 20
"""Bytes that the load holds."""
FREE = 48 << 20
"""Bytes that all processes of all machines have left for the page cache."""

BUSY = "while True: pass"
FSYNC = """
import os, sys
f = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
while True:
    os.pwrite(f, os.urandom(1 << 18), 0)
    os.fsync(f)
"""
SLEEPERS = """
import os, signal, sys
for _ in range(int(sys.argv[1])):
    if not os.fork():
        signal.pause()
print("there", flush=True)
signal.pause()
"""
HOG = """
import sys
held = b"x" * int(sys.argv[1])
print("there", flush=True)
while True:
    with open(sys.argv[2], "rb") as f:
        while f.read(1 << 20):
            pass
"""
"""Takes memory, then reads a file larger than what is left over and over: whatever can be thrown out of memory (file
pages: programs, libraries) is."""


class LoadDied(Exception):
    """The load is over before its time."""


@dataclass
class Site:
    """Where the load strikes."""

    stage: Stage
    active: str
    box: Path | None
    """The memory cgroup of everything; None: there is no controller."""

    @property
    def machine(self) -> Machine:
        return self.stage.machine(self.active)


Alive = Callable[[], None]
Load = Callable[[Site], AbstractContextManager[Alive]]


@contextmanager
def processors(site: Site) -> Iterator[Alive]:
    """Eight busy processes for each processor."""
    count = 8 * (os.cpu_count() or 1)
    with _running(site.machine, [[sys.executable, "-c", BUSY]] * count) as alive:
        yield alive


@contextmanager
def disk(site: Site) -> Iterator[Alive]:
    """Four writers that sync all the time, beside the journal of the Active."""
    files = [site.machine.disk / f"scratch-{number}" for number in range(4)]
    with _running(site.machine, [[sys.executable, "-c", FSYNC, str(file)] for file in files]) as alive:
        yield alive
    for file in files:
        file.unlink()


@contextmanager
def memory(site: Site) -> Iterator[Alive]:
    """Memory of all machines is full, without swap, and file pages are thrown out all the time.

    The file's pages are dropped once, so that they are charged to who reads them, inside.
    """
    box, big = site.box, site.machine.disk / "big"
    assert box is not None
    limit, usage = box / "memory.limit_in_bytes", box / "memory.usage_in_bytes"
    with big.open("wb") as file:
        for _ in range(256):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    limit.write_text(str(int(usage.read_text()) + TAKEN + FREE))
    enter(box)
    try:
        with _running(site.machine, [[sys.executable, "-c", HOG, str(TAKEN), str(big)]], said=True) as alive:
            leave(box)
            yield alive
    finally:
        leave(box)
        limit.write_text("-1")
        big.unlink()


@contextmanager
def store(site: Site) -> Iterator[Alive]:
    """A store of 100,000 objects that is written to all the time, so that it compacts."""
    cluster = site.stage.cluster
    command = [sys.executable, str(Path(writer.__file__)), str(cluster.client_settings), "100000"]
    with _running(site.stage.lab.client, [command], said=True) as alive:
        yield alive


@contextmanager
def scans(site: Site) -> Iterator[Alive]:
    """Ten thousand processes, through which monitors look every second."""
    monitors = [
        {
            "apiVersion": "hasys/v1",
            "kind": "Monitor",
            "metadata": {"name": f"look-{number}", "group": GROUP},
            "spec": {"process": {"patterns": [f"*no-such-program-{number}*"]}, "interval": "1s", "action": "Alert"},
        }
        for number in range(4)
    ]
    manifest = "\n---\n".join(json.dumps(m) for m in monitors)
    site.stage.cluster.apply(manifest)
    try:
        with _running(site.machine, [[sys.executable, "-S", "-E", "-c", SLEEPERS, "10000"]], said=True) as alive:
            yield alive
    finally:
        site.stage.cluster.hasys("delete", "-f", "-", feed=manifest)


@contextmanager
def clock(site: Site) -> Iterator[Alive]:
    """The wall clocks of all machines jump by hours, each at another moment, both ways."""
    members, drawn = list(site.stage.cluster.members), random.Random(1)

    def jump() -> None:
        name = drawn.choice(members)
        by = drawn.randint(-5 * HOUR, 5 * HOUR)
        (site.stage.machine(name).root / "run/clock").write_text(f"{by}\n")

    try:
        yield jump
    finally:
        for name in members:
            (site.stage.machine(name).root / "run/clock").write_text("0\n")


LOADS: dict[str, Load] = {
    "processors": processors,
    "memory": memory,
    "disk": disk,
    "store": store,
    "scans": scans,
    "clock": clock,
}


@contextmanager
def _running(machine: Machine, commands: list[list[str]], *, said: bool = False) -> Iterator[Alive]:
    """Programs inside for as long as the block; ``said``: the first is there when it has printed a line."""
    output = subprocess.PIPE if said else subprocess.DEVNULL
    before = set(machine.processes())
    started = [machine.spawn(*command, output=output) for command in commands]

    def alive() -> None:
        for process, command in zip(started, commands, strict=True):
            if process.poll() is not None:
                raise LoadDied(f"{' '.join(command)[:60]} ended with {process.returncode}")

    try:
        if said:
            assert started[0].stdout is not None
            if not started[0].stdout.readline():
                raise LoadDied(f"{' '.join(commands[0])[:60]} did not begin")
        yield alive
    finally:
        words = commands[0][-1] if said else commands[0][2]
        _end(machine, words, before)
        for process in started:
            process.wait()


def _end(machine: Machine, word: str, before: set[int]) -> None:
    """SIGKILL what began in the block and has the word in its command line, until none is left."""

    def left() -> bool:
        machine.kill_all(word)
        return not any(pid not in before for pid in machine.processes(word))

    until(left, 60.0, f"{word[:20]} to be gone")


@contextmanager
def memory_box() -> Iterator[Path | None]:
    """A memory cgroup that this process and all it starts from now on are charged to."""
    if not MEMORY_CONTROLLER.is_dir():
        yield None
        return
    box = MEMORY_CONTROLLER / f"hasys-endurance-{os.getpid()}"
    box.mkdir()
    enter(box)
    try:
        yield box
    finally:
        leave(box)
        until(lambda: _removed(box), 30.0, f"{box} to be empty")


def enter(box: Path) -> None:
    """What this process starts from now on is charged to the box."""
    (box / "cgroup.procs").write_text(str(os.getpid()))


def leave(box: Path | None) -> None:
    """The judge itself is not to be short of memory."""
    if box is not None:
        (MEMORY_CONTROLLER / "cgroup.procs").write_text(str(os.getpid()))


def _removed(box: Path) -> bool:
    for pid in (box / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            (MEMORY_CONTROLLER / "cgroup.procs").write_text(pid)
    try:
        box.rmdir()
    except OSError:
        return False
    return True
