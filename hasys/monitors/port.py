"""What a monitor is given, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hasys.v1 import monitors_pb2 as mpb


@dataclass(frozen=True, slots=True)
class Found:
    """What one look saw."""

    trouble: str = ""
    """What is wrong, in words that stay the same as long as it does: no running figures. Empty: nothing."""
    detail: str = ""
    """Figures of the moment, for the event: ``97 %``."""
    value: float | None = None
    """The figure that is watched, if it is one; ``unit`` belongs to it."""
    unit: str = ""
    action: int | None = None
    """An action of ``MonitorSpec.Action`` in place of the monitor's own, for this trouble."""

    @property
    def ok(self) -> bool:
        return not self.trouble


class Check(ABC):
    """Looks when asked. Remembers between two looks only what a difference needs."""

    @abstractmethod
    async def look(self) -> Found:
        """Look once. The caller limits the time and never asks twice at once. May raise ``OSError``, which counts as
        trouble."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int | None
    """Exit status, or minus the signal's number."""
    output: str
    """The end of what it printed."""


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface, as far as monitors care."""

    up: bool
    carrier: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A group as this node last heard of it."""

    phase: str
    node: str


class Commands(Protocol):
    """Runs programs that belong to this agent: they are killed with it, and when they are given up."""

    async def run(
        self, argv: Sequence[str], *, user: str = "root", directory: str = "/", env: Mapping[str, str] | None = None
    ) -> Ended:
        """Run to its end. Cancelling kills it and all that it started. Raises ``HasysError`` when it cannot start."""
        ...


class Machine(Protocol):
    """What the agent knows anyway."""

    def link(self, name: str) -> Link | None:
        """An interface; None when there is none of that name."""
        ...

    def holder(self, address: str) -> str:
        """The interface that has the address (canonical spelling, no prefix length); empty: none."""
        ...

    def addresses(self, group: str) -> Mapping[str, str]:
        """The virtual IPs of a group: resource -> address."""
        ...

    def replicated(self, group: str) -> Mapping[str, tuple[str, str]]:
        """The replicated volumes of a group: resource -> its name in DRBD, and its device."""
        ...

    def standing(self, group: str) -> Standing | None:
        """A group of the cluster; None when it is not known."""
        ...

    async def own(self) -> Mapping[str, str]:
        """This node's own processes, by name -> what is wrong with it, or empty: ``Store``, ``Guard``."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What checks are made with."""

    group: str
    name: str
    commands: Commands
    machine: Machine
    node: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    """For commands and scripts."""


def judged(rule: int, troubles: Mapping[str, str]) -> Found:
    """Item -> what is wrong with it, or empty; one verdict by ``SetRule``."""
    bad = [text for text in troubles.values() if text]
    well = not bad if rule == mpb.All else len(bad) < len(troubles)
    return Found("" if well else "; ".join(bad))


def listed(words: Iterable[str]) -> str:
    """``a, b and 3 more``: a message stays short however long the list is."""
    found = list(words)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
