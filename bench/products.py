"""The products of the failover benchmark behind one face: hasys, keepalived, Pacemaker.

Every product runs on machines n1 and n2 of a lab of its own (hasys and Pacemaker with a third voter w beside them) and
keeps one address.
"""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

from bench import keepalived, pacemaker
from hasys.lab.cluster import Cluster, address_manifest, group_manifest
from hasys.lab.instruments import Probe, Watch
from hasys.lab.lab import Lab
from hasys.lab.shell import LabError, until
from tests.lab import booted

VIP = "10.77.0.100"
NODES = ("n1", "n2")


class Product(ABC):
    """A product that keeps one address on one of two machines."""

    name: str
    faults: tuple[str, ...]
    """What this product is put through, in this order."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.start()
        self.watch: Watch = lab.watch([VIP], NODES)
        self.probe: Probe = lab.probe(VIP)
        self.probe.wait_answer(60)

    @abstractmethod
    def start(self) -> None:
        """Boot the machines and set the product up."""

    @abstractmethod
    def settle(self) -> str:
        """Undo the last fault and wait until the product could survive the next; returns the Active."""

    @abstractmethod
    def planned_move(self, active: str) -> None:
        """Move the address away from the Active in the product's orderly way; returns when it is asked for or done."""

    def strike(self, fault: str, active: str) -> None:
        """Do a fault to the Active. Raises :class:`KeyError` for a fault unknown to this product."""
        machine = self.lab.machines[active]
        acts: dict[str, Callable[[], object]] = {
            "power loss": partial(self.lab.power_off, active),
            "silent drop": machine.drop,
            "switchover": partial(self.planned_move, active),
            **{f"kill {role}": partial(machine.kill, role, signal.SIGKILL) for role in _ROLES},
        }
        acts[fault]()

    def _one_holder(self) -> str:
        until(lambda: len(self.watch.holders(VIP)) == 1, 30, f"one holder of {VIP}")
        return self.watch.holders(VIP)[0]


_ROLES = ("agent", "store", "node", "guard")


class Hasys(Product):
    """hasys with a witness, both networks, default profile unless told otherwise."""

    faults: tuple[str, ...] = (
        "power loss", "silent drop", "switchover", "kill agent", "kill store", "kill guard", "kill node",
    )  # fmt: skip

    def __init__(
        self, lab: Lab, profile: str = "default", timing: Sequence[str] = (), *, systemd: bool = False
    ) -> None:
        """``timing``: figures laid over the profile, as ``ttl=400ms``; ``systemd``: as ``hasys install`` does it, each
        process a service of the machine's systemd."""
        self._systemd = systemd
        if systemd:
            self.faults = tuple(fault for fault in self.faults if fault != "kill node")
        named = ", ".join(
            (*(() if profile == "default" else (profile,)), *timing, *(("under systemd",) if systemd else ()))
        )
        self.name = f"hasys ({named})" if named else "hasys"
        self.cluster = Cluster(lab, profile=profile)
        self._timing = dict(figure.split("=", 1) for figure in timing)
        super().__init__(lab)

    def start(self) -> None:
        if self._systemd:
            booted.start(self.cluster)
        else:
            self.cluster.start()
        self.cluster.wait_ready()
        if self._timing:
            self.cluster.retime(self._timing)
        self.cluster.apply(group_manifest() + address_manifest(f"{VIP}/24"))
        self.cluster.wait_redundant("web")

    def settle(self) -> str:
        self.cluster.restore()
        return self.cluster.wait_redundant("web")

    def planned_move(self, active: str) -> None:
        self.cluster.hasys("switchover", "web")


class Keepalived(Product):
    """keepalived with its defaults; stopping it is its planned move."""

    faults = ("power loss", "silent drop", "switchover")

    def __init__(self, lab: Lab, interval: float) -> None:
        self.name = f"keepalived, adverts each {interval:g} s"
        self._interval = interval
        super().__init__(lab)

    def start(self) -> None:
        keepalived.start(self.lab, {n: i for i, n in enumerate(NODES, start=1)}, f"{VIP}/24", self._interval)

    def settle(self) -> str:
        self.lab.heal()
        for name in NODES:
            if not self.lab.machines[name].on:
                self.lab.power_on(name)
                until(partial(self._runs, name), 10, f"keepalived on {name}")
                time.sleep(3 * self._interval)  # until it has heard adverts, a farewell does not hurry it
        return self._one_holder()

    def _runs(self, name: str) -> bool:
        """It has come so far since its last start that it would take over."""
        since_start = self.lab.machines[name].tail(100).rpartition("Starting Keepalived")[2]
        return "Entering BACKUP STATE" in since_start

    def planned_move(self, active: str) -> None:
        self.lab.shutdown(active, keepalived.ROLE)


class Pacemaker(Product):
    """Pacemaker with a third node that only votes, both networks."""

    faults = ("power loss", "silent drop", "switchover")

    def __init__(self, lab: Lab, token: int | None) -> None:
        self.name = f"Pacemaker, token {token} ms" if token else "Pacemaker"
        self._token = token
        super().__init__(lab)

    def start(self) -> None:
        lack = pacemaker.missing()
        if lack:
            raise LabError(lack)
        hosts = {n: i for i, n in enumerate(NODES, start=1)}
        self._cluster = pacemaker.Pacemaker(self.lab, hosts, "w", f"{VIP}/24", self._token)

    def settle(self) -> str:
        self.lab.heal()
        self._cluster.settle()
        return self._one_holder()

    def planned_move(self, active: str) -> None:
        self._cluster.move(active)
        until(lambda: self.watch.holders(VIP) not in ([active], []), 60, f"another holder than {active}")
