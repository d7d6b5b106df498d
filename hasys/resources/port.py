"""What the reconciler and a driver expect of each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from hasys.model.errors import HasysError
from hasys.model.view import ResourceState

State = ResourceState
"""The contract's resource states."""


class Permanent(HasysError):
    """Trying again does not help until somebody changes the resource or the machine; the text says what."""


class Temporary(HasysError):
    """May pass by itself: look again after ``delay`` seconds (None: the caller's back-off)."""

    def __init__(self, text: str, delay: float | None = None) -> None:
        super().__init__(text)
        self.delay = delay


@dataclass(frozen=True, slots=True)
class AddressTrace:
    """This resource may put the address (without prefix length) on the interface."""

    interface: str
    address: str


@dataclass(frozen=True, slots=True)
class CgroupTrace:
    """This resource may run processes in the cgroup (absolute path)."""

    path: str


@dataclass(frozen=True, slots=True, order=True)
class MountTrace:
    """This resource may mount the device there (absolute paths)."""

    device: str
    point: str


Trace: TypeAlias = AddressTrace | CgroupTrace | MountTrace
"""What a resource may leave on the machine, and the guard must be able to undo."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of a resource on this node now."""

    state: State = State.STOPPED
    message: str = ""
    """One line for people: the reason of the state, or what is being waited for."""
    restarts: int = 0
    """Restarts in place since the last orderly start."""
    exit_code: int | None = None
    """How the last process ended: its status, or minus the signal's number."""
    output: str = ""
    """Tail of the last process's output, when it failed."""

    def with_(self, **changes: object) -> Condition:
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Place:
    """Which resource, where, under which assignment."""

    node: str
    group: str
    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a driver may ask of the reconciler."""

    place: Place
    permitted: Callable[[], Awaitable[None]]
    """Returns when the guard allows effects of this group and epoch; waits until then. Await it right before each
    effect that others could notice."""
    changed: Callable[[], None]
    """The condition changed."""
    record: Callable[..., None]
    """Record an event: reason (hasys/model/events.py), cause in one line, ``took``: the seconds that it measures."""


class Driver(ABC):
    """One resource on one node under one epoch.

    The caller runs at most one of :meth:`prepare`, :meth:`run` and :meth:`stop` at a time. A cancelled ``run`` leaves
    the resource as it is: only ``stop`` undoes.
    """

    kind: ClassVar[str]

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self._condition = Condition()

    @property
    def condition(self) -> Condition:
        return self._condition

    def become(self, state: State, message: str = "", **changes: object) -> None:
        """Move to a state; the reconciler hears of it when anything differs."""
        new = self._condition.with_(state=state, message=message, **changes)
        if new != self._condition:
            self._condition = new
            self.around.changed()

    def take_over(self, earlier: Driver) -> None:
        """Go on from where ``earlier`` was; see :meth:`continues`."""
        self._condition = earlier._condition

    @abstractmethod
    def traces(self) -> tuple[Trace, ...]:
        """What the guard must undo when this node loses the group: known before anything is done."""

    @abstractmethod
    async def adopt(self) -> bool:
        """Look at the machine: does the resource run already, from before this agent? Changes nothing."""

    async def prepare(self) -> None:
        """Do beforehand what nobody can notice before the permit comes. Failing is no harm: ``run`` does it again."""
        return

    @abstractmethod
    async def run(self) -> None:
        """Bring it up and keep it up until cancelled. Returns only after the condition became Failed for good."""

    def continues(self, earlier: Driver) -> bool:
        """May this one, made from a changed spec, take over what ``earlier`` runs, without a stop in between?"""
        return False

    def kill(self) -> None:
        """A stop with force begins: end what ``run`` may be waiting for, which is then cancelled. Does not wait."""
        return

    def announce(self) -> None:
        """Neighbours may have been led astray: tell them anew where it is, if it is here. Does not wait."""
        return

    @abstractmethod
    async def stop(self, *, force: bool) -> None:
        """Return when nothing is left of it on this machine; ``force``: at once, without asking it first.

        Raises :class:`Temporary` naming what is in the way; the caller repeats.
        """
