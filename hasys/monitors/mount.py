"""Mounts: there, and not read-only; or not there. Read from the kernel's own table, which never waits for a disk."""

from __future__ import annotations

from collections.abc import Mapping

from hasys.monitors.port import Check, Found, judged
from hasys.v1 import monitors_pb2 as mpb

TABLE = "/proc/self/mountinfo"


def mounts(table: str = TABLE) -> Mapping[str, bool]:
    """Mount point -> is it read-only (the mount, or its file system)? Of several on one path the last one counts."""
    found: dict[str, bool] = {}
    with open(table) as file:
        for line in file:
            left, _, right = line.partition(" - ")
            before, after = left.split(), right.split()
            path = before[4].encode("latin-1", "backslashreplace").decode("unicode_escape")
            found[path] = "ro" in before[5].split(",") or "ro" in after[2].split(",")
    return found


class MountCheck(Check):
    """See the module."""

    def __init__(self, spec: mpb.MountMonitor, table: str = TABLE) -> None:
        self._spec = spec
        self._table = table

    async def look(self) -> Found:
        known = mounts(self._table)
        return judged(self._spec.need, {path: self._trouble(path, known) for path in self._spec.paths})

    def _trouble(self, path: str, known: Mapping[str, bool]) -> str:
        point = path.rstrip("/") or "/"
        if self._spec.unmounted:
            return f"something is mounted at {point}" if point in known else ""
        if point not in known:
            return f"nothing is mounted at {point}"
        return f"{point} is read-only" if known[point] and not self._spec.read_only_allowed else ""
