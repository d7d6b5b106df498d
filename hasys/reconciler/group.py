"""Reconciles one group on this node. Called with nothing but "look again"; see the package's docstring.

Quick by construction: it never waits for a resource. Units (hasys/reconciler/unit.py) do the slow work in tasks of
their own and wake the group when something is different.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio
from anyio.abc import TaskGroup

from hasys.api.kinds import Ref, Resource
from hasys.guard.client import ReleaseBlocked
from hasys.guard.protocol import AddressEntry, CgroupEntry, Plan
from hasys.model.errors import HasysError
from hasys.model.lines import about
from hasys.placement import flow
from hasys.placement.flow import Progress, Step
from hasys.reconciler.cache import Cache
from hasys.reconciler.commands import left_by_commands
from hasys.reconciler.duty import Duty, Wish, wish
from hasys.reconciler.gates import Gates
from hasys.reconciler.parts import another, entries_of, material, mounts_in, mounts_of, ref_of, step_of
from hasys.reconciler.ports import Guard
from hasys.reconciler.reporter import Reporter
from hasys.reconciler.runtime import FORGET
from hasys.reconciler.unit import Unit
from hasys.resources.leftovers import Leftovers
from hasys.resources.port import (
    Condition,
    Driver,
    MountTrace,
    Place,
    State,
    Surroundings,
    Temporary,
)
from hasys.resources.settings import address_of
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger(__name__)

PERMIT_AGAIN = 0.5
"""Seconds until the guard is asked again; normally it tells by itself."""
BLOCKED_AGAIN = 0.1
"""Seconds until a release that was blocked is tried again."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What all groups of this node share."""

    node: str
    cache: Cache
    guard: Guard
    gates: Gates
    reporter: Reporter
    leftovers: Leftovers
    driver: Callable[[Resource, Surroundings], Driver]
    """Makes the driver of a resource."""
    tasks: TaskGroup
    wake: Callable[[str], None]


class GroupReconciler:
    """See the module."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self._machine = machine
        self._units: dict[str, Unit] = {}
        self._epoch = 0
        """Epoch that the units belong to."""
        self._attempt = 0
        self._begun = 0.0
        """When the epoch's work began here."""
        self._told: tuple[int, Plan] | None = None
        """Guard session, and the plan that it has acknowledged."""
        self._fenced = 0
        """Newest epoch that an event says was fenced."""
        self._active = False
        """The guard permitted this epoch at least once since we began to hold it."""
        self._permit_news = anyio.Event()
        self._foreign: dict[tuple[str, str], str] = {}
        """(Reason, resource) -> what was last said about a disk that is in use here though it must not be."""
        self._runs = False
        """It is held, permitted and meant to run."""
        self.serving = 0
        """Epoch under which everything has come up here, once; 0: not yet, or not here."""

    async def reconcile(self) -> float | None:
        """Do the next thing. Returns the seconds after which to look again (None: the usual resync), or FORGET."""
        about(self.name, self._epoch)
        again = await self._reconcile()
        self.serving = self._epoch if self._came_up() else 0
        return again

    def _came_up(self) -> bool:
        """Once is enough: what fails afterwards is what monitors are for."""
        if not self._runs or not self._epoch:
            return False
        return self.serving == self._epoch or all(unit.up for unit in self._units.values())

    def restart(self, name: str) -> str:
        """Stop a resource in order; it starts again once it has stopped. Returns what was begun. Raises
        ``Temporary``."""
        unit = self._units.get(name)
        if unit is None or unit.stopping or not unit.started:
            raise Temporary(f"{name} does not run here now")
        unit.stop(force=False)
        self._machine.wake(self.name)
        return f"{name} is stopped and started again"

    async def _reconcile(self) -> float | None:
        m = self._machine
        if not (m.cache.synced and m.guard.connected):
            return None  # both wake every group when they come
        await m.gates.ensure()
        oath = m.guard.oath(self.name)
        wanted = wish(m.cache.groups.get(self.name), m.node, oath)
        if m.cache.stale and oath is None and not (wanted.duty is Duty.HOLD and m.guard.may_go_on(self.name)):
            return None
        plan = m.guard.planned(self.name)
        if plan is not None and max(0, m.guard.released(self.name)) < plan.epoch and 0 < wanted.newest < plan.epoch:
            return None  # what we read is older than what was planned here: wait for the newer
        fresh = wanted.epoch > m.guard.released(self.name)
        if wanted.duty is Duty.HOLD and fresh:
            return await self._hold(wanted)
        if wanted.duty is Duty.LEAVE and fresh:
            return await self._leave(wanted)
        if wanted.duty is Duty.HOLD:
            self._report_fenced(wanted.epoch)
        return await self._clean()

    def announce(self) -> None:
        """Tell neighbours anew where the addresses are that are held here."""
        for unit in self._units.values():
            unit.driver.announce()

    # ------------------------------------------------------------------------------------------------ hold

    async def _hold(self, wanted: Wish) -> float | None:
        oath = self._machine.guard.oath(self.name)
        if oath is not None and self._epoch == 0 and oath.epoch < wanted.epoch:
            self._begin(replace(wanted, epoch=oath.epoch))  # this agent is new: what runs was started under the oath
            await self._match_units(wanted)
        if self._epoch != wanted.epoch and oath is not None and self._epoch == oath.epoch:
            self._carry_on(wanted)
        if self._epoch != wanted.epoch:
            if not self._stop_all(force=True):
                return None  # what an older epoch left goes first
            self._begin(wanted)
        await self._match_units(wanted)
        if self._told is None:
            await self._remove_strays()
        await self._tell_plan(wanted)
        self._retry(wanted)
        again: float | None = None
        if wanted.run:
            again = await self._advance()
        else:
            self._wind_down(force=False)
        self._runs = wanted.run and self._active
        self._report_held(wanted)
        return again

    def _begin(self, wanted: Wish) -> None:
        self._units.clear()
        self._epoch, self._attempt, self._active, self._told = wanted.epoch, wanted.attempt, False, None
        self._begun = anyio.current_time()
        about(self.name, self._epoch)

    def _carry_on(self, wanted: Wish) -> None:
        """The leader took an operator's oath over: what runs goes on under the leader's epoch, without a stop."""
        self._epoch, self._attempt, self._active, self._told = wanted.epoch, wanted.attempt, False, None
        for name, unit in list(self._units.items()):
            driver = self._driver(unit.resource)
            if unit.stopping:
                continue
            if unit.present and driver.continues(unit.driver):
                unit.replace(unit.resource, driver)
            elif unit.present:
                unit.stop(force=False)
            else:
                del self._units[name]

    async def _match_units(self, wanted: Wish) -> None:
        """Units for the resources that should be here; the others begin to stop, the stopped ones are dropped."""
        resources = self._machine.cache.resources(self.name)
        for name, unit in list(self._units.items()):
            kept = resources.get(name)
            if kept is None or kept.metadata.HasField("deleting") or another(kept, unit.resource):
                if unit.present:
                    unit.stop(force=False)
                else:
                    del self._units[name]
            elif unit.gone and wanted.run:
                del self._units[name]  # a changed one stopped: made anew below
            elif not unit.stopping and kept.metadata.generation != unit.resource.metadata.generation:
                self._respec(unit, kept)
        if wanted.run:
            for name, resource in list(resources.items()):  # a copy: others work while we await
                if name not in self._units and not resource.metadata.HasField("deleting"):
                    self._units[name] = unit = self._unit(resource)
                    await unit.adopt()

    async def _remove_strays(self) -> None:
        """A new agent, or a new epoch: what the guard still has a plan for, but no resource."""
        plan = self._machine.guard.planned(self.name)
        wanted = {e.address for e in entries_of(self._units.values()) if isinstance(e, AddressEntry)}
        planned = {e.address for e in (plan.entries if plan else ()) if isinstance(e, AddressEntry)}
        mounts = mounts_of(plan) - mounts_in(entries_of(self._units.values()))
        known = self._units.keys() | self._machine.cache.monitors(self.name).keys()
        await self._machine.leftovers.strays(self.name, planned - wanted, sorted(mounts), known)

    def _respec(self, unit: Unit, resource: Resource) -> None:
        """The spec changed: go on as before where that is enough, else stop; it starts again when it has stopped."""
        if material(unit.resource) == material(resource):
            unit.resource = resource
            return
        driver = self._driver(resource)
        if unit.present and driver.continues(unit.driver):
            unit.replace(resource, driver)
        elif unit.present:
            unit.stop(force=False)
        else:
            del self._units[unit.resource.metadata.name]

    async def _tell_plan(self, wanted: Wish) -> None:
        """Before any effect: the guard has on disk what it must undo."""
        units = [u for u in self._units.values() if not u.gone]
        entries = entries_of(units) + left_by_commands(self._machine.cache, self._machine.leftovers, self.name)
        plan = Plan(self.name, wanted.epoch, wanted.version, entries)
        session = self._machine.guard.session
        if self._told != (session, plan):
            await self._machine.guard.plan(plan)
            self._told = session, plan

    def _retry(self, wanted: Wish) -> None:
        """A new attempt at the same epoch: only what failed runs again."""
        if wanted.attempt == self._attempt:
            return
        self._attempt = wanted.attempt
        for name, unit in self._units.items():
            self._machine.reporter.again(ref_of(unit.resource))
            if unit.given_up and not unit.stopping and wanted.retry_step in ("", name):
                unit.start()

    async def _advance(self) -> float | None:
        """Start what may start now."""
        guard = self._machine.guard
        if not guard.permits(self.name, self._epoch):
            for unit in self._units.values():
                if not unit.resource.spec.after and not unit.started and not unit.stopping:
                    await unit.prepare()
            if not await guard.permit(self.name, self._epoch):
                return PERMIT_AGAIN
        self._note_permit()
        news, self._permit_news = self._permit_news, anyio.Event()
        news.set()
        startable = set(flow.startable(self._steps()))
        for name, unit in self._units.items():
            if not unit.started and not unit.stopping and (unit.adopted or name in startable):
                unit.start()
        return None

    def _note_permit(self) -> None:
        """Once per epoch, and not by a new agent that finds everything running."""
        if not self._active and not any(unit.adopted for unit in self._units.values()):
            took = anyio.current_time() - self._begun
            self._machine.reporter.event("GroupPermitted", Ref("Group", "", self.name), self._epoch, "", took)
        self._active = True

    async def _permitted(self, epoch: int) -> None:
        """For drivers: wait until the guard says yes."""
        while True:
            news = self._permit_news
            try:
                if epoch == self._epoch and await self._machine.guard.permit(self.name, epoch):
                    return
            except HasysError as e:
                log.info("%s: %s", self.name, e)
            with anyio.move_on_after(PERMIT_AGAIN):
                await news.wait()

    # ------------------------------------------------------------------------------------------------ leave, clean

    async def _leave(self, wanted: Wish) -> float | None:
        self._runs = False
        if self._epoch != wanted.epoch:
            if not self._stop_all(force=True):
                return None
            self._begin(wanted)
            for name, resource in list(self._machine.cache.resources(self.name).items()):
                self._units[name] = unit = self._unit(resource)
                await unit.adopt()  # this agent is new: what runs is stopped in order all the same
        self._wind_down(force=wanted.force)
        if any(u.present for u in self._units.values()):
            self._report_leaving()
            return None
        blocker = await self._release(wanted.epoch)
        self._report_leaving(blocker)
        if blocker:
            return BLOCKED_AGAIN
        self._units.clear()
        self._epoch = 0
        return None

    async def _clean(self) -> float | None:
        """Nothing of it may be here."""
        self._runs = False
        if not self._stop_all(force=True):
            return None
        was_here, self._epoch = self._epoch, 0
        self._units.clear()
        guard = self._machine.guard
        plan = guard.planned(self.name)
        blocker = await self._release(plan.epoch if plan is not None else 0, expected=plan is not None or was_here > 0)
        if blocker:
            return BLOCKED_AGAIN
        known = self.name in self._machine.cache.groups or self._machine.cache.resources(self.name)
        return None if known else FORGET

    async def _release(self, epoch: int, *, expected: bool = True) -> str:
        """Make sure that nothing is left, then confirm it. Returns what blocks it; "" when done."""
        m = self._machine
        plan = m.guard.planned(self.name)
        addresses = {e.address for e in (plan.entries if plan else ()) if isinstance(e, AddressEntry)}
        virtual = {address_of(r.spec): r for r in m.cache.resources(self.name).values() if isinstance(r, pb.VirtualIP)}
        cgroups = [e.path for e in (plan.entries if plan else ()) if isinstance(e, CgroupEntry)]
        for held in await m.leftovers.sweep(self.name, addresses | virtual.keys(), sorted(mounts_of(plan)), cgroups):
            if not expected and held.address in virtual:
                where = f"{held.address}/{held.prefix} was on {held.interface}, which does not have the group"
                m.reporter.event("ForeignAddressRemoved", ref_of(virtual[held.address]), 0, where)
        await self._remove_foreign()
        if epoch <= m.guard.released(self.name):
            return ""
        try:
            await m.guard.release(self.name, epoch)
        except ReleaseBlocked as e:
            log.warning("%s: not released: %s", self.name, e)
            return str(e)
        return ""

    async def _remove_foreign(self) -> None:
        """Somebody mounted a disk by hand on a node that does not have the group; or a fence, which unmounts, left a
        replicated volume Primary."""
        leftovers = self._machine.leftovers
        for resource in list(self._machine.cache.resources(self.name).values()):
            if isinstance(resource, pb.SharedDisk | pb.ReplicatedVolume):
                mount = MountTrace(resource.spec.device, resource.spec.mount_point)
                self._say_foreign("ForeignMount", resource, await leftovers.foreign(mount))
            if isinstance(resource, pb.ReplicatedVolume):
                found = await leftovers.primary(resource.spec.drbd_resource, resource.spec.device)
                self._say_foreign("ForeignPrimary", resource, found)

    def _say_foreign(self, reason: str, resource: Resource, found: str) -> None:
        """Once, as long as it stays the same."""
        key = reason, resource.metadata.name
        if found and self._foreign.get(key) != found:
            self._machine.reporter.event(reason, ref_of(resource), 0, found)
        self._foreign[key] = found

    def _wind_down(self, *, force: bool) -> None:
        """Stop in reverse order, each step when nothing needs it any more; ``force``: all at once."""
        now = self._units.keys() if force else flow.stoppable(self._steps(leaving=True))
        for name in now:
            if self._units[name].present:
                self._units[name].stop(force=force)

    def _stop_all(self, *, force: bool) -> bool:
        """True when nothing of our units is left."""
        self._wind_down(force=force)
        return not any(u.present for u in self._units.values())

    # ------------------------------------------------------------------------------------------------ reports

    def _report_held(self, wanted: Wish) -> None:
        if not self._active and not any(u.started or u.stopping for u in self._units.values()):
            return  # not ours yet: what the previous holder says about its stop is worth more
        steps = self._steps()
        permitted = self._machine.guard.permits(self.name, self._epoch)
        for name, resource in self._machine.cache.resources(self.name).items():
            unit = self._units.get(name)
            if unit is None:
                deleting = resource.metadata.HasField("deleting")
                self._report(resource, Condition(), gone=deleting)
                continue
            condition = unit.driver.condition
            self._record_progress(unit)
            if unit.progress is Progress.WAITING and not unit.stopping:
                waits = flow.waits_for(name, steps) if wanted.run else ""
                condition = Condition(message=waits)
            elif condition.state is State.STARTING and not permitted:
                condition = replace(condition, message="waiting for the guard's permit")
            self._report(resource, condition, generation=unit.resource.metadata.generation)

    def _record_progress(self, unit: Unit) -> None:
        """Events for what matters in a history: it runs, it failed."""
        condition = unit.driver.condition
        if unit.stopping or unit.told_state is condition.state:
            return
        if condition.state is State.RUNNING and not condition.restarts:
            reason = "ResourceAdopted" if unit.adopted and unit.told_state is None else "ResourceStarted"
        elif condition.state is State.FAILED:
            reason = "ResourceFailed"
        else:
            return
        unit.told_state = condition.state
        self._machine.reporter.event(reason, ref_of(unit.resource), self._epoch, condition.message, unit.took)

    def _report_fenced(self, epoch: int) -> None:
        """The guard took down what the store still assigns to us: it waits for a newer epoch."""
        cause = f"the guard gave up epoch {epoch}: its lease ended or was revoked"
        if self._fenced != epoch:
            self._fenced = epoch
            self._machine.reporter.event("Fenced", Ref("Group", "", self.name), epoch, cause)
        for resource in self._machine.cache.resources(self.name).values():
            self._report(resource, Condition(message=cause), epoch=epoch)

    def _report_leaving(self, blocker: str = "") -> None:
        resources = self._machine.cache.resources(self.name)
        for name, unit in self._units.items():
            condition = unit.driver.condition
            if blocker:
                condition = Condition(State.STOPPING, blocker)
            elif not unit.present:
                condition = Condition()
            if name in resources:
                self._report(resources[name], condition, generation=unit.resource.metadata.generation)

    def _report(
        self, resource: Resource, condition: Condition, *, epoch: int = 0, generation: int = 0, gone: bool = False
    ) -> None:
        """``resource`` as it is stored; epoch and generation are the present ones unless given."""
        status = pb.ResourceStatus(
            node=self._machine.node,
            epoch=epoch or self._epoch,
            state=condition.state.value,
            message=condition.message,
            observed_generation=generation or resource.metadata.generation,
            restarts=condition.restarts,
            output=condition.output,
            exited=condition.exit_code is not None,
            exit_code=condition.exit_code or 0,
            gone=gone,
        )
        self._machine.reporter.status(ref_of(resource), status, resource.status)

    # ------------------------------------------------------------------------------------------------ parts

    def _steps(self, *, leaving: bool = False) -> list[Step]:
        return [step_of(unit, leaving=leaving) for unit in self._units.values()]

    def _unit(self, resource: Resource) -> Unit:
        return Unit(resource, self._driver(resource), self._machine.tasks)

    def _driver(self, resource: Resource) -> Driver:
        m, epoch, ref = self._machine, self._epoch, ref_of(resource)
        around = Surroundings(
            place=Place(m.node, self.name, ref.name, epoch),
            permitted=lambda: self._permitted(epoch),
            changed=lambda: m.wake(self.name),
            record=lambda reason, cause, took=None: m.reporter.event(reason, ref, epoch, cause, took),
        )
        return m.driver(resource, around)
