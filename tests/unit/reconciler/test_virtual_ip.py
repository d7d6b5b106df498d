"""VirtualIP on a machine that obeys, in virtual time: links, drift, announcements. On a real kernel: tests/lab."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import anyio
import pytest

from hasys.resources.addresses import Held, Link
from hasys.resources.port import AddressTrace, Condition, Place, State, Surroundings
from hasys.resources.virtual_ip import CLAIM_EVENTS, CLAIM_GRACE, CLAIM_OVER, DEFEND, LINK_GRACE, VirtualIP
from hasys.v1 import objects_pb2 as pb
from tests.unit.reconciler.fakes import FakeAddresses

pytestmark = pytest.mark.anyio

HERE = Held("eth0", "10.0.0.9", 24)


class Subject:
    """A virtual IP 10.0.0.9/24 on eth0, announced each 30 s."""

    def __init__(self, address: str = "10.0.0.9/24", interface: pb.Interface | None = None) -> None:
        self.log: list[str] = []
        self.addresses = FakeAddresses(self.log)
        self.announced: list[float] = []
        self.events: list[str] = []
        around = Surroundings(
            Place("n1", "web", "ip", 1),
            permitted=anyio.lowlevel.checkpoint,
            changed=lambda: None,
            record=lambda reason, cause, took=None: self.events.append(reason),
        )
        spec = pb.VirtualIPSpec(address=address, interface=interface or pb.Interface(name="eth0"))
        self.driver = VirtualIP(around, spec, self.addresses, self._send, self)
        self.begun = anyio.current_time()

    def _send(self, address: str, link: Link) -> None:
        self.announced.append(round(anyio.current_time() - self.begun, 3))

    @contextmanager
    def defended(self, interface: str, address: str, challenged: Callable[[str], None]) -> Iterator[None]:
        self.challenge = challenged
        yield

    @property
    def condition(self) -> Condition:
        return self.driver.condition

    def set_link(self, *, up: bool = True, carrier: bool = True) -> None:
        self.addresses.links["eth0"] = replace(self.addresses.links["eth0"], up=up, carrier=carrier)
        self.addresses.tell()


@asynccontextmanager
async def running(subject: Subject) -> AsyncIterator[Subject]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(subject.driver.run)
        await anyio.sleep(0.001)
        yield subject
        tasks.cancel_scope.cancel()


async def test_a_takeover_is_announced_in_a_burst_and_then_at_the_interval() -> None:
    async with running(Subject()) as ip:
        await anyio.sleep(62)
        assert ip.announced == [0, 0.1, 0.4, 0.9, 30.9, 60.9]


async def test_a_bouncing_cable_is_no_failure_and_the_address_is_announced_again() -> None:
    async with running(Subject()) as ip:
        await anyio.sleep(5)
        ip.announced.clear()
        ip.set_link(carrier=False)
        await anyio.sleep(LINK_GRACE - 0.1)
        assert ip.condition.state is State.RUNNING
        ip.set_link()
        await anyio.sleep(0.01)
        assert ip.condition == Condition(State.RUNNING)
        assert len(ip.announced) == 1


async def test_a_cable_that_stays_out_is_waited_for_and_no_failure() -> None:
    """Whether another node is better off is the leader's to judge."""
    async with running(Subject()) as ip:
        ip.set_link(carrier=False)
        await anyio.sleep(LINK_GRACE + 0.01)
        waiting = "waiting: interface eth0 has no carrier: cable or switch port"
        assert ip.condition == Condition(State.STARTING, waiting)
        await anyio.sleep(3600)
        assert ip.condition == Condition(State.STARTING, waiting)
        ip.set_link()
        await anyio.sleep(0.01)
        assert ip.condition == Condition(State.RUNNING)


async def test_a_link_that_was_set_down_is_not_forgiven_for_a_moment() -> None:
    async with running(Subject()) as ip:
        ip.set_link(up=False)
        await anyio.sleep(0.001)
        assert ip.condition == Condition(State.STARTING, "waiting: interface eth0 is down: ip link set eth0 up")


async def test_a_missing_interface_is_waited_for() -> None:
    ip = Subject()
    link = ip.addresses.links.pop("eth0")
    async with running(ip):
        assert ip.condition == Condition(State.STARTING, "waiting: interface eth0 does not exist")
        await anyio.sleep(0.5)
        ip.addresses.links["eth0"] = link
        ip.addresses.tell()
        await anyio.sleep(0.01)
        assert ip.condition == Condition(State.RUNNING)


async def test_a_kernel_that_refuses_is_asked_again_and_quoted() -> None:
    ip = Subject()
    ip.addresses.failing = 2
    async with running(ip):
        assert ip.condition == Condition(State.STARTING, "cannot add 10.0.0.9")
        await anyio.sleep(1)
        assert ip.condition == Condition(State.RUNNING)


async def test_a_wrong_prefix_and_a_copy_elsewhere_are_put_right() -> None:
    ip = Subject()
    ip.addresses.held = {Held("eth0", "10.0.0.9", 32), Held("eth1", "10.0.0.9", 24)}
    async with running(ip):
        assert ip.addresses.held == {HERE}
        assert ip.events == ["ForeignAddressRemoved"] * 2


async def test_preparing_does_nothing_on_a_link_that_is_down_and_nothing_twice() -> None:
    ip = Subject()
    ip.set_link(up=False)
    await ip.driver.prepare()
    assert ip.log == []
    ip.set_link()
    await ip.driver.prepare()
    await ip.driver.prepare()
    assert ip.log == ["add 10.0.0.9 eth0"]


async def test_an_ipv6_address_is_compared_in_its_canonical_form() -> None:
    ip = Subject("FD00:0:0::9/64")
    assert ip.driver.traces() == (AddressTrace("eth0", "fd00::9"),)
    ip.addresses.held = {Held("eth0", "fd00::9", 64)}
    assert await ip.driver.adopt()


async def test_a_node_without_an_interface_for_it_fails_and_says_what_to_do() -> None:
    async with running(Subject(interface=pb.Interface(per_node={"n2": "eth0"}))) as ip:
        assert ip.condition == Condition(State.FAILED, "no interface is named for n1: add n1 to spec.interface")
        assert ip.driver.traces() == ()


async def test_it_is_announced_anew_when_neighbours_may_have_been_led_astray_and_only_while_it_is_here() -> None:
    async with running(Subject()) as ip:
        await anyio.sleep(5)
        ip.announced.clear()
        ip.driver.announce()
        assert ip.announced == [5.001]
        ip.set_link(up=False)
        await anyio.sleep(0.01)
        ip.driver.announce()
        assert len(ip.announced) == 1


async def test_a_foreign_claim_is_answered_at_once_and_is_one_event() -> None:
    async with running(Subject()) as ip:
        await anyio.sleep(5)
        ip.announced.clear()
        for _ in range(10):
            ip.challenge("02:00:00:00:00:99")
        assert ip.announced == [5.001]
        await anyio.sleep(DEFEND)
        ip.challenge("02:00:00:00:00:99")
        assert len(ip.announced) == 2
        assert ip.events == ["AddressTaken"]


async def test_another_foreign_machine_or_the_same_after_a_silence_is_another_event() -> None:
    async with running(Subject()) as ip:
        await anyio.sleep(5)
        ip.challenge("02:00:00:00:00:99")
        await anyio.sleep(CLAIM_EVENTS)
        ip.challenge("02:00:00:00:00:98")
        assert ip.events == ["AddressTaken"] * 2
        await anyio.sleep(CLAIM_OVER + 1)
        ip.challenge("02:00:00:00:00:98")
        assert ip.events == ["AddressTaken"] * 3


async def test_forged_claims_of_many_machines_are_few_events() -> None:
    async with running(Subject()) as ip:
        await anyio.sleep(5)
        for number in range(1000):
            ip.challenge(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}")
            await anyio.sleep(0.02)
        assert len(ip.events) <= 20 / CLAIM_EVENTS + 1


async def test_a_late_word_of_the_node_that_had_it_before_is_no_foreign_claim() -> None:
    async with running(Subject()) as ip:
        await anyio.sleep(CLAIM_GRACE - 0.1)
        ip.challenge("02:00:00:00:00:02")
        assert ip.events == []
