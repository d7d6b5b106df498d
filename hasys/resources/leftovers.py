"""Takes away what is on this machine of a group that has no business here."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

from hasys.model.mounts import is_of
from hasys.resources.addresses import Addresses, Held
from hasys.resources.cgroup import GROUPS, Cgroup
from hasys.resources.drbd import Drbd
from hasys.resources.mounts import Mounts
from hasys.resources.output import Outputs
from hasys.resources.port import MountTrace, Temporary
from hasys.resources.records import Records


class Leftovers:
    """One per agent. ``base`` is the directory of this node's cgroups."""

    def __init__(
        self,
        addresses: Addresses,
        base: Cgroup,
        records: Records,
        outputs: Outputs,
        mounts: Mounts,
        drbd: Drbd | None = None,
    ) -> None:
        self._addresses = addresses
        self._groups = base.path / GROUPS
        self._records = records
        self._outputs = outputs
        self._mounts = mounts
        self._drbd = drbd or Drbd()

    def cgroup(self, group: str, name: str) -> Path:
        """Where the processes of a resource or monitor of a group live."""
        return self._groups / group / name

    async def sweep(
        self, group: str, addresses: Iterable[str], mounts: Iterable[MountTrace], cgroups: Iterable[str]
    ) -> tuple[Held, ...]:
        """Remove the addresses, kill the group's processes and those in ``cgroups`` (paths), unmount, forget its
        records. Returns the addresses that were found.

        Raises ``Temporary`` naming what stays; then nothing may be released.
        """
        found = await self._remove(addresses)
        cgroup = Cgroup(self._groups / group)
        if cgroup.path.exists():
            await cgroup.empty()
        for path in cgroups:
            await Cgroup(Path(path)).empty()
        await self._unmount(mounts)
        self._records.forget_group(group)
        self._outputs.forget_group(group)
        return found

    async def strays(
        self, group: str, addresses: Iterable[str], mounts: Iterable[MountTrace], known: Container[str]
    ) -> None:
        """Remove addresses and mounts, and kill the processes of resources that are not ``known`` (by name): resources
        that were deleted while no agent was there. Raises ``Temporary``."""
        await self._remove(addresses)
        for cgroup in Cgroup(self._groups / group).children():
            if cgroup.path.name not in known:
                await cgroup.empty()
                self._records.forget(group, cgroup.path.name)
        await self._unmount(mounts)

    async def foreign(self, mount: MountTrace) -> str:
        """A mount that nobody of us made, where it must not be: unmounted if nobody uses it. Returns what was found."""
        number = self._mounts.number(mount.device)
        if not any(m.point == mount.point and is_of(m, mount.device, number) for m in self._mounts.table()):
            return ""
        blocker = await self._mounts.unmount(mount.device, mount.point, kill=False)
        what = f"{mount.device} was mounted on {mount.point}"
        return f"{what} and stays: {blocker}: unmount it" if blocker else what

    async def primary(self, resource: str, device: str) -> str:
        """A volume of DRBD that is Primary here though nothing of its group is: it steps back unless it is in use.
        Returns what was found."""
        return await self._drbd.stray(resource, device)

    async def _unmount(self, mounts: Iterable[MountTrace]) -> None:
        for mount in mounts:
            blocker = await self._mounts.unmount(mount.device, mount.point, kill=True)
            if blocker:
                raise Temporary(blocker)

    async def _remove(self, addresses: Iterable[str]) -> tuple[Held, ...]:
        found: list[Held] = []
        for address in sorted(set(addresses)):
            for held in self._addresses.holders(address):
                await self._addresses.remove(held)
                found.append(held)
        return tuple(found)
