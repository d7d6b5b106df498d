"""The store as the agent sees it: :class:`hasys.reconciler.ports.Cluster` over the API client."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Sequence

import anyio

from hasys.api.auth import NO_MEMBER
from hasys.api.client import Client
from hasys.api.errors import Denied
from hasys.api.kinds import MEMBER_KINDS
from hasys.model.errors import Refused
from hasys.reconciler.ports import Batch, Report
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)

_UNKNOWN = re.compile(r"kind '(\w+)' is unknown")
REMOVED = 5.0
"""Seconds between two attempts of an agent whose node was removed: it may be added again."""
KINDS = ("Group", "Node", "Fencing", "Cluster", "Event", *MEMBER_KINDS)


class ApiCluster:
    """Agents keep to their own node's server while it answers."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node
        self._removed = False

    async def watch(self) -> AsyncIterator[Batch]:
        kinds = list(KINDS)
        while True:
            try:
                async for answer in self._watch(kinds):
                    yield batch(answer)
                return
            except Refused as e:
                # a leader of the version before, during an upgrade: what it does not know it cannot hold either
                unknown = _UNKNOWN.search(str(e))
                if unknown is None or unknown[1] not in kinds:
                    raise
                log.warning("the leader's version knows no kind %s: left out until this agent restarts", unknown[1])
                kinds.remove(unknown[1])

    def set_servers(self, servers: Sequence[str]) -> None:
        """Ask these from now on."""
        self._client.set_servers(servers)

    async def operations(self) -> AsyncIterator[pb.Operation]:
        """Every operation as it is now, and again whenever it changes; until cancelled."""
        async for answer in self._watch(["Operation"]):
            for change in answer.changes:
                if change.type != api_pb2.WatchResponse.DELETED and change.object.HasField("operation"):
                    yield change.object.operation

    async def _watch(self, kinds: Sequence[str]) -> AsyncIterator[api_pb2.WatchResponse]:
        """The client's watch. While this node is no member it waits, instead of an agent that ends again and again."""
        while True:
            try:
                async for answer in self._client.watch(kinds):
                    self._note(removed=False)
                    yield answer
                return
            except Denied as e:
                if NO_MEMBER not in str(e):
                    raise
            self._note(removed=True)
            await anyio.sleep(REMOVED)

    def _note(self, *, removed: bool) -> None:
        if removed and not self._removed:
            log.error(
                "%s is no member of the cluster any more: stop hasys here and remove its folder, or add it again",
                self._node,
            )
        elif self._removed and not removed:
            log.warning("%s is a member of the cluster again", self._node)
        self._removed = removed

    async def report(self, report: Report) -> Sequence[str]:
        statuses = [api_pb2.StatusReport(key=ref.key(), status=s) for ref, s in report.statuses.items()]
        results = [api_pb2.MonitorReport(key=ref.key(), result=r) for ref, r in report.results.items()]
        answer = await self._client.report(
            self._node, statuses, report.events, runs=report.runs, results=results, figures=report.figures
        )
        return list(answer.refused)


def batch(answer: api_pb2.WatchResponse) -> Batch:
    """One answer of the watch, in its order."""
    types = api_pb2.WatchResponse
    told = (types.ADDED, types.MODIFIED, types.DELETED)
    objects = [c for c in answer.changes if c.type in told and c.object.WhichOneof("kind") != "event"]
    return Batch(
        changes=[(c.object, c.type == types.DELETED) for c in objects],
        synced=any(c.type == types.SYNCED for c in answer.changes),
        events=[c.object.event for c in answer.changes if c.type == types.ADDED and c.object.HasField("event")],
    )
