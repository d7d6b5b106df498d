"""Takes away what is on this machine of a group that has no business here."""

from __future__ import annotations

from collections.abc import Container, Iterable

from hasys.resources.addresses import Addresses, Held
from hasys.resources.cgroup import GROUPS, Cgroup
from hasys.resources.output import Outputs
from hasys.resources.records import Records


class Leftovers:
    """One per agent. ``base`` is the directory of this node's cgroups."""

    def __init__(self, addresses: Addresses, base: Cgroup, records: Records, outputs: Outputs) -> None:
        self._addresses = addresses
        self._groups = base.path / GROUPS
        self._records = records
        self._outputs = outputs

    async def sweep(self, group: str, addresses: Iterable[str]) -> tuple[Held, ...]:
        """Remove the addresses, kill the group's processes, forget its records. Returns the addresses that were found.

        Raises ``Temporary`` naming what stays; then nothing may be released.
        """
        found = await self._remove(addresses)
        cgroup = Cgroup(self._groups / group)
        if cgroup.path.exists():
            await cgroup.empty()
        self._records.forget_group(group)
        self._outputs.forget_group(group)
        return found

    async def strays(self, group: str, addresses: Iterable[str], known: Container[str]) -> None:
        """Remove addresses, and kill the processes of resources that are not ``known`` (by name): resources that were
        deleted while no agent was there. Raises ``Temporary``."""
        await self._remove(addresses)
        for cgroup in Cgroup(self._groups / group).children():
            if cgroup.path.name not in known:
                await cgroup.empty()
                self._records.forget(group, cgroup.path.name)

    async def _remove(self, addresses: Iterable[str]) -> tuple[Held, ...]:
        found: list[Held] = []
        for address in sorted(set(addresses)):
            for held in self._addresses.holders(address):
                await self._addresses.remove(held)
                found.append(held)
        return tuple(found)
