"""What monitors cost: fifty of every kind, at their default interval, on a machine with a thousand more processes.

Runs the watchers as the agent does, on the real kernel, and tells the processor time of this process and of the
commands that it runs, in percent of one core. Fails when it is 3 % or more. Needs root (cgroups, ping).
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anyio

from hasys.monitors.catalogue import Catalogue, complete, pace_of, settings_of
from hasys.monitors.evaluation import Verdict
from hasys.monitors.port import Link, Standing, Surroundings
from hasys.monitors.watcher import Outside, Watcher
from hasys.reconciler.commands import Commands
from hasys.resources.cgroup import Cgroup, base_of
from hasys.v1 import monitors_pb2 as mpb

LIMIT = 3.0
"""Percent of one core."""
BYSTANDERS = 1000


class Machine:
    """Everything is well."""

    def link(self, name: str) -> Link | None:
        return Link(True, True)

    def holder(self, address: str) -> str:
        return "eth0"

    def addresses(self, group: str) -> Mapping[str, str]:
        return {"ip": "10.0.0.1"}

    def replicated(self, group: str) -> Mapping[str, tuple[str, str]]:
        return {}

    def standing(self, group: str) -> Standing | None:
        return Standing("Running", "n1")

    async def own(self) -> Mapping[str, str]:
        return {"Guard": "", "Store": ""}


def fifty(web: int) -> Iterator[mpb.MonitorSpec]:
    """A mix as a busy server has it: half of them about processes."""
    for number in range(15):
        yield mpb.MonitorSpec(process=mpb.ProcessMonitor(names=["sleep", f"none-{number}"], need=mpb.Any))
        yield mpb.MonitorSpec(process=mpb.ProcessMonitor(patterns=["*sleep 86400*"]))
    for _ in range(3):
        yield mpb.MonitorSpec(process_count=mpb.ProcessCountMonitor(name="sleep", minimum=1))
        yield mpb.MonitorSpec(tcp=mpb.TcpMonitor(port=web))
        yield mpb.MonitorSpec(mount=mpb.MountMonitor(paths=["/"], read_only_allowed=True))
    for _ in range(2):
        yield mpb.MonitorSpec(http=mpb.HttpMonitor(url=f"http://127.0.0.1:{web}/"))
        yield mpb.MonitorSpec(ping=mpb.PingMonitor(addresses=["127.0.0.1"]))
        yield mpb.MonitorSpec(script=mpb.ScriptMonitor(command=["true"]))
    yield mpb.MonitorSpec(volume=mpb.VolumeMonitor(path="/", used_limit=100))
    yield mpb.MonitorSpec(cpu=mpb.LoadMonitor(limit=100))
    yield mpb.MonitorSpec(memory=mpb.LoadMonitor(limit=100))
    yield mpb.MonitorSpec(traffic=mpb.TrafficMonitor(interface="lo", minimum=0))
    yield mpb.MonitorSpec(network=mpb.NetworkMonitor(interfaces=["eth0"]))


@contextmanager
def bystanders() -> Iterator[int]:
    """Processes that only exist, and a web server; its port."""
    children = [subprocess.Popen(["sleep", "86400"]) for _ in range(BYSTANDERS)]
    port = 20_000 + os.getpid() % 10_000
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", "/proc/net"]
    children.append(subprocess.Popen(command, stdout=quiet, stderr=quiet))
    try:
        yield port
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()


def spent() -> tuple[float, float]:
    """Seconds of processor time: of this process, and of the commands that it ran."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


async def measure(seconds: float, web: int, base: Cgroup) -> tuple[float, float, int, int]:
    """Percent of one core for ourselves and for commands; monitors, and how many are well."""
    catalogue = Catalogue()
    watchers = []
    for number, spec in enumerate(fifty(web)):
        spec = complete(spec)
        commands = Commands(Cgroup(base.path / f"m{number}"))
        check = catalogue.make(spec, Surroundings("web", f"m{number}", commands, Machine(), "n1"))
        outside = Outside(_ignore, lambda reason, cause: None, lambda: None, lambda value, unit: None, _nothing)
        watchers.append(Watcher(check, settings_of(spec), pace_of(spec), outside))
    async with anyio.create_task_group() as tasks:
        for watcher in watchers:
            tasks.start_soon(watcher.run)
        await anyio.sleep(11)  # two rounds: what is read once is read
        before = spent()
        await anyio.sleep(seconds)
        after = spent()
        tasks.cancel_scope.cancel()
    own, children = (100 * (late - early) / seconds for early, late in zip(before, after, strict=True))
    return own, children, len(watchers), sum(w.verdict.state.value == "Ok" for w in watchers)


def _ignore(verdict: Verdict) -> None:
    return


async def _nothing() -> str:
    return ""


def main() -> int:
    """Exit status 1 when the limit is reached or a monitor is not well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    base = Cgroup(Path(base_of(f"bench-monitors-{os.getpid()}")))
    with bystanders() as web:
        processes = sum(name.isdecimal() for name in os.listdir("/proc"))
        own, children, monitors, well = anyio.run(measure, seconds, web, base)
    base.remove()
    print(f"{monitors} monitors ({well} well) every 5 s, {processes} processes, {seconds:g} s:")
    print(f"  {own:.2f} % of one core for the monitors, {children:.2f} % for the commands that they run")
    return 0 if own + children < LIMIT and well == monitors else 1


if __name__ == "__main__":
    raise SystemExit(main())
