"""Tells the store what an operator did here while there was no majority, and what the guard did or found after a
reset, when the store is there: nothing of it is lost."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from anyio import to_thread
from google.protobuf.timestamp_pb2 import Timestamp

from hasys.api.kinds import Ref
from hasys.guard.client import Note, OathReport
from hasys.guard.protocol import ADOPTED
from hasys.model import events
from hasys.reconciler.aside import Aside
from hasys.reconciler.ports import Report
from hasys.reconciler.telling import Telling
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)


class Source(Protocol):
    """The guard, which keeps the reports until they are told."""

    @property
    def untold(self) -> bool: ...

    async def reports(self) -> Sequence[OathReport]: ...

    async def told(self, serial: int) -> None: ...

    async def notes(self) -> Sequence[Note]: ...

    async def noted(self, serial: int) -> None: ...


class Witnessing(Telling):
    """One per agent. ``look`` when the store was read anew, or the guard said something about an oath."""

    def __init__(
        self,
        source: Source,
        report: Callable[[Report], Awaitable[Sequence[str]]],
        node: str,
        aside: Aside | None = None,
    ) -> None:
        super().__init__("what the guard has to say is not reported yet")
        self._source = source
        self._report = report
        self._node = node
        self._aside = aside
        """None: nothing is kept aside."""

    async def _tell(self) -> None:
        if not self._source.untold:
            return
        reports = await self._source.reports()
        notes = await self._source.notes()
        if reports or notes:
            events = [self._event(await self._keep_aside(r)) for r in reports]
            events += [event_of(n, self._node) for n in notes]
            await self._report(Report(events=tuple(events)))
        if notes:
            await self._source.noted(notes[-1].serial)
        await self._source.told(reports[-1].serial if reports else 0)

    async def _keep_aside(self, report: OathReport) -> OathReport:
        """What did not become the cluster's history is written down first; the report then says where."""
        if report.begun or self._aside is None or report.cause.startswith(ADOPTED):
            return report
        path = self._aside.path(report)
        try:
            await to_thread.run_sync(self._aside.write, report)
        except OSError as e:
            log.warning("%s: not kept aside: %s", path, e.strerror)
            return report
        return replace(report, cause=f"{report.cause}; what ran there meanwhile: {path} on {self._node}")

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


def event_of(note: Note, node: str) -> pb.Event:
    """What the guard of a node noted, for the store."""
    row = events.CATALOGUE.get(note.reason, events.reason("GuardFenced"))  # a newer guard may have more reasons
    return pb.Event(
        type=row.grade.value,
        reason=row.name,
        message=events.text(row.name, group=note.groups, node=node, cause=note.cause),
        actor=f"guard/{node}",
        node=node,
        regarding=Ref("Node", "", node).key(),
        epoch=note.epoch,
        time=Timestamp(seconds=int(note.time), nanos=int(note.time % 1 * 1e9)),
    )
