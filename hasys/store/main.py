"""The store process: consensus, API, grants and controllers in one event loop. A witness runs exactly this.

Any part that ends, ends the process: half a store would look alive and do nothing. The supervisor starts it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from hasys import memory
from hasys.api.server import ApiServer
from hasys.api.server.calls import Method, Writer
from hasys.api.server.maintenance import Maintenance
from hasys.cancelled import lasting
from hasys.config import NodeConfig
from hasys.lease.wire import DISK_NOTE
from hasys.model import level
from hasys.model.errors import HasysError
from hasys.model.lines import log_to_stderr
from hasys.model.timing import show
from hasys.notify import ALIVE, READY, Notifier
from hasys.store import seed
from hasys.store.assigned import Assigned
from hasys.store.controllers import Controllers
from hasys.store.directory import Directory
from hasys.store.leases import LeaseServer
from hasys.store.machine import Changed, Machine
from hasys.store.port import Applied
from hasys.store.raft.engine import DiskFailed, RaftEngine
from hasys.store.status import StatusSource
from hasys.store.watch import WatchHub

log = logging.getLogger("hasys.store")

HAND_OVER = 1.0
"""Seconds that a stopping leader waits for another member to lead."""
GC_THRESHOLD = 5_000
"""Allocations between two young collections. gRPC leaves a circle of objects behind with each call, with the caller's
metadata in it: with 50,000 these grew to 20 MB before anybody looked. Half a millisecond, three times a second at most.
"""

NICE = -10
"""Leases and heartbeats are due within milliseconds, and cost little: before ordinary work, where that is allowed."""


class MeasuredEngine(RaftEngine):
    """Tells how long each write took."""

    note: Callable[[float], None] = staticmethod(lambda seconds: None)

    async def propose(self, command: bytes, *, timeout: float) -> Applied:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        applied = await super().propose(command, timeout=timeout)
        self.note(loop.time() - begun)
        return applied


class Store:
    """The parts of the process and how they know of each other."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.machine = Machine()
        self._timing, _ = seed.timings(config, self.machine)
        self.engine = MeasuredEngine(config, self._timing, self.machine, data_dir=config.data_dir)
        self.assigned = Assigned(self.machine, self._watchdog)
        self.leases = LeaseServer(config, self.engine, self.assigned, self._timing)
        self.controllers = Controllers(config, self.machine, self.engine, self.leases)
        self._clock = asyncio.get_running_loop().time
        self.status = StatusSource(
            config.name,
            self.machine,
            self.engine,
            self.leases,
            self.assigned,
            self.controllers,
            self._clock,
            config.policy,
        )
        self.engine.note = self.status.commits.note
        self.hub = WatchHub(self.machine)
        self.directory = Directory(config, self.machine, self.engine)
        self.api = ApiServer(
            config, self.engine, self.machine, self.hub, self.status.fill, self._maintenance,
            self.status.figures,
        )  # fmt: skip
        self.directory.subscribe(self._members_changed)
        self.engine.on_change(lambda: config.store_trouble.unlink(missing_ok=True))
        self._watchdogs: dict[str, float] = {}
        self.machine.subscribe(self._retime)
        self.leases.on_change(self._lease_news)

    def parts(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What runs, by the name that logs and errors use."""
        return {
            "consensus": self.engine.run,
            "leases": self.leases.run,
            "API": self.api.run,
            "controllers": self.controllers.run,
            "liveness": self._show_life,
        }

    async def _show_life(self) -> None:
        """To systemd or our supervisor: it serves, and this loop turns."""
        listener = Notifier.from_environment()
        await self.api.listening.wait()
        listener.say(READY)
        while listener.period:
            listener.say(ALIVE)
            await asyncio.sleep(listener.period)
        await asyncio.Event().wait()

    # ------------------------------------------------------------ what one part tells the others
    def _lease_news(self) -> None:
        self._read_watchdogs()
        self.controllers.wake()
        self.api.status_changed()

    def _maintenance(self, writer: Writer) -> Iterable[Method]:
        return Maintenance(self.config, self.machine, self.engine, self.directory, writer).methods()

    def _members_changed(self) -> None:
        """Grants, API and controllers know the new ones; consensus knew before."""
        self.leases.set_members(self.directory.members)
        self.api.set_members(self.directory.members)
        self.controllers.wake()

    def _retime(self, index: int, changes: Sequence[Changed]) -> None:
        """The replicated timing changed: every part uses it from now on. Raises ``Refused`` when the cluster's level is
        one that this version does not have."""
        if changes and all(change.ref.kind != "Cluster" for change in changes):
            return
        level.check(self.machine.level)
        timing, ttl_max = seed.timings(self.config, self.machine)
        if timing != self._timing:
            log.info("timing changed: ttl %s, heartbeat %s", show(timing.ttl), show(timing.heartbeat))
        self._timing = timing
        self.engine.set_timing(timing)
        self.leases.retime(timing, ttl_max)

    def _watchdog(self, node: str) -> float:
        return self._watchdogs.get(node, 0.0)

    def _read_watchdogs(self) -> None:
        """Armed watchdogs delay a takeover: the grants must know them."""
        found = {name: facts.health.watchdog_timeout for name, facts in self.leases.facts(self._clock()).items()}
        if found != self._watchdogs:
            self._watchdogs = found
            self.assigned.refresh()


async def serve(config: NodeConfig, stop: asyncio.Event) -> None:
    """Run every part until ``stop`` is set; a leader hands over first. Raises what ended a part.

    asyncio's own task group: it cancels a part once, so that each can still await its orderly end.
    """
    store = Store(config)
    with memory.looked_at_once(lambda: store.engine.status().leader == config.name):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(lasting(name, part), name=name) for name, part in store.parts().items()]
            log.info("serving as %s of cluster %s", config.name, config.cluster)
            await stop.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HAND_OVER):
                    await store.engine.hand_over()
            for task in tasks:
                task.cancel()


async def _until_signal(config: NodeConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    gc.collect()
    gc.freeze()  # what was imported stays for ever: no collection needs to look at it again
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)
    log.info("stopped")


def run(config: NodeConfig) -> None:
    """The process. Ends with exit status 1 and one line when a part fails."""
    log_to_stderr(config.log.form, "store", config.name)
    _before_others()
    try:
        memory.lock(touched_only=True)
    except OSError as e:
        log.info("memory not locked (%s): under memory pressure this store may be slow to answer", e.strerror)
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    try:
        asyncio.run(_until_signal(config))
    except* HasysError as errors:
        for error in _leaves(errors):
            log.critical("%s", error)
        text = "; ".join(map(str, _leaves(errors)))
        of_disk = any(isinstance(error, DiskFailed) for error in _leaves(errors))
        _leave_note(config, f"{DISK_NOTE}{text}" if of_disk else text)
        raise SystemExit(1) from None


def _before_others() -> None:
    """Priority, where it is allowed. With ``sched(7)``'s autogroups a nice value only counts within a session, and the
    session's among all; a store in a session of its own sets both."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # there are none, or it is not allowed
            Path("/proc/self/autogroup").write_text(str(NICE))


def _leave_note(config: NodeConfig, text: str) -> None:
    """For the guard, which goes on and says it to the others: status then tells why this store does not answer."""
    with contextlib.suppress(OSError):
        config.store_trouble.write_text(f"{text}\n", "utf-8")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for child in error.exceptions for leaf in _leaves(child)]
    return [error]
