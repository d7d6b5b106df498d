"""What must hold in every round, read from the records of the instruments."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from hasys.lab.feed import brief
from hasys.lab.records import Question
from hasys.lab.shell import LabError
from hasys.lab.verdict import holds, overlaps
from tests.lab.stage import GROUP, VIP, Stage
from tests.lab.storm.app import marks_of
from tests.lab.storm.strikes import NOTES

ANSWERED = 1.0
"""Seconds of the past in which an answer means that the address is served."""


class Violation(AssertionError):
    """A promise was broken."""


def never_two(stage: Stage, marks: Path, since: float, *, guarded: bool) -> None:
    """S1a for addresses, by asking each machine; S1b for the application, by what it wrote itself, if a guard stood by
    all the time."""
    found = stage.watch.overlaps(since)
    if found:
        raise Violation("S1a: two holders: " + "; ".join(map(str, found[:5])))
    ran = {n: [Question(t, t) for t in marks_of(marks / n, since)] for n in stage.cluster.nodes}
    both = overlaps(ran)
    if both and guarded:
        raise Violation("S1b: the application ran twice: " + "; ".join(map(str, both[:5])))


def served(stage: Stage, since: float) -> bool:
    """Did the client get an answer lately?"""
    return any(q.received for q in stage.probe.questions(max(since, time.monotonic() - ANSWERED)))


def told(stage: Stage) -> str:
    """S5: while the service is away, a status that can be had says so, with a reason. Returns what it says."""
    try:
        status = json.loads(stage.cluster.hasys("status", "-o", "json", timeout=15))
    except (LabError, ValueError):
        return "no status"
    group = next(g for g in status["groups"] if g["name"] == GROUP)
    if group["phase"] == "Running" and not group["reason"] and not served(stage, 0.0):
        raise Violation(f"S5: {VIP} is not served, and status says: {brief(status)}")
    return brief(status)


def nothing_lost(stage: Stage, acknowledged: Sequence[str]) -> None:
    """S2: every acknowledged write is there."""
    if not acknowledged:
        return
    text = stage.cluster.hasys("get", "delay", "-g", NOTES, "-o", "json")
    found = {item["metadata"]["name"] for item in json.loads(text)["items"]}
    lost = [name for name in acknowledged if name not in found]
    if lost:
        raise Violation(f"S2: acknowledged and lost: {lost}")


def held_at(stage: Stage, since: float) -> dict[str, int]:
    """How many times each machine began to hold the address: moves and gaps of a round."""
    return {name: len(holds(asked)) for name, asked in stage.watch.asked(VIP, since).items()}
