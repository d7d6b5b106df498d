"""Tells the store what was observed: in batches, never in anybody's way, again until it is accepted."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import anyio
from google.protobuf.timestamp_pb2 import Timestamp

from hasys.api.convert import duration
from hasys.api.kinds import Ref
from hasys.model import events
from hasys.model.errors import HasysError, Refused
from hasys.reconciler.ports import Cluster, Report
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)

LINGER = 0.01
"""Seconds to collect before a report leaves: a group's start makes several changes in a few milliseconds."""
RETRY_FIRST, RETRY_MAX = 0.1, 2.0
"""Seconds until a report is sent again."""
MAX_EVENTS = 500
"""Events kept while no server is reached; the oldest go first."""
MAX_BATCH = 200
"""Statuses, and events, in one report."""


class Reporter:
    """One per agent. :meth:`status` is level-based: say what is, as often as you like; only differences travel."""

    def __init__(self, cluster: Cluster, node: str, wall: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._node = node
        self._wall = wall
        self._said: dict[Ref, pb.ResourceStatus] = {}
        self._waiting: dict[Ref, pb.ResourceStatus] = {}
        self._said_of: dict[Ref, mpb.MonitorResult] = {}
        self._results: dict[Ref, mpb.MonitorResult] = {}
        self._events: deque[tuple[float, pb.Event]] = deque(maxlen=MAX_EVENTS)
        """With the time of the event loop's monotonic clock."""
        self._news = anyio.Event()

    def status(self, ref: Ref, status: pb.ResourceStatus, stored: pb.ResourceStatus) -> None:
        """What is observed (without ``since``), and what the store has. Differences are sent."""
        last = self._said.get(ref, stored)
        if _same(last, status):
            return
        status.since.CopyFrom(last.since if last.state == status.state and last.epoch == status.epoch else self._now())
        self._said[ref] = self._waiting[ref] = status
        self._news.set()

    def result(self, ref: Ref, result: mpb.MonitorResult, stored: mpb.MonitorResult) -> None:
        """What a monitor found (without ``since``), and what the store has of this node. Differences are sent."""
        last = self._said_of.get(ref, stored)
        result.since.CopyFrom(last.since)
        if last == result:
            return
        if (last.state, last.epoch) != (result.state, result.epoch):
            result.since.CopyFrom(self._now())
        self._said_of[ref] = self._results[ref] = result
        self._news.set()

    def again(self, ref: Ref) -> None:
        """Send the next status of this resource even if nothing differs: a new attempt wants fresh word."""
        self._said[ref] = pb.ResourceStatus()

    def forget(self) -> None:
        """The store was read anew: compare with what it has, not with what was said."""
        self._said = dict(self._waiting)
        self._said_of = dict(self._results)

    def event(self, reason: str, ref: Ref, epoch: int, cause: str, took: float | None = None) -> None:
        """Record an event about a resource or group. ``reason`` is in hasys/model/events.py, which also says what
        ``took`` (seconds) measures."""
        row = events.reason(reason)
        group = ref.group or ref.name
        message = events.text(reason, resource=ref.name, group=group, node=self._node, cause=cause)
        event = pb.Event(
            type=row.grade.value,
            reason=reason,
            message=message,
            actor=f"agent/{self._node}",
            node=self._node,
            regarding=ref.key(),
            epoch=epoch,
            time=self._now(),
            cause=cause,
        )
        if took is not None:
            event.duration.CopyFrom(duration(round(max(0.0, took), 6)))
        self._events.append((anyio.current_time(), event))
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._news.wait()
            await anyio.sleep(LINGER)
            self._news = anyio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Send what waits, until it is accepted or refused for good."""
        delay = RETRY_FIRST
        while self._waiting or self._events or self._results:
            statuses = dict(list(self._waiting.items())[:MAX_BATCH])
            happened = self._dated(tuple(self._events)[:MAX_BATCH])
            results = dict(list(self._results.items())[:MAX_BATCH])
            try:
                refused = await self._cluster.report(Report(statuses, happened, results))
            except Refused as e:
                log.error("report refused: %s", e)
                refused = ()
            except HasysError as e:
                log.warning("report delayed: %s", e)
                await anyio.sleep(delay)
                delay = min(delay * 2, RETRY_MAX)
                continue
            for line in refused:
                log.debug("status refused: %s", line)
            self._sent(statuses, happened)
            self._results = {ref: r for ref, r in self._results.items() if results.get(ref) is not r}

    @staticmethod
    def _dated(events: tuple[tuple[float, pb.Event], ...]) -> tuple[pb.Event, ...]:
        """The events with how long ago each happened: the leader makes times of its own clock of it."""
        now = anyio.current_time()
        for at, event in events:
            event.age.CopyFrom(duration(round(now - at, 6)))
        return tuple(event for _, event in events)

    def _sent(self, statuses: dict[Ref, pb.ResourceStatus], happened: tuple[pb.Event, ...]) -> None:
        """Forget what left; what changed on the way stays."""
        for ref, status in statuses.items():
            if self._waiting.get(ref) is status:
                del self._waiting[ref]
                if status.gone:
                    del self._said[ref]
        for event in happened:
            if self._events and self._events[0][1] is event:
                self._events.popleft()

    def _now(self) -> Timestamp:
        now = self._wall()
        return Timestamp(seconds=int(now), nanos=int(now % 1 * 1e9))


def _same(a: pb.ResourceStatus, b: pb.ResourceStatus) -> bool:
    """Equal but for ``since``."""
    left, right = pb.ResourceStatus(), pb.ResourceStatus()
    left.CopyFrom(a)
    right.CopyFrom(b)
    left.ClearField("since")
    right.ClearField("since")
    return left == right
