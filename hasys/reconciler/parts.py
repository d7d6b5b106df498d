"""From units to steps of the flow and entries of the guard's plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from hasys.api.kinds import Ref, Resource, kind_name
from hasys.guard.protocol import AddressEntry, CgroupEntry, Entry, MountEntry, Plan
from hasys.placement.flow import Progress, Step
from hasys.reconciler.unit import Unit
from hasys.resources.port import AddressTrace, CgroupTrace, MountTrace, Trace
from hasys.v1 import objects_pb2 as pb


def step_of(unit: Unit, *, leaving: bool) -> Step:
    """The unit for the flow; ``leaving``: what is on this machine counts as up, started or not."""
    progress = unit.progress
    if leaving and unit.present and progress is Progress.WAITING:
        progress = Progress.UP
    spec = unit.resource.spec
    return Step(unit.resource.metadata.name, progress, frozenset(spec.after), spec.on_start_failure == pb.Continue)


def entries_of(units: Iterable[Unit]) -> tuple[Entry, ...]:
    """What the guard must undo, each once and always in the same order."""
    found = {entry_of(trace, unit) for unit in units for trace in unit.driver.traces()}
    return tuple(sorted(found, key=lambda e: (type(e).__name__, e.resource, str(e))))


def entry_of(trace: Trace, unit: Unit) -> Entry:
    """What a driver may leave, for the guard's plan."""
    resource = unit.resource.metadata.name
    match trace:
        case AddressTrace(interface, address):
            return AddressEntry(interface, address, resource)
        case CgroupTrace(path):
            return CgroupEntry(path, resource)
        case MountTrace(device, point):
            return MountEntry(device, point, resource)


def mounts_of(plan: Plan | None) -> frozenset[MountTrace]:
    """The mounts of a plan."""
    return mounts_in(plan.entries if plan else ())


def mounts_in(entries: Iterable[Entry]) -> frozenset[MountTrace]:
    """The mounts among these entries."""
    return frozenset(MountTrace(e.device, e.path) for e in entries if isinstance(e, MountEntry))


def material(resource: Resource) -> bytes:
    """The part of a spec whose change concerns what runs: all but the flow."""
    spec = type(resource.spec)()
    spec.CopyFrom(resource.spec)  # type: ignore[arg-type]  # the same type as the line above says
    spec.ClearField("after")
    spec.ClearField("on_start_failure")
    return spec.SerializeToString(deterministic=True)


def another(new: Resource, old: Resource) -> bool:
    """Deleted and made again under the same name."""
    return type(new) is not type(old) or new.metadata.uid != old.metadata.uid


def ref_of(resource: Resource) -> Ref:
    """The name of a resource among all objects."""
    return Ref(kind_name(resource), resource.metadata.group, resource.metadata.name)
