"""B1: VirtualIP on a real kernel: a network namespace of our own with one cable, eth0, whose far end listens."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from hasys.resources.addresses import Held, KernelAddresses
from hasys.resources.port import Place, State, Surroundings
from hasys.resources.virtual_ip import VirtualIP
from hasys.v1 import objects_pb2 as pb
from tests.lab.network import ip, own_network

pytestmark = [
    pytest.mark.lab,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

ETH_P_ALL = 0x0003
LIMIT = 1.0
"""Seconds within which drift must be repaired."""


@pytest.fixture
def cable() -> Iterator[socket.socket]:
    """A packet socket at the far end of eth0's cable."""
    everything = socket.htons(ETH_P_ALL)
    with own_network(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, everything) as far:
        far.bind(("far", ETH_P_ALL))
        yield far


class Recorder:
    """A virtual IP with real addresses under it; remembers what it was told."""

    def __init__(self, addresses: KernelAddresses, address: str) -> None:
        self.events: list[str] = []
        self.addresses = addresses
        self.news = anyio.Event()
        around = Surroundings(
            place=Place("n1", "web", "ip", 1),
            permitted=anyio.lowlevel.checkpoint,
            changed=self._changed,
            record=lambda reason, cause, took=None: self.events.append(reason),
        )
        spec = pb.VirtualIPSpec(address=address, interface=pb.Interface(name="eth0"))
        spec.announce_interval.FromSeconds(1)
        self.driver = VirtualIP(around, spec, addresses)

    def _changed(self) -> None:
        news, self.news = self.news, anyio.Event()
        news.set()

    async def reach(self, state: State) -> None:
        with anyio.fail_after(5):
            while self.driver.condition.state is not state:
                await self.news.wait()

    async def until_held(self, held: Held, *, present: bool = True) -> None:
        """Within the limit, the kernel's table says so."""
        with anyio.fail_after(LIMIT):
            while (held in self.addresses.holders(held.address)) is not present:
                await self.addresses.changed(self.addresses.revision)


@asynccontextmanager
async def running(address: str) -> AsyncIterator[Recorder]:
    async with anyio.create_task_group() as tasks:
        addresses = KernelAddresses()
        await addresses.read()
        tasks.start_soon(addresses.run)
        recorder = Recorder(addresses, address)
        tasks.start_soon(recorder.driver.run)
        await recorder.reach(State.RUNNING)
        yield recorder
        tasks.cancel_scope.cancel()


async def frame(far: socket.socket, wanted: bytes) -> bytes:
    """The next frame with these bytes in it."""
    with anyio.fail_after(3):
        while True:
            await anyio.wait_readable(far)
            data = far.recv(2048)
            if wanted in data:
                return data


@pytest.mark.parametrize("address", ["10.9.0.100/24", "10.55.0.1/32", "fd09::64/64"])
async def test_the_address_is_on_the_interface_with_its_prefix_and_usable_at_once(
    cable: socket.socket, address: str
) -> None:
    async with running(address):
        shown = ip("address", "show", "dev", "eth0")
        assert f" {address} " in shown
        assert "tentative" not in "".join(line for line in shown.splitlines() if address in line)


async def test_it_is_announced_by_arp_request_and_reply(cable: socket.socket) -> None:
    async with running("10.9.0.100/24"):
        sender = socket.inet_aton("10.9.0.100")
        operations = {(await frame(cable, b"\x08\x06\x00\x01\x08\x00\x06\x04"))[21] for _ in range(2)}
        assert operations == {1, 2}
        last = await frame(cable, sender + b"\0" * 6 + sender)
        assert last[:6] == b"\xff" * 6


async def test_an_ipv6_address_is_announced_to_all_nodes_with_override(cable: socket.socket) -> None:
    async with running("fd09::64/64"):
        target = socket.inet_pton(socket.AF_INET6, "fd09::64")
        data = await frame(cable, target)
        while data[54:55] != b"\x88":
            data = await frame(cable, target)
        assert data[:6] == b"\x33\x33\x00\x00\x00\x01"
        assert data[58] & 0x20
        assert data[62:78] == target


async def test_an_address_deleted_by_hand_is_back_within_a_second(cable: socket.socket) -> None:
    async with running("10.9.0.100/24") as vip:
        ip("address", "del", "10.9.0.100/24", "dev", "eth0")
        with anyio.fail_after(LIMIT):
            while "DriftRepaired" not in vip.events:
                await vip.addresses.changed(vip.addresses.revision)
        assert " 10.9.0.100/24 " in ip("address", "show", "dev", "eth0")


async def test_a_copy_on_another_interface_is_removed(cable: socket.socket) -> None:
    async with running("10.9.0.100/24") as vip:
        copy = Held("lo", "10.9.0.100", 32)
        ip("address", "add", "10.9.0.100/32", "dev", "lo")
        await vip.until_held(copy)
        await vip.until_held(copy, present=False)
        assert vip.events == ["ForeignAddressRemoved"]


async def test_an_interface_that_goes_down_is_waited_for_and_coming_back_is_noticed(cable: socket.socket) -> None:
    async with running("10.9.0.100/24") as vip:
        ip("link", "set", "eth0", "down")
        await vip.reach(State.STARTING)
        assert vip.driver.condition.message == "waiting: interface eth0 is down: ip link set eth0 up"
        ip("link", "set", "eth0", "up")
        await vip.reach(State.RUNNING)


async def test_a_pulled_cable_is_forgiven_for_a_moment_only(cable: socket.socket) -> None:
    async with running("10.9.0.100/24") as vip:
        ip("link", "set", "far", "down")
        await vip.reach(State.STARTING)
        assert vip.driver.condition.message == "waiting: interface eth0 has no carrier: cable or switch port"


async def test_stopping_takes_every_copy_away_and_stopping_twice_is_no_error(cable: socket.socket) -> None:
    addresses = KernelAddresses()
    await addresses.read()
    vip = Recorder(addresses, "10.9.0.100/24")
    await vip.driver.prepare()
    ip("address", "add", "10.9.0.100/32", "dev", "lo")
    await addresses.read()
    for _ in range(2):
        await vip.driver.stop(force=False)
    assert "10.9.0.100" not in ip("address")
    await addresses.close()


async def test_a_missing_interface_is_named(cable: socket.socket) -> None:
    ip("link", "del", "eth0")
    async with anyio.create_task_group() as tasks:
        addresses = KernelAddresses()
        await addresses.read()
        tasks.start_soon(addresses.run)
        vip = Recorder(addresses, "10.9.0.100/24")
        tasks.start_soon(vip.driver.run)
        await vip.reach(State.STARTING)
        assert vip.driver.condition.message == "waiting: interface eth0 does not exist"
        tasks.cancel_scope.cancel()
