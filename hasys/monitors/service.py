"""A unit of systemd: running, not started, crashed, hung, or started again and again."""

from __future__ import annotations

from hasys.model.errors import HasysError
from hasys.monitors.port import Check, Commands, Found
from hasys.v1 import monitors_pb2 as mpb

PROPERTIES = "LoadState,ActiveState,SubState,Result"
HUNG = ("watchdog", "timeout")
"""Results by which systemd says that a service did not answer, start or stop in time."""


class ServiceCheck(Check):
    """Asks ``systemctl``, which does not change anything."""

    def __init__(self, spec: mpb.ServiceMonitor, commands: Commands) -> None:
        self._spec = spec
        self._commands = commands

    async def look(self) -> Found:
        ended = await self._commands.run(("systemctl", "show", "--property", PROPERTIES, "--", self._spec.unit))
        if ended.code != 0:
            raise HasysError(f"systemctl does not answer: {ended.output.strip()[:200]}")
        told = dict(line.split("=", 1) for line in ended.output.splitlines() if "=" in line)
        return self._judge(told)

    def _judge(self, told: dict[str, str]) -> Found:
        unit, do = self._spec.unit, mpb.ServiceMonitor
        active, sub, result = told.get("ActiveState", ""), told.get("SubState", ""), told.get("Result", "")
        if told.get("LoadState") == "not-found":
            return self._fault(f"{unit} does not exist", self._spec.not_started)
        if sub == "auto-restart":
            fault = self._spec.hung if result in HUNG else self._spec.restarting
            return self._fault(f"{unit} is started again by systemd ({result})", fault)
        if active == "failed":
            if result in HUNG:
                return self._fault(f"{unit} hung ({result})", self._spec.hung)
            return self._fault(f"{unit} crashed ({result})", self._spec.crashed)
        if active in ("active", "reloading", "activating"):
            return Found()
        if active in ("inactive", "deactivating"):
            return self._fault(f"{unit} is not started", self._spec.not_started)
        return self._fault(f"{unit} is in an unknown state ({active or 'none'})", do.AsMonitor)

    @staticmethod
    def _fault(trouble: str, do: int) -> Found:
        if do == mpb.ServiceMonitor.Ignore:
            return Found(detail=trouble)
        return Found(trouble, action=_ACTIONS.get(do))


_ACTIONS: dict[int, int] = {
    mpb.ServiceMonitor.Alert: mpb.MonitorSpec.Alert,
    mpb.ServiceMonitor.Restart: mpb.MonitorSpec.Restart,
    mpb.ServiceMonitor.Failover: mpb.MonitorSpec.Failover,
    mpb.ServiceMonitor.Stop: mpb.MonitorSpec.Stop,
}
