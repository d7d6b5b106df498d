"""An engine without consensus: one member, everything in memory. For tests and tools, never for a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hasys.model.errors import Unavailable
from hasys.store.port import Applied, Authority, EngineStatus, StateMachine


class _Log:
    """The state machine with the index of its last entry."""

    def __init__(self, machine: StateMachine) -> None:
        self.index = 0
        self._machine = machine

    def append(self, command: bytes) -> bytes:
        self.index += 1
        return self._machine.apply(self.index, command)


class MemoryEngine:
    """Implements ``hasys.store.port.Engine``. ``elect`` plays elections."""

    def __init__(self, machine: StateMachine, *, name: str = "n1") -> None:
        self._name = name
        self._leader: str | None = name
        self._term = 1
        self._log = _Log(machine)
        self._member = True
        self._changed: list[Callable[[], None]] = []
        self._applied: list[Callable[[int], None]] = []

    async def run(self) -> None:
        """Nothing to do: sleeps until cancelled."""
        await asyncio.Event().wait()

    async def propose(self, command: bytes, *, timeout: float) -> Applied:
        """Apply at once. Raises ``Unavailable`` without a leader."""
        await asyncio.sleep(0)
        if self._leader is None:
            raise Unavailable("no leader")
        return self.apply_now(command)

    def apply_now(self, command: bytes) -> Applied:
        """The same without waiting."""
        answer = self._log.append(command)
        for callback in self._applied:
            callback(self._log.index)
        return Applied(self._log.index, answer)

    def join(self, other: MemoryEngine) -> None:
        """Share the log of another member, as if replication were instant."""
        self._log = other._log

    async def confirm(self, *, timeout: float) -> None:
        """At once. Raises ``Unavailable`` unless this member leads."""
        if self._leader != self._name:
            raise Unavailable("this member does not lead")

    def authority(self) -> Authority | None:
        """Evidence as of now, while this member leads."""
        if self._leader != self._name:
            return None
        now = asyncio.get_running_loop().time()
        return Authority(term=self._term, applied=self._log.index, t_q=now, silent_since=now)

    def status(self) -> EngineStatus:
        """One voter, always in agreement with itself."""
        return EngineStatus(
            role="Leader" if self._leader == self._name else "Follower",
            leader=self._leader,
            term=self._term,
            committed=self._log.index,
            applied=self._log.index,
            voters=(self._name,),
            connected=(self._name,),
            quorum=self._leader is not None,
            member=self._member,
        )

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called by ``elect``."""
        self._changed.append(callback)

    def on_applied(self, callback: Callable[[int], None]) -> None:
        """Called after each command."""
        self._applied.append(callback)

    def members(self) -> None:
        """node.yaml names them."""

    def on_members(self, callback: Callable[[], None]) -> None:
        """They never change."""

    async def hand_over(self) -> None:
        """Nobody to hand over to."""

    def dismiss(self) -> None:
        """The others have removed this member, and it knows."""
        self._member = False
        self.elect(None)

    def elect(self, leader: str | None) -> None:
        """Another term with this leader (a name; None: nobody)."""
        self._leader = leader
        self._term += 1
        for callback in self._changed:
            callback()
