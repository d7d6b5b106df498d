"""The process ``hasys telemetry run``: follows the cluster through the API and exports what node.yaml asks for.

It may die, hang or be refused its port: nothing of the cluster waits for it, and its supervisor starts it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from hasys import __version__
from hasys.api.client import Client, from_node_config
from hasys.api.timeline import BEGINS, ENDS, timelines
from hasys.cancelled import lasting
from hasys.config import NodeConfig
from hasys.model.errors import ConfigRefused, HasysError
from hasys.model.lines import log_to_stderr
from hasys.notify import ALIVE, READY, Notifier
from hasys.telemetry.endpoint import Endpoint, Page
from hasys.telemetry.exporter import Exporter, otlp_metrics, otlp_spans, prometheus
from hasys.telemetry.traces import STEPS
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger("hasys.telemetry")

NICE = 10
"""Behind all that keeps a service alive."""
FRESH = 1.0
"""Seconds for which a status that was read is good enough for the next scrape."""
ASKING = 3.0
"""Seconds that the servers get to answer."""
SETTLE = 10.0
"""Seconds after the end of a move in which reports of it may still come; then it is counted and traced."""
LEAVE = 1.0
"""Seconds that the collector gets for the rest when this process is stopped."""
_GONE = ("GroupUnassigned", "GroupStopped", "GroupDeleted")
"""After these no move of the group is under way."""
KEPT = 10_000
"""Events of which timelines are made."""


class Cluster(Protocol):
    """The API client, as far as it is used here."""

    async def status(self, group: str = "", *, timeout: float = ASKING) -> api.StatusResponse: ...

    def watch(self, kinds: Sequence[str] = (), group: str = "") -> AsyncIterator[api.WatchResponse]: ...


class Telemetry:
    """Status on demand, events as they come."""

    def __init__(self, cluster: Cluster, exporter: Exporter, settle: float = SETTLE) -> None:
        self._cluster = cluster
        self._exporter = exporter
        self._settle = settle
        self._read_at = -FRESH
        self._reading = asyncio.Lock()
        self._events: deque[pb.Event] = deque(maxlen=KEPT)
        self._ended: set[tuple[str, int]] = set()
        self._moving: dict[str, int] = {}
        """Group -> the epoch whose move is not told yet: what happens meanwhile belongs to that."""
        self._steps: dict[tuple[str, int, str], list[pb.Event]] = {}
        """What a node is doing now for a group that stays where it is, by group, epoch and node."""
        self._counted: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def read(self) -> None:
        """Give the exporter a status that is fresh enough, or none."""
        async with self._reading:
            loop = asyncio.get_running_loop()
            if loop.time() - self._read_at < FRESH:
                return
            try:
                async with asyncio.timeout(ASKING):
                    self._exporter.status = await self._cluster.status(timeout=ASKING)
            except (HasysError, TimeoutError) as e:
                log.debug("no status: %s", e)
                self._exporter.status = None
            self._read_at = loop.time()

    async def follow(self) -> None:
        """Count events and, once they have ended, moves. What was recorded before this process is counted by none."""
        async with asyncio.TaskGroup() as tasks:
            synced = False
            async for answer in self._cluster.watch(["Event"]):
                for change in answer.changes:
                    if change.type == api.WatchResponse.SYNCED:
                        synced = True
                    elif change.type == api.WatchResponse.ADDED and change.object.HasField("event"):
                        self._take(change.object.event, tasks if synced else None)

    def _take(self, event: pb.Event, tasks: asyncio.TaskGroup | None) -> None:
        self._events.append(event)
        key = (event.regarding.name, event.epoch)
        ends = event.regarding.kind == "Group" and event.reason in ENDS and key not in self._ended
        if ends:
            self._ended.add(key)
        elif event.regarding.kind == "Group" and event.reason in BEGINS:
            self._ended -= {one for one in self._ended if one[0] == key[0]}
            self._moving[key[0]] = event.epoch
        elif event.reason in _GONE:
            self._moving.pop(key[0], None)
        if tasks is not None:
            self._exporter.count(event)
            if ends:
                tasks.create_task(self._moved(key))
            self._step(event, tasks)
        elif ends:
            self._told(key)

    async def _moved(self, key: tuple[str, int]) -> None:
        await asyncio.sleep(self._settle)
        for line in timelines(event for event in self._events if _concerns(event, key[0])):
            if (line.group, line.epoch) == key:
                self._exporter.moved(line)
        self._told(key)

    def _told(self, key: tuple[str, int]) -> None:
        if self._moving.get(key[0]) == key[1]:
            del self._moving[key[0]]

    def _step(self, event: pb.Event, tasks: asyncio.TaskGroup) -> None:
        """Gather what a node does for a group that stays where it is; the first step begins a trace."""
        group = event.regarding.group or event.regarding.name
        if event.reason not in STEPS or not event.node or group in self._moving:
            return
        key = (group, event.epoch, event.node)
        if key not in self._steps:
            self._steps[key] = []
            tasks.create_task(self._reconciled(key))
        self._steps[key].append(event)

    async def _reconciled(self, key: tuple[str, int, str]) -> None:
        await asyncio.sleep(self._settle)
        self._exporter.reconciled(self._steps.pop(key))


def _concerns(event: pb.Event, group: str) -> bool:
    return event.regarding.group == group or (event.regarding.kind == "Group" and event.regarding.name == group)


async def _push(telemetry: Telemetry, exporter: Exporter, interval: float) -> None:
    """Send by OTLP once per interval."""
    while True:
        await telemetry.read()
        await asyncio.to_thread(exporter.flush, interval)
        await asyncio.sleep(interval)


async def serve(config: NodeConfig, stop: asyncio.Event) -> None:
    """Export until ``stop``."""
    wanted = config.telemetry
    assert wanted is not None, "checked by run"
    readers = []
    page: Callable[[], bytes] | None = None
    if wanted.port:
        reader, page = prometheus()
        readers.append(reader)
    if wanted.endpoint and wanted.metrics:
        readers.append(otlp_metrics(wanted.endpoint))
    spans = otlp_spans(wanted.endpoint) if wanted.endpoint and wanted.traces else None
    exporter = Exporter(config.cluster, config.name, __version__, readers, spans)
    async with Client(from_node_config(config), lasting=True) as client, asyncio.TaskGroup() as tasks:
        telemetry = Telemetry(client, exporter)
        running: list[asyncio.Task[None]] = [tasks.create_task(lasting("watch", telemetry.follow))]
        if page is not None:
            endpoint = Endpoint(_page(telemetry, page), wanted.address, wanted.port)
            running.append(tasks.create_task(lasting("endpoint", endpoint.run)))
        if wanted.endpoint:
            push = functools.partial(_push, telemetry, exporter, wanted.interval)
            running.append(tasks.create_task(lasting("push", push)))
        running.append(tasks.create_task(_show_life(Notifier.from_environment())))
        await stop.wait()
        for task in running:
            task.cancel()
    closing = threading.Thread(target=exporter.close, daemon=True)
    closing.start()
    await asyncio.to_thread(closing.join, LEAVE)


def _page(telemetry: Telemetry, page: Callable[[], bytes]) -> Page:
    async def made() -> bytes:
        await telemetry.read()
        return page()

    return made


async def _show_life(listener: Notifier) -> None:
    listener.say(READY)
    while listener.period:
        listener.say(ALIVE)
        await asyncio.sleep(listener.period)


async def _until_signal(config: NodeConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(config, stop)
    logging.shutdown()
    os._exit(0)  # a collector that does not answer keeps threads waiting: the node's stop does not wait for them


def run(config: NodeConfig) -> None:
    """The process. Raises ``ConfigRefused`` when node.yaml asks for nothing of it."""
    log_to_stderr(config.log.form, "telemetry", config.name)
    if config.telemetry is None:
        raise ConfigRefused(f"{config.path}: telemetry: not set: docs/telemetry.md says how")
    with contextlib.suppress(OSError):
        os.nice(NICE)
    asyncio.run(_until_signal(config))
