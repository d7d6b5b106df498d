"""The running probe and watcher of a lab, and what they saw."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence

from hasys.lab.machine import Machine
from hasys.lab.records import Question, read
from hasys.lab.shell import LabError, until
from hasys.lab.verdict import Outage, Overlap, outage, overlaps, pauses

_BEFORE = 10.0
"""Seconds before a window in which the last answer before it is looked for."""
_DARK = 0.010
"""Seconds: longer pauses of the watcher are reported as times of which nothing is known."""


class Instrument:
    """A recording process: started by the lab, read at any time."""

    def __init__(self, machine: Machine, module: str, argv: Sequence[str]) -> None:
        self._name = module
        self._fd = os.memfd_create(module)
        self._process = machine.spawn(sys.executable, "-m", module, str(self._fd), *argv, pass_fds=(self._fd,))

    def questions(self, since: float = 0.0) -> list[Question]:
        """The questions asked since an instant. Raises :class:`LabError` when the instrument died."""
        code = self._process.poll()
        if code is not None:
            raise LabError(f"{self._name} ended with {code}")
        return read(self._fd, since)

    def close(self) -> None:
        """Let go of the record. The process ends with its machine."""
        os.close(self._fd)


class Probe(Instrument):
    """What the client sees of one address (``icmp``) or web server (``http``)."""

    def __init__(self, client: Machine, mode: str, target: str, period: float) -> None:
        super().__init__(client, "hasys.lab.probe", [mode, target, "--period", str(period)])

    def wait_answer(self, timeout: float, since: float | None = None) -> None:
        """Wait for an answer to a question asked after ``since`` (default: now)."""
        since = time.monotonic() if since is None else since
        until(
            lambda: any(q.received for q in self.questions(since)),
            timeout,
            "an answer to the client",
        )

    def outage(self, start: float, end: float | None = None) -> Outage:
        """What the client saw from ``start`` to ``end`` (default: now); see :mod:`hasys.lab.verdict`."""
        end = time.monotonic() if end is None else end  # before reading, which takes its time
        return outage(self.questions(start - _BEFORE), start, end)


class Watch(Instrument):
    """Who held which address when."""

    def __init__(self, observer: Machine, addresses: Sequence[str], machines: Sequence[Machine]) -> None:
        argv = ["eth0", observer.address(), observer.address6()]
        for address in addresses:
            argv += ["--address", address]
        for machine in machines:
            argv += ["--machine", machine.mac()]
        super().__init__(observer, "hasys.lab.watch", argv)
        self._addresses = list(addresses)
        self._machines = [m.name for m in machines]

    def asked(self, address: str, since: float = 0.0) -> dict[str, list[Question]]:
        """The questions about one address, by machine."""
        wanted = self._addresses.index(address)
        found: dict[str, list[Question]] = defaultdict(list)
        for q in self.questions(since):
            if q.target >> 8 == wanted:
                found[self._machines[q.target & 255]].append(q)
        return dict(found)

    def holders(self, address: str) -> list[str]:
        """Who answered a question of the last 50 ms."""
        recent = self.asked(address, since=time.monotonic() - 0.05)
        return sorted(name for name, asked in recent.items() if any(q.received for q in asked))

    def last_answer(self, address: str, machine: str, since: float = 0.0) -> float | None:
        """When the machine last answered for the address; None: never since then."""
        times = [q.received for q in self.asked(address, since).get(machine, []) if q.received is not None]
        return max(times, default=None)

    def overlaps(self, since: float = 0.0) -> list[Overlap]:
        """Every time that two machines held the same address at once."""
        return [o for a in self._addresses for o in overlaps(self.asked(a, since))]

    def assert_never_two(self, since: float = 0.0) -> None:
        """Raises :class:`AssertionError` naming who held an address together, and for how long."""
        found = self.overlaps(since)
        if found:
            raise AssertionError("two holders at once: " + "; ".join(map(str, found[:5])))

    def dark(self, since: float = 0.0) -> list[tuple[float, float]]:
        """Times in which the watcher itself did not ask for more than 10 ms."""
        return pauses(self.questions(since), _DARK)
