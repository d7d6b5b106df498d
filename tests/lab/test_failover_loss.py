"""Machines and networks that go away: who serves then, how soon, and never two at once (fixture ``act`` asserts it)."""

from __future__ import annotations

import time

import pytest

from hasys.lab.cluster import group_of
from hasys.lab.shell import until
from hasys.lab.switch import Direction
from tests.lab.stage import GROUP, UNFELT, VIP, WORST, Act, pause

pytestmark = pytest.mark.lab

SERVER = "http.server"
LEASE_OVER = 2.0
"""Seconds after which a cut-off holder of the default profile (TTL 1 s) must have fallen silent."""


def taken_over(act: Act, struck: float) -> None:
    """The Standby serves, address and web server, within the bound."""
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, WORST)
    act.stage.web.wait_answer(10)


def test_power_loss_of_the_active_moves_the_group_to_the_standby(act: Act) -> None:
    struck = time.monotonic()
    act.stage.lab.power_off(act.active)
    taken_over(act, struck)
    act.told("FailoverStarted", f"from {act.active} to {act.standby}", f"{act.active} is lost: no keep-alive")


def test_the_returning_node_is_standby_and_moves_nothing(act: Act) -> None:
    struck = time.monotonic()
    act.stage.lab.power_off(act.active)
    taken_over(act, struck)
    back = time.monotonic()
    act.stage.lab.power_on(act.active)
    assert act.stage.cluster.wait_redundant(GROUP) == act.standby
    act.stage.assert_stayed(act.standby, back)


def test_power_loss_of_the_standby_moves_nothing(act: Act) -> None:
    struck = time.monotonic()
    act.stage.lab.power_off(act.standby)
    pause(2)
    act.told("NodeLost", act.standby)
    act.assert_unmoved(struck)


def test_silent_loss_of_the_active_moves_the_group_and_silences_it(act: Act) -> None:
    struck = time.monotonic()
    act.stage.machine(act.active).drop()
    taken_over(act, struck)
    pause(LEASE_OVER)
    assert act.stage.watch.last_answer(VIP, act.active, struck + LEASE_OVER) is None


def test_a_lost_active_that_is_found_again_stays_silent(act: Act) -> None:
    struck = time.monotonic()
    act.stage.machine(act.active).drop()
    taken_over(act, struck)
    healed = time.monotonic()
    act.stage.lab.heal()
    assert act.stage.cluster.wait_redundant(GROUP) == act.standby
    act.stage.assert_stayed(act.standby, healed)


@pytest.mark.parametrize("direction", [Direction.IN, Direction.OUT], ids=["deaf", "mute"])
def test_one_way_loss_ends_in_one_active(act: Act, direction: Direction) -> None:
    struck = time.monotonic()
    act.stage.machine(act.active).drop(direction)
    taken_over(act, struck)


def test_silent_loss_never_leaves_two_web_servers(act: Act) -> None:
    """S1b: the guard of the lost node kills its processes before the other node may start them."""
    lost, other = act.stage.machine(act.active), act.stage.machine(act.standby)
    lost.drop()

    def both() -> bool:
        """Both at one instant: the other's was seen between two sightings of the lost node's."""
        return bool(lost.processes(SERVER) and other.processes(SERVER) and lost.processes(SERVER))

    until(lambda: both() or other.processes(SERVER), 10, f"a web server on {other.name}", every=0.002)
    assert not both()


def test_every_cable_of_the_active_pulled_moves_the_group(act: Act) -> None:
    struck = time.monotonic()
    act.stage.machine(act.active).cable(plugged=False)
    taken_over(act, struck)


def test_public_cable_of_the_active_pulled_moves_the_group(act: Act) -> None:
    struck = time.monotonic()
    act.stage.machine(act.active).cable(plugged=False, networks=[0])
    taken_over(act, struck)


def test_public_cable_of_the_standby_pulled_moves_nothing(act: Act) -> None:
    struck = time.monotonic()
    act.stage.machine(act.standby).cable(plugged=False, networks=[0])
    pause(2)
    act.stage.assert_stayed(act.active, struck)


def test_loss_of_the_heartbeat_network_moves_nothing(act: Act) -> None:
    struck = time.monotonic()
    for name in act.stage.cluster.members:
        act.stage.machine(name).cable(plugged=False, networks=[1])
    said = act.stage.cluster.wait(
        lambda s: all(n["cut"] == [act.stage.machine(n["name"]).address(1)] for n in s["nodes"]), 15, "lost networks"
    )
    assert [n["message"] for n in said["nodes"]] == [f"not reached at {n['cut'][0]}" for n in said["nodes"]]
    for name in act.stage.cluster.members:
        act.told("NetworkLost", f"{name} is not reached at {act.stage.machine(name).address(1)} any more")
    act.assert_unmoved(struck)


def test_silent_loss_of_the_heartbeat_network_moves_nothing(act: Act) -> None:
    struck = time.monotonic()
    for name in act.stage.cluster.members:
        act.stage.machine(name).drop(networks=[1])
    pause(2.5)
    act.stage.assert_stayed(act.active, struck)


def test_loss_of_the_witness_moves_nothing(act: Act) -> None:
    struck = time.monotonic()
    act.stage.lab.power_off("w")
    act.stage.cluster.wait(lambda s: not group_of(s, GROUP)["redundant"], 10, "a group that is not redundant")
    act.told("NodeLost", "w")
    pause(2.5)
    act.assert_unmoved(struck)


@pytest.mark.parametrize("leader", ["active", "standby", "witness"])
def test_active_and_standby_cut_from_each_other_move_nothing(act: Act, leader: str) -> None:
    act.stage.make_leader({"active": act.active, "standby": act.standby, "witness": "w"}[leader])
    struck = time.monotonic()
    act.stage.lab.partition([act.active], [act.standby])
    pause(2.5)
    act.assert_unmoved(struck)


def test_active_and_standby_cut_from_each_other_still_switch_over_through_the_witness(act: Act) -> None:
    act.stage.make_leader(act.active)
    act.stage.lab.partition([act.active], [act.standby])
    pause(2.5)  # the standby's own server knows by now that it has no leader
    act.stage.cluster.hasys("switchover", GROUP, "--to", act.standby)
    act.stage.wait_holder(act.standby)
    assert len(act.moves()) == 1


def test_nothing_is_said_to_run_on_a_lost_node_that_nobody_can_replace(act: Act) -> None:
    act.stage.cluster.hasys("drain", act.standby)
    try:
        act.stage.machine(act.active).drop()
        blocked = act.stage.cluster.wait(lambda s: group_of(s, GROUP)["phase"] == "Blocked", 10, "a blocked group")
        assert {r["state"] for r in group_of(blocked, GROUP)["resources"]} == {"Unknown"}
    finally:
        act.stage.lab.heal()
        act.stage.cluster.hasys("undrain", act.standby)


def test_without_a_majority_nobody_serves(act: Act) -> None:
    act.stage.lab.power_off("w")
    act.stage.lab.power_off(act.standby)
    struck = time.monotonic()  # until here there was a majority
    act.stage.wait_holder(None, timeout=LEASE_OVER)
    pause(LEASE_OVER)
    assert act.stage.watch.last_answer(VIP, act.active, struck + LEASE_OVER) is None


def test_power_loss_of_everything_ends_in_one_active(act: Act) -> None:
    for name in act.stage.cluster.members:
        act.stage.lab.power_off(name)
    struck = time.monotonic()
    for name in act.stage.cluster.members:
        act.stage.lab.power_on(name)
    act.stage.probe.wait_answer(20, since=struck)
    act.stage.cluster.wait_redundant(GROUP)


def test_an_application_is_reachable_again_after_power_loss(act: Act) -> None:
    struck = time.monotonic()
    act.stage.lab.power_off(act.active)
    act.stage.web.wait_answer(10)  # asked now: who lost its power answered until it did
    assert act.stage.web.outage(struck).longest <= WORST + UNFELT
