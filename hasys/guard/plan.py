"""What the guard must be able to undo, on disk before it happens: plans, floors, the gated addresses, the agent.

One small file under the run directory, replaced as a whole (written beside, synced, renamed). It lives as long as the
machine runs: after a reboot nothing of it is true any more, and it is gone with ``/run``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hasys.files import private_folder
from hasys.guard import protocol
from hasys.guard.protocol import Address, AddressEntry, BadMessage, CgroupEntry, Entry, MountEntry, Plan
from hasys.lease.keeping import with_floor

MAX_FILE = 16 * 1024 * 1024
"""Bytes. More than every plan of every group at its limit would need in practice; a larger file is damaged."""


class StaleEpoch(Exception):
    """The plan's epoch was released, or a newer one is planned."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A plan, and what earlier plans of the group named that may still be there."""

    plan: Plan
    leftovers: tuple[Entry, ...] = ()
    permitted: bool = False
    """Whether the agent was ever told that effects may start: then it may be at it this very moment."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self.plan.entries + self.leftovers

    @property
    def addresses(self) -> frozenset[Address]:
        return frozenset(e.key for e in self.entries if isinstance(e, AddressEntry))

    @property
    def cgroups(self) -> tuple[str, ...]:
        return tuple(e.path for e in self.entries if isinstance(e, CgroupEntry))

    @property
    def mounts(self) -> tuple[MountEntry, ...]:
        return tuple(e for e in self.entries if isinstance(e, MountEntry))


@dataclass(frozen=True, slots=True)
class Agent:
    """The process that acts for groups; ``start`` tells it from a later process with the same number."""

    pid: int
    start: int
    cgroup: str


@dataclass(frozen=True, slots=True)
class Sworn:
    """A group that is held by an operator's oath: docs/decisions/0005."""

    epoch: int
    start: float
    """Monotonic clock: nothing is permitted before."""
    free: bool = True
    """It renews itself: no leader has answered since."""
    leaving: bool = False
    """The operator gave it up again: it stops in order."""
    by_policy: bool = False
    """Of two nodes: no operator swore, this node went on by itself (hasys.guard.alone)."""
    since: float = 0.0
    """Wall clock, for display: when it began."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What happened without a majority, for the store when it is back. Kept until the agent has told it."""

    serial: int
    time: float
    """Wall clock, for display."""
    group: str
    epoch: int
    begun: bool
    """An oath was sworn; False: it ended."""
    cause: str
    since: float = 0.0
    """Of an end: when it had begun, and why. The agent that was told of the beginning may not live any more."""
    why: str = ""


KEPT_REPORTS = 100
"""The newest are kept."""


@dataclass(frozen=True, slots=True)
class Book:
    """Everything that outlives the guard's process."""

    plans: Mapping[str, Stored] = field(default_factory=dict)
    floors: Mapping[str, int] = field(default_factory=dict)
    """By group: at this epoch and below this node never acts again."""
    gate: frozenset[Address] = frozenset()
    agent: Agent | None = None
    oaths: Mapping[str, Sworn] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    tokens: Mapping[str, int] = field(default_factory=dict)
    """By group the epoch by which this node holds it, or held it last (hasys.lease.tokens)."""
    met: bool = False
    """Two nodes: a leader was heard since this machine started."""

    def with_oath(self, group: str, oath: Sworn | None, cause: str = "", time: float = 0.0) -> Book:
        """The group's oath as it is now; None: it ended. Its beginning and its end are reported with ``cause``."""
        old = self.oaths.get(group)
        oaths = {g: o for g, o in self.oaths.items() if g != group}
        if oath is not None:
            oaths[group] = oath = replace(oath, since=old.since if old else time, why=old.why if old else cause)
        book, about = replace(self, oaths=oaths), oath or old
        if about is None or (oath is not None and old is not None):
            return book
        serial = self.reports[-1].serial + 1 if self.reports else int(time * 1000)
        report = Report(serial, time, group, about.epoch, oath is not None, cause, about.since, about.why)
        return replace(book, reports=(*self.reports, report)[-KEPT_REPORTS:])

    def with_plan(self, plan: Plan, gone: Iterable[Entry] = ()) -> Book:
        """The plan in place of the group's earlier one; entries that it drops stay until they are ``gone``.

        Raises :class:`StaleEpoch`.
        """
        floor = self.floors.get(plan.group, -1)
        if plan.epoch <= floor:
            raise StaleEpoch(f"group {plan.group}: epoch {plan.epoch} was given up here (up to {floor})")
        old = self.plans.get(plan.group)
        if old is None:
            return replace(self, plans={**self.plans, plan.group: Stored(plan)})
        if (plan.epoch, plan.version) < (old.plan.epoch, old.plan.version):
            known = f"epoch {old.plan.epoch}, version {old.plan.version}"
            raise StaleEpoch(
                f"group {plan.group}: plan of epoch {plan.epoch}, version {plan.version} is older than {known}"
            )
        left = tuple(e for e in old.entries if e not in set(plan.entries) and e not in set(gone))
        permitted = old.permitted and (old.plan.epoch == plan.epoch or plan.group in self.oaths)
        return replace(self, plans={**self.plans, plan.group: Stored(plan, left, permitted or bool(left))})

    def with_permitted(self, group: str) -> Book:
        """Remember that effects of the plan may have started."""
        return replace(self, plans={**self.plans, group: replace(self.plans[group], permitted=True)})

    def without(self, group: str, epoch: int) -> Book:
        """The group given up at ``epoch`` and below."""
        plans = {g: s for g, s in self.plans.items() if g != group or s.plan.epoch > epoch}
        return replace(self, plans=plans, floors=with_floor(self.floors, group, epoch))

    @property
    def gated(self) -> frozenset[Address]:
        """Every address that must be behind the gate."""
        return self.gate.union(*(s.addresses for s in self.plans.values()))


class Damaged(Exception):
    """The file cannot be read: what was planned is not known."""


class PlanFile:
    """The book on disk. ``save`` returns when it is durable; raises ``OSError``."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "plan.json"

    def exists(self) -> bool:
        """Whether a book was ever kept, since the machine started."""
        return self._path.exists()

    def load(self) -> Book:
        """The stored book, empty when there is none. Raises :class:`Damaged`."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Book()
        except OSError as e:
            raise Damaged(f"{self._path}: {e.strerror}") from None
        try:
            return _from_json(protocol.parse_object(data, limit=MAX_FILE))
        except (BadMessage, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as e:
            raise Damaged(f"{self._path}: {type(e).__name__}: {e}") from None

    def save(self, book: Book) -> None:
        """Replace the file as a whole; its folder is made anew when somebody removed it."""
        beside = self._path.with_suffix(".new")
        if not beside.parent.exists():
            private_folder(beside.parent)
        beside.unlink(missing_ok=True)  # also a link that somebody put there
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(protocol.encode(_to_json(book), limit=MAX_FILE))
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(beside, self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _to_json(book: Book) -> dict[str, Any]:
    return {
        "plans": [
            {
                **protocol.plan_to_json(s.plan),
                "leftovers": [e.to_json() for e in s.leftovers],
                "permitted": s.permitted,
            }
            for s in book.plans.values()
        ],
        "floors": dict(book.floors),
        "gate": [[a.interface, a.address] for a in sorted(book.gate)],
        "agent": None if book.agent is None else [book.agent.pid, book.agent.start, book.agent.cgroup],
        "oaths": {
            group: [o.epoch, o.start, o.free, o.leaving, o.by_policy, o.since, o.why] for group, o in book.oaths.items()
        },
        "reports": [[r.serial, r.time, r.group, r.epoch, r.begun, r.cause, r.since, r.why] for r in book.reports],
        "tokens": dict(book.tokens),
        "met": book.met,
    }


def _from_json(raw: Mapping[str, Any]) -> Book:
    plans = {}
    for p in raw["plans"]:
        plan = protocol.plan_from_json(p)
        left = protocol.plan_from_json({**p, "entries": p["leftovers"]}).entries
        plans[plan.group] = Stored(plan, left, bool(p["permitted"]))
    agent = raw["agent"]
    return Book(
        plans,
        {str(g): int(e) for g, e in raw["floors"].items()},
        frozenset(protocol.address(i, a) for i, a in raw["gate"]),
        None if agent is None else Agent(int(agent[0]), int(agent[1]), str(agent[2])),
        {str(g): _sworn(*values) for g, values in raw.get("oaths", {}).items()},
        tuple(_report(*values) for values in raw.get("reports", ())),
        {str(g): int(e) for g, e in raw.get("tokens", {}).items()},
        bool(raw.get("met", False)),
    )


def _sworn(
    epoch: Any, start: Any, free: Any, leaving: Any, by_policy: Any = False, since: Any = 0.0, why: Any = ""
) -> Sworn:
    return Sworn(int(epoch), float(start), bool(free), bool(leaving), bool(by_policy), float(since), str(why))


def _report(serial: Any, time: Any, group: Any, epoch: Any, begun: Any, cause: Any, *of_the_beginning: Any) -> Report:
    since, why = of_the_beginning or (0.0, "")
    return Report(int(serial), float(time), str(group), int(epoch), bool(begun), str(cause), float(since), str(why))
