"""Give up what a node may no longer hold, in the order that makes it safe, without asking anybody.

1. The agent and its helpers are killed, so that nothing is begun again (SIGKILL of a cgroup works on stopped ones too).
2. Addresses are muted in the kernel, then taken off their interfaces.
3. The group's processes are killed.
4. Its file systems are unmounted, and whoever else uses them is killed; in a process of its own, because an unmount
   writes back what is not on the disk yet, and may take long.
A job is not done until nothing is left; what cannot die is named, and then only a watchdog helps.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

from hasys.guard import cgroup, unmount
from hasys.guard.netlink import InterfaceAddress, Route
from hasys.guard.plan import Agent, Stored
from hasys.guard.protocol import MountEntry

RETRY = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Seconds between looks at what is still alive; the last one repeats."""
MAX_FD = 1 << 20
"""Above any descriptor of the guard."""
_NO_FAILURE: tuple[str, ...] = ()


class Machine(Protocol):
    """What fencing does to the kernel. Each may raise ``OSError``; each may be repeated."""

    def kill_agent(self, agent: Agent) -> None: ...

    def agent_alive(self, agent: Agent) -> bool: ...

    def remove_addresses(self, addresses: Iterable[str]) -> None: ...

    def present(self, addresses: Iterable[str]) -> list[str]:
        """Which of the addresses are on an interface."""
        ...

    def kill_cgroup(self, path: str) -> None: ...

    def populated(self, path: str) -> bool: ...

    def unmount(self, entry: MountEntry) -> None:
        """Begin to; returns at once."""
        ...

    def mounted(self, entry: MountEntry) -> bool: ...


@dataclass
class Fencing:
    """One job: the groups to give up. ``step`` is called until it returns True."""

    groups: tuple[Stored, ...]
    agent: Agent | None
    """Killed first; None when it has never begun anything for these groups."""
    reason: str
    started: float
    mute: Callable[[Iterable[str]], None]
    """Silences these groups in the kernel; does not raise."""
    machine: Machine
    steps: dict[str, float] = field(default_factory=dict)
    """Seconds from the start until each step was first done: agent, muted, addresses, processes, mounts."""
    blockers: Sequence[str] = _NO_FAILURE
    looks: int = 0

    def step(self, now: Callable[[], float]) -> bool:
        """Do or repeat everything that is not finished; True when nothing is left."""
        self.looks += 1
        blockers: list[str] = []
        addresses = sorted({a.address for g in self.groups for a in g.addresses})
        self._do("agent", self._agent, blockers, now)
        self._do("muted", self._mute, blockers, now)
        self._do("addresses", lambda: self._addresses(addresses), blockers, now)
        self._do("processes", self._processes, blockers, now)
        self._do("mounts", self._mounts, blockers, now)
        self.blockers = blockers
        return not blockers

    @property
    def pause(self) -> float:
        """Seconds until the next step makes sense."""
        return RETRY[min(self.looks, len(RETRY)) - 1]

    def _do(self, name: str, work: Callable[[], list[str]], blockers: list[str], now: Callable[[], float]) -> None:
        try:
            found = work()
        except OSError as e:
            found = [f"{name}: {e.strerror or e}"]
        blockers += found
        if not found:
            self.steps.setdefault(name, now() - self.started)

    def _agent(self) -> list[str]:
        if self.agent is None or "agent" in self.steps or not self.machine.agent_alive(self.agent):
            return []  # once it was dead, whoever lives in its cgroup is its successor
        self.machine.kill_agent(self.agent)
        return [f"agent (process {self.agent.pid}) does not die"] if self.machine.agent_alive(self.agent) else []

    def _mute(self) -> list[str]:
        self.mute([g.plan.group for g in self.groups])
        return []

    def _addresses(self, addresses: list[str]) -> list[str]:
        self.machine.remove_addresses(addresses)
        return [f"address {a} does not leave its interface" for a in self.machine.present(addresses)]

    def _processes(self) -> list[str]:
        paths = sorted({path for g in self.groups for path in g.cgroups})
        for path in paths:
            if self.machine.populated(path):
                self.machine.kill_cgroup(path)
        return [f"processes in {path} do not die" for path in paths if self.machine.populated(path)]

    def _mounts(self) -> list[str]:
        there = [e for e in sorted({e for g in self.groups for e in g.mounts}) if self.machine.mounted(e)]
        for entry in there:
            self.machine.unmount(entry)
        return [f"{e.device} on {e.path} is not unmounted yet" for e in there]


class LinuxMachine:
    """The kernel of this machine."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._unmounting: dict[MountEntry, int] = {}
        """Processes that are at it."""

    def kill_agent(self, agent: Agent) -> None:
        if agent.cgroup:
            cgroup.kill(agent.cgroup)
        elif start_time(agent.pid) == agent.start:
            os.kill(agent.pid, signal.SIGKILL)

    def agent_alive(self, agent: Agent) -> bool:
        if agent.cgroup:
            return cgroup.populated(agent.cgroup)
        return start_time(agent.pid) == agent.start != 0

    def remove_addresses(self, addresses: Iterable[str]) -> None:
        for found in self._on_interfaces(addresses):
            self._route.delete_address(found)

    def present(self, addresses: Iterable[str]) -> list[str]:
        return sorted({found.address for found in self._on_interfaces(addresses)})

    def kill_cgroup(self, path: str) -> None:
        cgroup.kill(path)

    def populated(self, path: str) -> bool:
        return cgroup.populated(path)

    def mounted(self, entry: MountEntry) -> bool:
        child = self._unmounting.get(entry)
        if child is not None and os.waitpid(child, os.WNOHANG) != (0, 0):
            del self._unmounting[entry]
        return unmount.mounted(entry.device, entry.path)

    def unmount(self, entry: MountEntry) -> None:
        if entry in self._unmounting:
            return
        child = os.fork()
        if child == 0:
            _unmount_and_exit(entry)
        self._unmounting[entry] = child

    def _on_interfaces(self, addresses: Iterable[str]) -> list[InterfaceAddress]:
        wanted = frozenset(addresses)
        return [a for a in self._route.addresses() if a.address in wanted] if wanted else []


def _unmount_and_exit(entry: MountEntry) -> NoReturn:
    """The life of a forked helper. It keeps nothing of the guard open: a guard that starts anew needs the ports."""
    status = 1
    try:
        os.closerange(0, MAX_FD)
        unmount.unmount(entry.device, entry.path, kill=True)
        status = 0
    finally:
        os._exit(status)


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
