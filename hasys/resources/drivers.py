"""Which driver serves which kind."""

from __future__ import annotations

from dataclasses import dataclass, field

from hasys.api.kinds import Resource
from hasys.resources.addresses import Addresses
from hasys.resources.announce import Announcer
from hasys.resources.application import Application
from hasys.resources.cgroup import AGENT, GROUPS, Cgroup
from hasys.resources.command import Command
from hasys.resources.database import Database
from hasys.resources.delay import Delay
from hasys.resources.drbd import Drbd
from hasys.resources.mounts import Mounts
from hasys.resources.output import Outputs
from hasys.resources.port import Driver, Surroundings
from hasys.resources.records import Records
from hasys.resources.replicated_volume import ReplicatedVolume
from hasys.resources.service import Home
from hasys.resources.shared_disk import SharedDisk
from hasys.resources.systemd_unit import Systemctl, SystemdUnit
from hasys.resources.virtual_ip import Claims, VirtualIP
from hasys.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True)
class Drivers:
    """Makes drivers; holds what they share. ``base`` is the directory of this node's cgroups."""

    base: Cgroup
    addresses: Addresses
    records: Records
    outputs: Outputs
    mounts: Mounts
    systemctl: Systemctl
    claims: Claims | None = None
    announcer: Announcer = field(default_factory=Announcer)
    drbd: Drbd = field(default_factory=Drbd)

    def make(self, resource: Resource, around: Surroundings) -> Driver:
        """The driver of a resource."""
        match resource:
            case pb.VirtualIP():
                return VirtualIP(around, resource.spec, self.addresses, self.announcer.send, self.claims)
            case pb.Application():
                return Application(around, resource.spec, self._home(around))
            case pb.Database():
                return Database(around, resource.spec, self._home(around))
            case pb.CommandStep():
                return Command(around, resource.spec, self._home(around))
            case pb.SystemdUnit():
                return SystemdUnit(around, resource.spec, self._home(around), self.base.path.parent, self.systemctl)
            case pb.SharedDisk():
                return SharedDisk(around, resource.spec, self._home(around), self.mounts)
            case pb.ReplicatedVolume():
                return ReplicatedVolume(around, resource.spec, self._home(around), self.mounts, self.drbd)
            case pb.Delay():
                return Delay(around, resource.spec, self.records)

    def _home(self, around: Surroundings) -> Home:
        place, base = around.place, self.base.path
        return Home(
            place,
            cgroup=Cgroup(base / GROUPS / place.group / place.name),
            helpers=Cgroup(base / AGENT / f"{place.group}.{place.name}"),
            records=self.records,
            outputs=self.outputs,
        )
