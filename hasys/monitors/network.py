"""Interfaces and addresses of this node: up, with carrier, present."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from hasys.monitors.port import Check, Found, Machine, judged
from hasys.v1 import monitors_pb2 as mpb


class NetworkCheck(Check):
    """Networks, by interface or by an address of this node that is on one."""

    def __init__(self, spec: mpb.NetworkMonitor, machine: Machine) -> None:
        self._spec = spec
        self._machine = machine

    async def look(self) -> Found:
        troubles: dict[str, str] = {name: self._interface(name) for name in self._spec.interfaces}
        for text in self._spec.addresses:
            address = str(ipaddress.ip_address(text))
            holder = self._machine.holder(address)
            troubles[address] = self._interface(holder) if holder else f"address {address} is not on this node"
        return judged(self._spec.need, troubles)

    def _interface(self, name: str) -> str:
        link = self._machine.link(name)
        if link is None:
            return f"interface {name} does not exist"
        if not link.up:
            return f"interface {name} is down"
        return "" if link.carrier else f"interface {name} has no carrier"


class IpCheck(Check):
    """Addresses that must be on this node."""

    def __init__(self, spec: mpb.IpMonitor, machine: Machine) -> None:
        self._spec = spec
        self._machine = machine

    async def look(self) -> Found:
        found = {text: _present(str(ipaddress.ip_address(text)), self._machine) for text in self._spec.addresses}
        return judged(self._spec.need, found)


class VirtualIPCheck(Check):
    """Virtual IPs of the group. hasys creates a lost one anew by itself, so what is seen here did not help."""

    def __init__(self, spec: mpb.VirtualIPMonitor, machine: Machine, group: str) -> None:
        self._spec = spec
        self._machine = machine
        self._group = group

    async def look(self) -> Found:
        known: Mapping[str, str] = self._machine.addresses(self._group)
        names = self._spec.resources or sorted(known)
        troubles = {
            name: _present(known[name], self._machine) if name in known else f"the group has no virtual IP {name}"
            for name in names
        }
        return judged(self._spec.need, troubles)


def _present(address: str, machine: Machine) -> str:
    return "" if machine.holder(address) else f"address {address} is not on this node"
