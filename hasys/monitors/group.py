"""The state of another group."""

from __future__ import annotations

from hasys.monitors.port import Check, Found, Machine
from hasys.v1 import monitors_pb2 as mpb

SERVING = ("Running", "Degraded")


class GroupCheck(Check):
    """As this node last heard of the group."""

    def __init__(self, spec: mpb.GroupMonitor, machine: Machine, node: str) -> None:
        self._spec = spec
        self._machine = machine
        self._node = node

    async def look(self) -> Found:
        name = self._spec.name
        known = self._machine.standing(name)
        if known is None:
            return Found(f"group {name} does not exist")
        if known.phase not in (self._spec.phases or SERVING):
            return Found(f"group {name} is {known.phase or 'Stopped'}")
        if self._spec.same_node and known.node != self._node:
            return Found(f"group {name} is on {known.node or 'no node'}")
        return Found()
