"""One machine: network, process, mount, host name and cgroup namespaces around an init process.

``power_off`` is what a pulled plug is: carrier gone, every process gone in the same instant, network namespace
(addresses, nftables, neighbours) thrown away; only the disk folder stays. ``power_on`` boots the same disk with all
else new.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO

from hasys.lab.registry import Record, kill_cgroup, pids_below
from hasys.lab.shell import LabError, in_netns, run, until
from hasys.lab.switch import NETWORKS, Direction, Switch, port_name

_INIT = """
set -e
name=$1 mode=$2 log=$3; shift 3
hostname "$name"
umount -R -l /sys /run 2>/dev/null || true
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
echo "$name" > /run/hostname
[ ! -e /etc/hostname ] || mount --bind /run/hostname /etc/hostname
echo booted
exec >> "$log" 2>&1
set +e
[ "$mode" != pid1 ] || exec "$@"
while [ $# -gt 0 ] && [ ! -e /run/halt ]; do "$@"; sleep 0.2; done
while :; do sleep 3600; done
"""
"""PID 1 of a machine: private /sys, /run and cgroup tree; then the boot command, restarted as systemd would."""

_SYSCTL = {
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
}
"""Addresses of the machines themselves are usable at once; what a product adds is its own affair."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a machine is before it is switched on."""

    name: str
    host: int
    """Last part of each of its addresses: 10.77.0.<host>, 10.78.0.<host>, fd77::<host>, fd78::<host>."""
    networks: int = len(NETWORKS)
    boot: tuple[str, ...] = ()
    """Command that starts with the machine; restarted 0.2 s after it ends, unless the machine halts."""
    pid1: bool = False
    """The boot command is PID 1 itself: when it ends, so does the machine."""


@dataclass(slots=True)
class Usage:
    """What a machine's processes cost: processor seconds so far, and bytes resident now (summed over processes)."""

    cpu: float
    resident: int
    proportional: int
    """Like resident, with pages that several processes share counted once (PSS)."""


@dataclass
class Machine:
    """Handle of one machine of a lab. Made by :class:`hasys.lab.lab.Lab`."""

    spec: Spec
    record: Record
    switch: Switch
    _unshare: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _init: int = field(default=0, init=False)
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def netns(self) -> str:
        return self.record.netns(self.name)

    @property
    def cgroup(self) -> Path:
        return self.record.cgroup / self.name

    @property
    def disk(self) -> Path:
        """The folder (same path inside and outside) that survives a power loss."""
        return self.record.data / self.name

    @property
    def log(self) -> Path:
        """What the boot command wrote."""
        return self.record.data / f"{self.name}.log"

    @property
    def ports(self) -> list[str]:
        return [port_name(self.name, n) for n in range(self.spec.networks)]

    @property
    def on(self) -> bool:
        unshare = self._unshare  # another thread may pull the plug meanwhile
        return unshare is not None and unshare.poll() is None

    def address(self, network: int = 0) -> str:
        return f"10.{77 + network}.0.{self.spec.host}"

    def address6(self, network: int = 0) -> str:
        return f"fd{77 + network}::{self.spec.host}"

    def mac(self, network: int = 0) -> str:
        lab = int(self.record.id, 16)
        return f"02:68:{lab >> 8:02x}:{lab & 255:02x}:{self.spec.host:02x}:{network:02x}"

    # ------------------------------------------------------------------ power

    def power_on(self) -> None:
        """Boot: fresh namespaces, same disk. Returns when init runs (not when a product in it is ready)."""
        if self.on:
            raise LabError(f"{self.name} is on already")
        self.disk.mkdir(exist_ok=True)
        self.cgroup.mkdir()
        self._wire()
        mode = "pid1" if self.spec.pid1 else "init"
        with self.log.open("ab") as log:
            self._unshare = self._start(
                ["nsenter", f"--net=/run/netns/{self.netns}", "unshare", "--fork", "--kill-child", "--pid", "--mount",
                 "--uts", "--cgroup", "--mount-proc", "sh", "-c", _INIT, "init", self.name, mode,
                 str(self.log), *self.spec.boot],
                output=subprocess.PIPE, errors=log,
            )  # fmt: skip
            assert self._unshare.stdout
            with self._unshare.stdout as booted:
                ready = booted.readline()
            if not ready:
                raise LabError(f"{self.name} did not boot: {self.tail(5)}")
        self._init = _only_child(self._unshare.pid)

    def power_off(self) -> None:
        """Pull the plug: links down first, then every process gone, then the network namespace thrown away."""
        if self._unshare is None:
            raise LabError(f"{self.name} is off already")
        self.switch.carrier(self.ports, up=False)
        kill_cgroup(self.cgroup)
        self.reap()
        self.switch.disconnect(self.ports)
        run("ip", "netns", "del", self.netns)

    def shutdown(self, role: str, timeout: float = 30.0) -> None:
        """Orderly: SIGTERM to the process of that role, wait for its end (seconds), then the power goes off."""
        (self.root / "run/halt").touch()
        asked = self.kill(role, signal.SIGTERM)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in asked), timeout, f"{role} of {self.name} to end")
        self.power_off()

    def reap(self) -> None:
        """Collect the exit states of what ran in a machine that is gone."""
        for child in (self._unshare, *self._children):
            if child is not None:
                child.wait()
        self._unshare = None
        self._children.clear()

    def _wire(self) -> None:
        run("ip", "netns", "add", self.netns)
        in_netns(self.netns, self._sysctl)
        lines = ["link set lo up"]
        for n in range(self.spec.networks):
            self.switch.connect(self.name, n, self.netns, self.mac(n))
            lines += [
                f"link set eth{n} up",
                f"addr add {self.address(n)}/24 dev eth{n}",
                f"addr add {self.address6(n)}/64 dev eth{n} nodad",
            ]
        run("ip", "-n", self.netns, "-batch", "-", feed="\n".join(lines) + "\n")

    def _sysctl(self) -> None:
        for key, value in _SYSCTL.items():
            Path("/proc/sys", key).write_text(value)

    # -------------------------------------------------------------- processes

    @property
    def init(self) -> int:
        """Host pid of its PID 1."""
        return self._init

    @property
    def root(self) -> Path:
        """The machine's file system as seen from outside."""
        return Path(f"/proc/{self._init}/root")

    def command(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` inside, for a person or for Popen."""
        return ["nsenter", "-t", str(self._init), "--all", "--", *argv]

    def run(self, *argv: str, feed: str | None = None, timeout: float = 30.0) -> str:
        """Run a program inside, with ``feed`` as its input, and return its output. Raises :class:`LabError`."""
        return run(*self._join(self.command(*argv)), feed=feed, timeout=timeout)

    def spawn(
        self, *argv: str, output: int = subprocess.DEVNULL, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a program inside that runs until it ends, is ended, or the machine goes off."""
        child = self._start(self.command(*argv), output, pass_fds=pass_fds)
        self._children = [c for c in self._children if c.poll() is None] + [child]
        return child

    def processes(self, role: str | None = None) -> list[int]:
        """Host pids of the machine's processes of a role: ``node``, ``store``, ``guard``, ``agent`` or ``witness`` of
        hasys, or the name of any program, or a word of its command line, or how the title that a daemon gave itself
        begins (``nginx: master``). None: all but PID 1 and the lab's helpers."""
        matches = _matcher(role)
        return [pid for pid in pids_below(self.cgroup) if pid != self._init and _inside(pid) and matches(_argv(pid))]

    def kill(self, role: str, signum: int = signal.SIGKILL) -> list[int]:
        """Send a signal to every process of a role; returns their host pids. Raises :class:`LabError` if none runs."""
        pids = self.processes(role)
        if not pids:
            raise LabError(f"{self.name} runs no {role}")
        for pid in pids:
            os.kill(pid, signum)
        return pids

    def kill_all(self, *words: str) -> None:
        """SIGKILL every process inside (but PID 1) whose command line has all these words; none is fine."""
        for pid in self.processes():
            if set(words) <= set(_argv(pid)):
                os.kill(pid, signal.SIGKILL)

    def freeze(self, *roles: str) -> list[int]:
        """SIGSTOP every hasys process, or those of the roles; returns what to hand to :meth:`thaw`."""
        pids = [pid for role in roles or ("hasys",) for pid in self.processes(role)]
        if not pids:
            raise LabError(f"{self.name} runs no {' or '.join(roles) or 'hasys'}")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return pids

    @staticmethod
    def thaw(pids: Iterable[int]) -> None:
        """SIGCONT what :meth:`freeze` stopped; what died in between (fenced) is left out."""
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue

    def usage(self) -> Usage:
        """Cost of everything in the machine but its init; two readings give a load."""
        cpu = re.search(r"usage_usec (\d+)", (self.cgroup / "cpu.stat").read_text())
        if cpu is None:
            raise LabError(f"{self.cgroup}: no usage_usec in cpu.stat")
        memory = [_memory(pid) for pid in self.processes()]
        return Usage(int(cpu[1]) / 1e6, sum(r for r, _ in memory), sum(p for _, p in memory))

    def tail(self, lines: int = 20) -> str:
        """The end of the machine's log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    # ----------------------------------------------------------------- faults

    def cable(self, plugged: bool, networks: Sequence[int] | None = None) -> None:
        """Pull the cables of some networks (default: all) or plug them in again."""
        self.switch.carrier(self._ports(networks), up=plugged)

    def drop(self, direction: Direction = Direction.BOTH, networks: Sequence[int] | None = None) -> None:
        """Lose its frames silently; :meth:`Switch.heal` ends it."""
        self.switch.drop(self._ports(networks), direction)

    def _ports(self, networks: Sequence[int] | None) -> list[str]:
        return self.ports if networks is None else [port_name(self.name, n) for n in networks]

    # --------------------------------------------------------------- plumbing

    def _join(self, argv: Sequence[str]) -> list[str]:
        """``argv`` as a member of the machine's cgroup: whatever it starts dies with the machine."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.cgroup / "cgroup.procs"), *argv]

    def _start(
        self,
        argv: Sequence[str],
        output: int = subprocess.DEVNULL,
        errors: IO[bytes] | int = subprocess.DEVNULL,
        pass_fds: tuple[int, ...] = (),
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._join(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=errors, pass_fds=pass_fds,
            start_new_session=True,
        )  # fmt: skip


_HASYS_ROLES = ("node", "store", "guard", "agent", "witness")


def _matcher(role: str | None) -> Callable[[list[str]], bool]:
    if role is None:
        return lambda argv: True
    if role == "hasys":
        return lambda argv: any(_is_hasys(argv, r) for r in _HASYS_ROLES)
    if role in _HASYS_ROLES:
        return lambda argv: _is_hasys(argv, role)
    if ": " in role:
        return lambda argv: bool(argv) and argv[0].startswith(role)
    return lambda argv: bool(argv) and (Path(argv[0]).name == role or role in argv)


def _is_hasys(argv: list[str], role: str) -> bool:
    """``hasys <role> run ...``, however Python was started for it."""
    return any(a == role and b == "run" for a, b in pairwise(argv)) and "hasys" in " ".join(argv)


def _argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _inside(pid: int) -> bool:
    """The process lives in a pid namespace of its own, so it is no helper (nsenter, unshare) of the lab."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    numbers = re.search(r"^NSpid:\s*(.*)$", status, re.MULTILINE)
    return numbers is not None and len(numbers[1].split()) > len(_own_pids())


def _own_pids() -> list[str]:
    numbers = re.search(r"^NSpid:\s*(.*)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return numbers[1].split() if numbers else []


def _memory(pid: int) -> tuple[int, int]:
    """(RSS, PSS) of a process in bytes; zeros when it has just ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    kib = {k: int(v) for k, v in re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.MULTILINE)}
    return kib.get("Rss", 0) * 1024, kib.get("Pss", 0) * 1024


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
