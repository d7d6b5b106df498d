"""A lab: one switch, its machines, a client, an observer; made on entry, gone on exit, whatever happens in between.

>>> with Lab() as lab:                                    # doctest: +SKIP
...     n1 = lab.machine("n1", 1)
...     probe = lab.probe("10.77.0.100")
...     n1.power_off()
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from hasys.lab import registry
from hasys.lab.addresses import AddressLog
from hasys.lab.instruments import Instrument, Probe, Watch
from hasys.lab.machine import Machine, Spec
from hasys.lab.registry import Record
from hasys.lab.shell import LabError
from hasys.lab.switch import OBSERVER, Switch, port_name

AnyInstrument = TypeVar("AnyInstrument", bound=Instrument)

CLIENT = Spec("client", host=200, networks=1)
_OBSERVER = Spec(OBSERVER, host=250, networks=1)


def missing() -> str | None:
    """What this machine lacks for a lab, in one line; None when nothing."""
    if os.geteuid() != 0:
        return "needs root: it makes network namespaces; try sudo"
    for program in ("ip", "nft", "nsenter", "unshare"):
        if not any(os.access(Path(d) / program, os.X_OK) for d in os.get_exec_path()):
            return f"needs the program {program}: apt install iproute2 nftables util-linux"
    try:
        registry.cgroup_mount()
    except LabError as e:
        return f"needs cgroup v2: {e}"
    return None


class Lab:
    """Machines and instruments of one lab."""

    def __init__(self) -> None:
        lack = missing()
        if lack:
            raise LabError(lack)
        registry.clear_stale()
        self.record: Record = registry.claim()
        self.switch = Switch(self.record.netns("switch"))
        self.machines: dict[str, Machine] = {}
        self.addresses = AddressLog()
        self._instruments: list[Instrument] = []
        self._kept = False
        self._at_close: list[Callable[[], None]] = []

    def __enter__(self) -> Lab:
        try:
            self.switch.create()
            for spec in (CLIENT, _OBSERVER):
                self._add(spec).power_on()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything, unless :meth:`keep` was called."""
        if self._kept:
            return
        self._wind_up()
        self.record.remove()
        for machine in self.machines.values():
            machine.reap()
        for instrument in self._instruments:
            instrument.close()
        self._instruments.clear()

    def on_close(self, action: Callable[[], None]) -> None:
        """Call ``action`` before the machines go."""
        self._at_close.append(action)

    def _wind_up(self) -> None:
        """Stop what runs in this process."""
        while self._at_close:
            self._at_close.pop()()
        self.addresses.close()

    def keep(self, environment: Mapping[str, str] | None = None) -> Path:
        """Leave the lab running after this process; returns the script that enters its machines and removes it."""
        (self.record.folder / "keep").touch()
        self._kept = True
        self._wind_up()
        for machine in (self.client, self.machines[OBSERVER]):
            machine.kill_all()
        script = self.record.folder / "lab"
        script.write_text(self._script(environment or {}))
        script.chmod(0o700)
        return script

    # --------------------------------------------------------------- machines

    def machine(self, name: str, host: int, boot: Sequence[str] = (), *, pid1: bool = False) -> Machine:
        """A new machine, switched on. ``host`` ends its addresses; ``boot`` starts with it (see :class:`Spec`)."""
        machine = self._add(Spec(name, host, boot=tuple(boot), pid1=pid1))
        self.power_on(name)
        return machine

    def power_on(self, name: str) -> None:
        """Switch a machine on and follow its kernel's address events."""
        machine = self.machines[name]
        machine.power_on()
        self.addresses.follow(name, machine.netns)

    def power_off(self, name: str) -> None:
        """Pull a machine's plug."""
        self.machines[name].power_off()
        self.addresses.unfollow(name)

    def shutdown(self, name: str, role: str, timeout: float = 30.0) -> None:
        """Shut a machine down in order; see :meth:`Machine.shutdown`."""
        self.machines[name].shutdown(role, timeout)
        self.addresses.unfollow(name)

    @property
    def client(self) -> Machine:
        return self.machines[CLIENT.name]

    def partition(self, *sides: Iterable[str], networks: Sequence[int] = (0, 1)) -> None:
        """Cut machines of different sides from each other, silently, in both directions."""
        groups = [list(side) for side in sides]
        self.switch.cut(
            (port_name(a, n), port_name(b, n))
            for left, right in permutations(groups, 2)
            for a in left
            for b in right
            for n in networks
        )

    def heal(self) -> None:
        """End every silent loss."""
        self.switch.heal()

    # ------------------------------------------------------------ instruments

    def probe(self, address: str, period: float = 0.005) -> Probe:
        """Ask ``address`` by ICMP echo from the client every ``period`` seconds, from now on."""
        return self._keep(Probe(self.client, "icmp", address, period))

    def http_probe(self, address: str, port: int, period: float = 0.05) -> Probe:
        """GET / from a web server every ``period`` seconds, from now on."""
        return self._keep(Probe(self.client, "http", f"{address}/{port}", period))

    def watch(self, addresses: Sequence[str], machines: Sequence[str]) -> Watch:
        """Record from now on who of ``machines`` holds which of ``addresses``."""
        return self._keep(Watch(self.machines[OBSERVER], addresses, [self.machines[name] for name in machines]))

    def _keep(self, instrument: AnyInstrument) -> AnyInstrument:
        self._instruments.append(instrument)
        return instrument

    def _add(self, spec: Spec) -> Machine:
        if spec.name in self.machines or any(m.spec.host == spec.host for m in self.machines.values()):
            raise LabError(f"{spec.name}: name or host number {spec.host} is taken in this lab")
        machine = Machine(spec, self.record, self.switch)
        self.machines[spec.name] = machine
        return machine

    def _script(self, environment: Mapping[str, str]) -> str:
        """A shell script: ``lab NAME [COMMAND...]`` enters a machine, ``lab off NAME`` pulls its plug."""
        cases = "\n".join(
            f'  {m.name}) shift; exec {shlex.join(m.command())} "$@" ;;' for m in self.machines.values() if m.on
        )
        off = "\n".join(
            f"    {m.name}) " + "; ".join(f"ip -n {self.switch.netns} link set {p} down" for p in m.ports)
            + f"; echo 1 > {m.cgroup}/cgroup.kill ;;"
            for m in self.machines.values()
        )  # fmt: skip
        exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in environment.items())
        remove = shlex.join([sys.executable, "-m", "hasys.lab.registry", self.record.id])
        return (
            f'#!/bin/sh\n{exports}[ $# -gt 1 ] || [ "$1" = remove ] || set -- "$1" sh\ncase "$1" in\n{cases}\n'
            f'  off) case "$2" in\n{off}\n  esac ;;\n  remove) exec {remove} ;;\n'
            '  *) echo "use: lab MACHINE [COMMAND...] | lab off MACHINE | lab remove" >&2; exit 2 ;;\nesac\n'
        )
