"""The loop that applies decisions while this member leads. Level-based: a lost write or wake-up costs one more look.

It never acts without the engine's authority, and what it writes is conditional on what it read. A member that
overslept does not call others silent: its own ears were closed too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from hasys.config import TAKING_OVER, NodeConfig
from hasys.model import events, level
from hasys.model.errors import HasysError
from hasys.model.view import View
from hasys.placement.decide import decide
from hasys.placement.effects import Record
from hasys.placement.lasted import why_free
from hasys.store import seed
from hasys.store.machine import Changed, Machine
from hasys.store.picture import Leases, Picture, Reign
from hasys.store.port import Authority, Engine
from hasys.store.writing import command_of, recording
from hasys.v1 import store_pb2

log = logging.getLogger("hasys.controllers")

PROPOSAL = 3.0
"""Seconds that one write may take before it is decided anew."""
PAUSE = 0.2
"""Seconds before the next look after writes that the engine did not take."""
IDLE = 5.0
"""Longest time between two looks: the full truth is read again however few wake-ups came."""
SPACING = 0.005
"""Shortest time between two looks that news ask for."""
CALM = 0.03
"""The same when the news are of resources alone, which clients and agents write in bursts: nobody's outage waits."""
FOLLOWING = 0.5
"""The same on a member that does not lead: what it has read it needs only when it leads, and then it reads the rest."""
OVERSLEPT = 0.1
"""Seconds of lateness after which what was heard last says nothing about silence."""


class LeaseSide(Leases, Protocol):
    """The lease server as the controllers use it."""

    def settled(self, now: float) -> bool:
        """No grant with another TTL than the present one can still run."""
        ...

    def handed(self) -> Sequence[tuple[str, str, int, float]]:
        """Group, node, epoch and time of what was granted to a new holder since the last call."""
        ...


@dataclass(frozen=True, slots=True)
class _Wake:
    """When to look again, and whether something was written that changes the picture."""

    at: float
    wrote: bool = False
    calm: float = CALM
    """Seconds without another look for news that are not urgent."""


class Controllers:
    """Runs in the store's event loop. ``wake`` may be called by anybody who knows of news."""

    def __init__(self, config: NodeConfig, machine: Machine, engine: Engine, leases: LeaseSide) -> None:
        self._config = config
        self._machine = machine
        self._engine = engine
        self._leases = leases
        self._picture = Picture(config.name, machine, engine, leases)
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        """Set with ``_news`` when a group may have to move or an operation to begin."""
        self._reign: Reign | None = None
        self._followed = False
        """This process has seen another leader, or an earlier leadership of its own: the cluster is not cold."""
        self._deaf_until = 0.0
        self._waiting = False
        machine.subscribe(self._changed)
        engine.on_change(self.wake)

    # ------------------------------------------------------------ wake-ups
    def wake(self) -> None:
        """Look again now."""
        self._urgent.set()
        self._news.set()

    @property
    def at_rest(self) -> bool:
        """Nothing is left to decide until news come or a time passes."""
        return self._waiting and not self._news.is_set()

    def _changed(self, index: int, changes: Sequence[Changed]) -> None:
        of_resources = any(change.ref.group for change in changes)  # their group changes with them
        calm = ("Event", "Group") if of_resources else ("Event",)
        if not changes or any(change.ref.kind not in calm and not change.ref.group for change in changes):
            self.wake()
        elif of_resources:
            self._news.set()

    async def run(self) -> None:
        """Look, write, wait; until cancelled. An unexpected error ends it, and with it the process."""
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            self._urgent.clear()
            now = loop.time()
            wake = await self._look()
            if wake.wrote:
                continue
            late = await self._wait(wake.at)
            await self._gather(now + SPACING, min(now + wake.calm, wake.at))
            if late > OVERSLEPT:
                timing, ttl_max = seed.timings(self._config, self._machine)
                self._deaf_until = loop.time() + 2 * timing.patient(ttl_max).keepalive
                log.warning("overslept by %.3f s: nobody is called silent for a moment", late)

    async def _wait(self, until: float) -> float:
        """Until news or a time; returns by how many seconds the timer was late."""
        loop = asyncio.get_running_loop()
        self._waiting = True
        try:
            async with asyncio.timeout_at(until):
                await self._news.wait()
        except TimeoutError:
            return loop.time() - until
        finally:
            self._waiting = False
        return 0.0

    async def _gather(self, soon: float, calm: float) -> None:
        """One look for a burst of news: not before ``soon``, and not before ``calm`` unless something is urgent."""
        loop = asyncio.get_running_loop()
        if loop.time() < calm and not self._urgent.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(calm):
                    await self._urgent.wait()
        if loop.time() < soon:
            await asyncio.sleep(soon - loop.time())

    # ------------------------------------------------------------ one look
    def read(self) -> Iterator[None]:
        """Before a view: read what changed, in steps that are short."""
        return self._picture.read()

    def view(self, now: float) -> View | None:
        """What the leader sees, also for status; None without authority."""
        authority = self._engine.authority()
        if authority is None:
            return None
        timing, ttl_max = seed.timings(self._config, self._machine)
        view = self._picture.view(now, self._reign_of(authority, now), timing.patient(ttl_max))
        policy = self._config.policy
        return replace(view, by_tokens=bool(policy), taking_over=policy in TAKING_OVER)

    def _reign_of(self, authority: Authority, now: float) -> Reign:
        if self._reign is None or self._reign.term != authority.term:
            cold = not self._followed
            self._followed = True
            self._reign = Reign(authority.term, now, authority.silent_since, cold)
            self._picture.forget()
            log.info("leading in term %d%s", authority.term, ", from a cold start" if cold else "")
        return self._reign

    async def _look(self) -> _Wake:
        await self._picture.refresh()
        now = asyncio.get_running_loop().time()
        authority = self._engine.authority()
        if authority is None:
            leader = self._engine.status().leader
            self._followed |= leader is not None and leader != self._config.name
            self._reign = None
            return _Wake(now + IDLE, calm=FOLLOWING)
        housekeeping = self._housekeeping(now)
        if housekeeping is not None:
            return _Wake(now + PAUSE, wrote=await self._propose(housekeeping))
        view = self.view(now)
        if view is None or now < self._deaf_until:
            return _Wake(self._deaf_until)
        decision = decide(view, now)
        commands = [command_of(batch, self._machine, self._config.name) for batch in decision.batches]
        handed = self._handed(view)
        commands += [handed] if handed is not None else []
        if commands:
            done = await asyncio.gather(*(self._propose(c) for c in commands if c is not None))
            return _Wake(now + PAUSE, wrote=all(done))
        return _Wake(min(now + IDLE, decision.next_look or now + IDLE))

    def _handed(self, view: View) -> store_pb2.Command | None:
        """For the history: when which node was allowed to run a group, and why not sooner."""
        records, now = [], asyncio.get_running_loop().time()
        for name, node, epoch, at in self._leases.handed():
            group = view.groups.get(name)
            if group is not None and group.assignment.epoch == epoch and group.assignment.node == node:
                cause = why_free(group.assignment, view.nodes.get(group.assignment.previous_node), name)
                message = events.text("GroupGranted", group=name, node=node, cause=cause)
                records.append((Record("GroupGranted", message, name, node, epoch, cause=cause), now - at))
        return recording(records, self._config.name) if records else None

    def _housekeeping(self, now: float) -> store_pb2.Command | None:
        config, machine, members = self._config, self._machine, self._engine.members()
        levels = {} if machine.level >= level.LEVEL and machine.cluster() else self._engine.status().levels
        missing = (
            seed.seed(config, machine, members, levels)
            or seed.identify(config, machine)
            or seed.raise_level(config, machine, members, levels)
        )
        if missing is None and self._leases.settled(now):
            return seed.lower_ttl_max(self._machine)
        return missing

    async def _propose(self, command: store_pb2.Command) -> bool:
        """Write; False when the engine did not take it. A conflict counts as written: the picture changed."""
        try:
            applied = await self._engine.propose(command.SerializeToString(), timeout=PROPOSAL)
        except HasysError as e:
            log.warning("a decision was not written: %s", e)
            return False
        outcome = store_pb2.Outcome.FromString(applied.answer)
        if not outcome.done and outcome.code != "Conflict":
            log.error("a decision was refused: %s: %s", outcome.code, outcome.message)
            return False
        return True
