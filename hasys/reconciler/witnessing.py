"""Tells the store what an operator did here while there was no majority, and what the guard did or found after a
reset, when the store is there: nothing of it is lost."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import anyio
from google.protobuf.timestamp_pb2 import Timestamp

from hasys.api.kinds import Ref
from hasys.guard.client import Note, OathReport
from hasys.model import events
from hasys.model.errors import HasysError
from hasys.reconciler.ports import Report
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds between attempts, and between looks while nothing is to be told."""


class Source(Protocol):
    """The guard, which keeps the reports until they are told."""

    @property
    def untold(self) -> bool: ...

    async def reports(self) -> Sequence[OathReport]: ...

    async def told(self, serial: int) -> None: ...

    async def notes(self) -> Sequence[Note]: ...

    async def noted(self, serial: int) -> None: ...


class Witnessing:
    """One per agent. ``look`` when the store was read anew, or the guard said something about an oath."""

    def __init__(self, source: Source, report: Callable[[Report], Awaitable[Sequence[str]]], node: str) -> None:
        self._source = source
        self._report = report
        self._node = node
        self._news = anyio.Event()

    def look(self) -> None:
        """There may be something to tell."""
        self._news.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            try:
                await self._tell()
            except HasysError as e:
                log.info("what the guard has to say is not reported yet: %s", e)
                self._news.set()
                await anyio.sleep(AGAIN)

    async def _tell(self) -> None:
        if not self._source.untold:
            return
        reports = await self._source.reports()
        notes = await self._source.notes()
        if reports or notes:
            events = [*map(self._event, reports), *map(self._of_note, notes)]
            await self._report(Report(events=tuple(events)))
        if notes:
            await self._source.noted(notes[-1].serial)
        await self._source.told(reports[-1].serial if reports else 0)

    def _event(self, report: OathReport) -> pb.Event:
        reason = "OathSworn" if report.begun else "OathEnded"
        return pb.Event(
            type=events.reason(reason).grade.value,
            reason=reason,
            message=events.text(reason, group=report.group, node=self._node, cause=report.cause),
            actor=f"agent/{self._node}",
            node=self._node,
            regarding=Ref("Group", "", report.group).key(),
            epoch=report.epoch,
            time=Timestamp(seconds=int(report.time), nanos=int(report.time % 1 * 1e9)),
        )

    def _of_note(self, note: Note) -> pb.Event:
        row = events.CATALOGUE.get(note.reason, events.reason("GuardFenced"))  # a newer guard may have more reasons
        return pb.Event(
            type=row.grade.value,
            reason=row.name,
            message=events.text(row.name, group=note.groups, node=self._node, cause=note.cause),
            actor=f"guard/{self._node}",
            node=self._node,
            regarding=Ref("Node", "", self._node).key(),
            epoch=note.epoch,
            time=Timestamp(seconds=int(note.time), nanos=int(note.time % 1 * 1e9)),
        )
