"""hasys's own processes on this node, as the agent sees them. The agent itself looks, so it is alive."""

from __future__ import annotations

from hasys.monitors.port import Check, Found, Machine, judged
from hasys.v1 import monitors_pb2 as mpb


class HasysCheck(Check):
    """See the module."""

    def __init__(self, spec: mpb.HasysMonitor, machine: Machine) -> None:
        self._names = [mpb.HasysMonitor.Process.Name(one) for one in spec.processes if one]
        self._machine = machine

    async def look(self) -> Found:
        known = await self._machine.own()
        return judged(mpb.All, {name: known.get(name, "") for name in self._names or known})
