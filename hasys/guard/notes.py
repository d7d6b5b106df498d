"""What the guard writes down for those who come after a reset: what was held, what it was giving up, how a fence went.

A reset leaves nothing below /run, and a frozen guard writes nothing any more. So the note is on the disk (synced) as
soon as something is held, and changes with it; the guard of the next boot reads it and has it told as an event. It is
written by a thread: a disk that hangs never delays a fence.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hasys.guard.fence import Fencing
from hasys.guard.protocol import is_number
from hasys.guard.tokens import Disk
from hasys.model.lines import one_line

if TYPE_CHECKING:
    from hasys.guard.core import Guard

AGAIN = 1.0
"""Seconds until a note that could not be written is tried again."""
KEPT = 20
"""Notes that wait to be told; the oldest go first."""
LONGEST = 600
"""Characters of a cause."""
_MOST = 4096
"""Characters of any text in a report: 20 of them fit into an answer of the guard many times."""
_LARGEST = 1 << 20
_LATEST = 1 << 32
"""Seconds of the wall clock that still fit everywhere."""
_WATCHDOG_DID_IT = 0x0020  # WDIOF_CARDRESET, linux/watchdog.h


@dataclass(frozen=True, slots=True)
class Notebook:
    """Where it is written, and what was found there."""

    disk: Disk
    boot: str
    """Of the machine that runs now."""
    found: Mapping[str, Any]
    barked: bool = False
    """The watchdog says that it caused this boot."""


def read(path: Path) -> Mapping[str, Any]:
    """What an earlier guard wrote; nothing when there is nothing that can be read: it is a note, not a promise."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def barked(device: Path) -> bool:
    """Does the driver say that the watchdog caused this boot? Many cannot (softdog, for one)."""
    name = device.name if device.name != "watchdog" else "watchdog0"
    try:
        return bool(int(Path("/sys/class/watchdog", name, "bootstatus").read_text()) & _WATCHDOG_DID_IT)
    except (OSError, ValueError):
        return False


class Notes:
    """One per guard, in its thread."""

    def __init__(self, guard: Guard, book: Notebook | None, wall: Callable[[], float] = time.time) -> None:
        self._guard, self._book, self._wall = guard, book, wall
        self._reports: list[dict[str, Any]] = []
        self._written: Mapping[str, Any] = {}

    def start(self) -> None:
        """Read what the last guard wrote. One of an earlier boot that held something did not end in order."""
        if self._book is None:
            return
        found = self._book.found
        known = found.get("reports")
        self._reports = [r for r in known if _is_report(r)][-KEPT:] if isinstance(known, list) else []
        if found.get("boot") != self._book.boot:
            self._fell(found, barked=self._book.barked)
        self.look()

    def look(self) -> None:
        """Write down how things stand, if that has changed."""
        if self._book is None:
            return
        guard = self._guard
        content = {
            "boot": self._book.boot,
            "held": {g: guard.book.plans[g].plan.epoch for g in sorted(guard.held())},
            "watchdog": guard.parts.watchdog.name,
            "fencing": [
                {"groups": _groups(f), "reason": f.reason, "blockers": list(f.blockers) if f.looks > 3 else []}
                for f in guard.fencings
            ],
            "reports": list(self._reports),
        }
        if content == self._written:
            return
        self._written = content
        self._book.disk.put({"time": self._wall(), **content}, self._put)

    def fenced(self, job: Fencing) -> None:
        """A fence has ended: what it took down, and the time of each step."""
        if not any(g.permitted and g.entries for g in job.groups):
            return
        steps = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in job.steps.items())
        self._add("GuardFenced", _groups(job), f"{job.reason} ({steps})")

    def told(self, serial: int) -> None:
        """The store knows these."""
        self._reports = [r for r in self._reports if r["serial"] > serial]
        self.look()

    def to_json(self) -> list[dict[str, Any]]:
        """For the agent: what waits to be told."""
        return list(self._reports)

    def _fell(self, found: Mapping[str, Any], *, barked: bool) -> None:
        held, fencing, dog = found.get("held"), found.get("fencing"), found.get("watchdog", "none")
        armed = "" if dog == "none" else f"; its watchdog ({dog}) was armed"
        if isinstance(fencing, list) and fencing and isinstance(fencing[0], dict):
            jobs = [job for job in fencing if isinstance(job, dict)]
            groups = {g: e for job in jobs for g, e in _epochs(job.get("groups")).items()}
            why = "; ".join(str(job.get("reason", "")) for job in jobs)
            left = "; ".join(str(b) for job in jobs for b in _listed(job.get("blockers")))
            stuck = f"; not done: {left}" if left else ""
            self._add(
                "NodeFencedItself", groups, f"it went down while it gave up {_named(groups)}: {why}{stuck}{armed}"
            )
            return
        groups = _epochs(held)
        if groups and barked:
            self._add("NodeFencedItself", groups, f"its watchdog ({dog}) reset it while it held {_named(groups)}")
        elif groups:
            what = "it was reset, by its watchdog or by hand, or lost power" if armed else "it lost power or was reset"
            self._add("NodeWentDown", groups, f"{what} while it held {_named(groups)}{armed}")

    def _add(self, reason: str, groups: Mapping[str, int], cause: str) -> None:
        now = self._wall()
        serial = max(int(now * 1000), self._reports[-1]["serial"] + 1 if self._reports else 0)
        report = {
            "serial": serial,
            "time": now,
            "reason": reason,
            "groups": one_line(_named(groups))[:_MOST],
            "epoch": max(groups.values(), default=0),
            "cause": one_line(cause)[:LONGEST],
        }
        self._reports = [*self._reports, report][-KEPT:]
        self._guard.parts.push({"event": "note"})
        self.look()

    def _put(self, error: OSError | None) -> None:
        if error is not None:
            self._guard.counts["note not written"] += 1
            self._written = {}
            self._guard.parts.loop.at(self._guard.now() + AGAIN, self.look)


def _groups(job: Fencing) -> dict[str, int]:
    return {g.plan.group: g.plan.epoch for g in job.groups}


def _named(groups: Mapping[str, int]) -> str:
    return ", ".join(f"{group} (epoch {epoch})" for group, epoch in sorted(groups.items()))


def _epochs(found: object) -> dict[str, int]:
    return {str(g): e for g, e in found.items() if is_number(e)} if isinstance(found, dict) else {}


def _listed(found: object) -> list[object]:
    return found if isinstance(found, list) else []


def _is_report(found: object) -> bool:
    """One that this module wrote: others could not be passed on, and would stand in the way of the next ones."""
    if not isinstance(found, dict):
        return False
    texts = [found.get(key) for key in ("reason", "groups", "cause")]
    time = found.get("time")
    return (
        all(isinstance(text, str) and len(text) <= _MOST and text.isprintable() for text in texts)
        and is_number(found.get("serial"))
        and is_number(found.get("epoch"))
        and isinstance(time, int | float)
        and 0 <= time < _LATEST
    )
