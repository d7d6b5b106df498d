"""Doing what a schedule says to a live cluster, and keeping account of what is broken by it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from hasys.lab.machine import Machine
from hasys.lab.shell import LabError
from hasys.lab.switch import Direction
from tests.lab.stage import VIP, Stage
from tests.lab.storm import app
from tests.lab.storm.damage import NETWORKS, Damage
from tests.lab.storm.schedule import Strike

_DIRECTIONS = {"both": Direction.BOTH, "in": Direction.IN, "out": Direction.OUT}
_NETWORKS = {"all": (0, 1), "public": (0,), "heartbeat": (1,)}


NOTES = "notes"
"""Name of the group that holds what was written during faults."""


def note(name: str) -> str:
    """The manifest of one write."""
    return f"apiVersion: hasys/v1\nkind: Delay\nmetadata: {{name: {name}, group: {NOTES}}}\nspec: {{duration: 1ms}}\n"


@dataclass
class Storm:
    """One round on the stage."""

    stage: Stage
    damage: Damage
    frozen: list[int] = field(default_factory=list)
    burning: list[subprocess.Popen[bytes]] = field(default_factory=list)
    commands: list[subprocess.Popen[bytes]] = field(default_factory=list)
    writes: int = 0
    acknowledged: list[str] = field(default_factory=list)
    """Names of objects whose writing was confirmed."""

    def resolve(self, target: str) -> str:
        """The machine that plays this part now, as far as the latest status knows."""
        status = self.stage.cluster.feed.latest or {"groups": [], "cluster": {}}
        nodes = self.stage.cluster.nodes
        active = next((g.get("active") for g in status["groups"] if g.get("active")), None) or nodes[0]
        return {
            "active": active,
            "standby": self.stage.other(active),
            "witness": "w",
            "leader": status["cluster"].get("leader") or "w",
        }[target]

    def strike(self, strike: Strike) -> str:
        """Do it; returns what was done to whom, in words. What cannot be done now (its target is off) is no fault."""
        name = self.resolve(strike.target)
        machine = self.stage.machine(name)
        if not machine.on:
            return f"{strike.fault} {name}: it is off"
        act: Callable[[Machine, str], None] = getattr(self, "_" + strike.fault.replace(" ", "_"))
        try:
            act(machine, strike.detail)
        except LabError as e:
            return f"{strike.fault} {name}: {e}"
        return f"{strike.fault} {name} {strike.detail}".rstrip()

    def repair(self) -> None:
        """Undo everything."""
        Machine.thaw(self.frozen)
        self.frozen.clear()
        for child in self.burning:
            child.kill()
            child.wait()
        self.burning.clear()
        self.stage.cluster.restore()
        for child in self.commands:
            child.wait(timeout=60)
        self.commands.clear()

    # ------------------------------------------------------------ machines and networks

    def _power_off(self, machine: Machine, _: str) -> None:
        self.damage.off.add(machine.name)
        self.stage.lab.power_off(machine.name)

    def _pull_cables(self, machine: Machine, which: str) -> None:
        self._unplugged(machine, which)
        machine.cable(plugged=False, networks=_NETWORKS[which])

    def _lose_frames(self, machine: Machine, how: str) -> None:
        which, direction = how.split()
        if direction == "both":
            self._unplugged(machine, which)
        else:
            self.damage.doubtful.add(machine.name)
        machine.drop(_DIRECTIONS[direction], networks=_NETWORKS[which])

    def _unplugged(self, machine: Machine, which: str) -> None:
        self.damage.unplugged |= {(machine.name, NETWORKS[n]) for n in _NETWORKS[which]}

    def _partition(self, machine: Machine, other_part: str) -> None:
        other = self.resolve(other_part)
        if other == machine.name:
            raise LabError("there is no other side")
        self.damage.cut.add(frozenset((machine.name, other)))
        self.stage.lab.partition([machine.name], [other])

    # ------------------------------------------------------------ processes

    def _freeze(self, machine: Machine, role: str) -> None:
        self.damage.doubtful.add(machine.name)
        if role in ("hasys", "guard"):
            self.damage.unguarded = True
            self.damage.unmended.add(machine.name)
        if machine.name == "w" and role in ("agent", "guard"):
            role = "store"
        self.frozen += machine.freeze(*(() if role == "hasys" else (role,)))

    def _kill(self, machine: Machine, role: str) -> None:
        if machine.name == "w":
            role = "witness" if role == "node" else "store"
        self.damage.unguarded |= role == "guard"
        machine.kill(role)

    def _kill_all(self, machine: Machine, _: str) -> None:
        self.damage.unguarded = True
        machine.kill("hasys")

    def _kill_application(self, machine: Machine, _: str) -> None:
        machine.kill_all(str(app.__file__))

    def _burn_processor(self, machine: Machine, _: str) -> None:
        self.burning += [machine.spawn("sh", "-c", "while :; do :; done") for _ in range(2)]

    # ------------------------------------------------------------ by hand

    def _flush_ruleset(self, machine: Machine, _: str) -> None:
        if machine.name in self.damage.unmended:
            raise LabError("its guard is frozen")
        machine.run("nft", "flush", "ruleset")

    def _delete_address(self, machine: Machine, _: str) -> None:
        with suppress(LabError):  # it is not there
            machine.run("ip", "addr", "del", f"{VIP}/24", "dev", "eth0")

    def _add_address(self, machine: Machine, _: str) -> None:
        with suppress(LabError):  # it is there
            machine.run("ip", "addr", "add", f"{VIP}/24", "dev", "eth0")

    def _switchover(self, machine: Machine, _: str) -> None:
        self._command("switchover", "web", "--to", machine.name)

    def _command(self, *argv: str) -> None:
        self.commands.append(self.stage.lab.client.spawn(*self.stage.cluster.command(*argv)))

    def _write(self, _machine: Machine, _: str) -> None:
        """A write whose acknowledgement counts; without one nothing is claimed."""
        self.writes += 1
        name = f"w{self.writes}"
        with suppress(LabError):
            self.stage.cluster.hasys("apply", "-f", "-", feed=note(name), timeout=15)
            self.acknowledged.append(name)
