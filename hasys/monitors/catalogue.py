"""Which check serves which spec, and how a spec is judged."""

from __future__ import annotations

import anyio

from hasys.api.convert import seconds
from hasys.api.rules import fill_defaults
from hasys.monitors import (
    group,
    http,
    load,
    mount,
    network,
    own,
    ping,
    process,
    replication,
    script,
    service,
    tcp,
    traffic,
    volume,
)
from hasys.monitors.evaluation import Action, Restarts, Settings
from hasys.monitors.port import Check, Surroundings
from hasys.monitors.processes import ProcessTable
from hasys.monitors.threads import THREADS, Blocking
from hasys.monitors.watcher import Pace
from hasys.v1 import monitors_pb2 as mpb


class Catalogue:
    """Makes checks; holds what they share. One per agent."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(THREADS)
        self.processes = ProcessTable(self._limiter)

    def make(self, spec: mpb.MonitorSpec, around: Surroundings) -> Check:
        """The check of a spec with its defaults filled in (:func:`complete`)."""
        if spec.HasField("process"):
            return process.ProcessCheck(spec.process, self.processes)
        if spec.HasField("process_count"):
            return process.ProcessCountCheck(spec.process_count, self.processes)
        if spec.HasField("ping"):
            return ping.PingCheck(spec.ping)
        if spec.HasField("mount"):
            return mount.MountCheck(spec.mount)
        if spec.HasField("volume"):
            return volume.VolumeCheck(spec.volume, around.commands)
        if spec.HasField("tcp"):
            return tcp.TcpCheck(spec.tcp)
        if spec.HasField("http"):
            return http.HttpCheck(spec.http, Blocking(self._limiter), seconds(spec.timeout))
        if spec.HasField("script"):
            return script.ScriptCheck(spec.script, around.commands, around.environment)
        if spec.HasField("service"):
            return service.ServiceCheck(spec.service, around.commands)
        if spec.HasField("replication"):
            return replication.ReplicationCheck(spec.replication, around.commands, around.machine, around.group)
        return self._local(spec, around)

    @staticmethod
    def _local(spec: mpb.MonitorSpec, around: Surroundings) -> Check:
        """Checks that only look at what is known, or at files of the kernel."""
        if spec.HasField("cpu"):
            return load.CpuCheck(spec.cpu)
        if spec.HasField("memory"):
            return load.MemoryCheck(spec.memory)
        if spec.HasField("traffic"):
            return traffic.TrafficCheck(spec.traffic)
        if spec.HasField("network"):
            return network.NetworkCheck(spec.network, around.machine)
        if spec.HasField("ip"):
            return network.IpCheck(spec.ip, around.machine)
        if spec.HasField("virtual_ip"):
            return network.VirtualIPCheck(spec.virtual_ip, around.machine, around.group)
        if spec.HasField("group"):
            return group.GroupCheck(spec.group, around.machine, around.node)
        if spec.HasField("hasys"):
            return own.HasysCheck(spec.hasys, around.machine)
        raise ValueError("this version knows no such monitor")


def complete(spec: mpb.MonitorSpec) -> mpb.MonitorSpec:
    """A copy with every default written out."""
    whole = mpb.MonitorSpec()
    whole.CopyFrom(spec)
    fill_defaults(whole)
    return whole


def settings_of(spec: mpb.MonitorSpec) -> Settings:
    """How a complete spec is judged."""
    restart = spec.restart
    return Settings(
        failures=spec.failures,
        start_delay=seconds(spec.start_delay),
        action=Action(mpb.MonitorSpec.Action.Name(spec.action)),
        restarts=Restarts(
            start_time=seconds(restart.start_time),
            retries=restart.retries,
            backoff=seconds(restart.backoff),
            then=Action(mpb.MonitorRestart.Then.Name(restart.then)),
        ),
    )


def pace_of(spec: mpb.MonitorSpec) -> Pace:
    """How often a complete spec is looked at."""
    return Pace(seconds(spec.interval), seconds(spec.timeout))
