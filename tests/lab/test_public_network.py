"""What a lost public network moves, and what it does not. Rows of the failure matrix are named where they are tested.

Fixture ``act`` asserts throughout that no two nodes answered for the address.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from hasys.lab.cluster import group_of
from hasys.lab.machine import Machine
from tests.lab.stage import GROUP, MANIFEST, VIP, VIP6, Act, Stage, pause

pytestmark = pytest.mark.lab

SOON = 1.2
"""Seconds: below the TTL and all timeouts (a link that goes down is told at once; usual are 0.1 to 0.3 s)."""
BY_SILENCE = 4.0
"""Seconds: five questions without an answer, a second for the others to notice the same, an orderly stop."""
GATEWAY = "10.77.0.254"
JUDGED = 1.6
"""Seconds after which a gateway that does not answer would have been told."""


@pytest.fixture
def calm(stage: Stage) -> None:
    """New agents remember no bouncing link: what earlier tests did must not slow this one down. Before ``act``."""
    stage.cluster.restore()
    for name in stage.cluster.nodes:
        stage.machine(name).kill("agent")
    stage.cluster.wait(
        lambda status: all(n["state"] == "NotReady" for n in status["nodes"] if n["name"] in stage.cluster.nodes),
        10,
        "the agents to be gone",
    )


@pytest.fixture
def unhurt(stage: Stage) -> None:
    """A group without a past: away from a lost gateway none goes to a node on which it failed within ten minutes, in an
    earlier test, say. Before ``act``."""
    stage.settle()
    stage.cluster.hasys("delete", "group", GROUP)
    stage.cluster.apply(MANIFEST)
    stage.cluster.wait_running(GROUP)


@pytest.fixture
def gateway(stage: Stage) -> Iterator[Machine]:
    """Default gateway of both nodes."""
    made = stage.lab.machines.get("gw") or stage.lab.machine("gw", 254)
    nodes = [stage.machine(name) for name in stage.cluster.nodes]
    for node in nodes:
        node.run("ip", "route", "replace", "default", "via", GATEWAY)
    yield made
    stage.lab.heal()
    for node in nodes:
        node.run("ip", "route", "del", "default")


def plug(act: Act, *names: str, plugged: bool) -> None:
    """The public cables of these, all at one time."""
    act.stage.lab.switch.carrier([act.stage.machine(name).ports[0] for name in names], up=plugged)


@pytest.mark.parametrize("leader", ["active", "witness"])
def test_a_link_that_goes_down_on_the_active_moves_the_group_without_a_timeout(act: Act, leader: str) -> None:
    """Row 5."""
    act.stage.make_leader({"active": act.active, "witness": "w"}[leader])
    struck = time.monotonic()
    plug(act, act.active, plugged=False)
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, SOON)
    assert "no carrier" in act.told("FailoverStarted", f"from {act.active} to {act.standby}")


def test_an_active_that_hears_nobody_gives_the_group_to_one_that_does(act: Act) -> None:
    """Row 5 by silence: no link goes down."""
    struck = time.monotonic()
    act.stage.machine(act.active).drop(networks=[0])
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, BY_SILENCE)
    assert "nobody answers on eth0" in act.told("FailoverStarted", f"from {act.active} to {act.standby}")


@pytest.mark.usefixtures("calm")
def test_a_network_that_all_have_lost_moves_nothing_and_serves_when_it_is_back(act: Act) -> None:
    """Row 4."""
    plug(act, *act.stage.cluster.members, plugged=False)
    pause(2)
    back = time.monotonic()
    plug(act, *act.stage.cluster.members, plugged=True)
    act.stage.probe.wait_answer(5, since=back)
    assert act.stage.cluster.wait_redundant(GROUP) == act.active
    assert "no node is better" in act.told("GroupDegraded", "no carrier")
    assert act.moves() == []


def test_a_standby_without_its_public_network_is_none_until_it_is_back(act: Act) -> None:
    """Row 6."""
    struck = time.monotonic()
    plug(act, act.standby, plugged=False)
    seen = act.stage.cluster.wait(lambda s: not group_of(s, GROUP)["redundant"], 10, "no redundancy")
    assert group_of(seen, GROUP)["nodes"][act.standby] == "NotReady"
    act.told("InterfaceLost", act.standby)
    act.assert_unmoved(struck)
    plug(act, act.standby, plugged=True)
    assert act.stage.cluster.wait_redundant(GROUP) == act.active
    act.told("InterfaceBack", act.standby)


def test_an_interface_set_down_and_up_by_hand_moves_the_group_once(act: Act) -> None:
    """Row 13: set up again, the old node speaks for nothing."""
    node = act.stage.machine(act.active)
    struck = time.monotonic()
    node.run("ip", "link", "set", "eth0", "down")
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, SOON)
    up = time.monotonic()
    node.run("ip", "link", "set", "eth0", "up")
    node.run("ip", "addr", "add", f"{node.address6()}/64", "dev", "eth0", "nodad")
    assert act.stage.cluster.wait_redundant(GROUP) == act.standby
    act.stage.assert_stayed(act.standby, up)
    assert len(act.moves()) == 1


@pytest.mark.usefixtures("calm")
def test_a_bouncing_link_moves_the_group_once(act: Act) -> None:
    for _ in range(4):
        plug(act, act.active, plugged=False)
        pause(0.3)
        plug(act, act.active, plugged=True)
        pause(0.2)
    act.stage.wait_holder(act.standby)
    pause(1)
    assert len(act.moves()) == 1


@pytest.mark.parametrize("victim", ["active", "standby"])
def test_with_the_heartbeat_network_down_a_node_without_the_public_one_is_out(act: Act, victim: str) -> None:
    """Rows 7 and 8."""
    for name in act.stage.cluster.members:
        act.stage.machine(name).cable(plugged=False, networks=[1])
    struck = time.monotonic()
    plug(act, act.active if victim == "active" else act.standby, plugged=False)
    if victim == "active":
        act.stage.wait_holder(act.standby)
    else:
        pause(2)
        act.assert_unmoved(struck)


@pytest.mark.usefixtures("calm", "unhurt")
def test_the_gateway_lost_for_the_active_alone_moves_the_group(act: Act, gateway: Machine) -> None:
    """Row 34. The link serves on while the group moves."""
    pause(JUDGED)
    struck = time.monotonic()
    act.stage.lab.partition([act.active], [gateway.name], networks=[0])
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, 0.5)
    assert f"gateway {GATEWAY} does not answer" in act.told("MoveStarted", f"from {act.active} to {act.standby}")


def test_the_gateway_lost_for_all_moves_nothing(act: Act, gateway: Machine) -> None:
    """Row 34."""
    pause(JUDGED)
    struck = time.monotonic()
    gateway.cable(plugged=False)
    lost = act.stage.cluster.wait(lambda s: group_of(s, GROUP)["phase"] == "Degraded", 10, "the reason")
    assert f"gateway {GATEWAY} does not answer" in group_of(lost, GROUP)["reason"]
    gateway.cable(plugged=True)
    act.stage.cluster.wait_running(GROUP, act.active)
    act.assert_unmoved(struck)


@pytest.mark.parametrize("address", [f"{VIP}/24", f"{VIP6}/64"], ids=["ipv4", "ipv6"])
def test_a_foreign_machine_that_takes_the_address_is_told_and_moves_nothing(act: Act, address: str) -> None:
    """Row 37."""
    foreign = act.stage.lab.machines.get("foreign") or act.stage.lab.machine("foreign", 99)
    foreign.run("ip", "addr", "add", address, "dev", "eth0", "nodad")
    try:
        act.told("AddressTaken", foreign.mac(), act.active)
    finally:
        foreign.run("ip", "addr", "del", address, "dev", "eth0")
    act.stage.probe.wait_answer(10)
    assert act.stage.cluster.wait_redundant(GROUP) == act.active
    assert act.moves() == []
