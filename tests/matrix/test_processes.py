"""Rows of the failover matrix about processes: what dies, freezes or fails for good. S1 is asserted by ``act``."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest

from hasys.lab.cluster import group_of
from hasys.lab.machine import Machine
from hasys.lab.shell import until
from tests.lab.stage import GROUP, VIP, WORST, Act, pause

pytestmark = pytest.mark.lab

LEASE_OVER = 2.0
"""Seconds after which a holder without a guard must be mute (default profile: TTL 1 s)."""
GRACE = 10.0
"""Seconds that a guard keeps what runs without an agent."""
SERVER = "http.server"


def strike_down(machine: Machine, *roles: str) -> None:
    """SIGKILL these roles, the supervisor first, so that nothing starts them again."""
    (machine.root / "run/halt").touch()
    for role in ("node", *roles):
        machine.kill(role)


def revive(act: Act) -> None:
    """As after a repair: the node boots anew."""
    act.stage.lab.power_off(act.active)
    act.stage.lab.power_on(act.active)


def assert_runs_until_the_grace_ends_then_fails_over(act: Act, struck: float) -> None:
    pause(GRACE - 4)
    act.assert_unmoved(struck)
    act.stage.wait_holder(act.standby, timeout=8)
    assert GRACE - 1 <= time.monotonic() - struck <= GRACE + WORST
    until(lambda: not act.stage.machine(act.active).processes(SERVER), 3, "the web server to be fenced")
    act.stage.assert_felt_at_most(struck, WORST)
    act.told("NodeNotReady", f"{act.active} is not ready: its agent does not run")
    act.told("FailoverStarted", f"from {act.active} to {act.standby}", f"the guard of {act.active} fenced it")


@pytest.mark.long
def test_row_11_everything_but_the_guard_killed_keeps_running_for_the_grace_time_then_fails_over(act: Act) -> None:
    struck = time.monotonic()
    strike_down(act.stage.machine(act.active), "agent", "store")
    try:
        assert_runs_until_the_grace_ends_then_fails_over(act, struck)
    finally:
        revive(act)


@pytest.mark.long
def test_row_20_a_frozen_agent_is_given_the_grace_time_then_the_group_fails_over(act: Act) -> None:
    machine = act.stage.machine(act.active)
    struck = time.monotonic()
    frozen = machine.freeze("agent")
    assert_runs_until_the_grace_ends_then_fails_over(act, struck)
    machine.thaw(frozen)


def test_row_12_an_application_that_fails_everywhere_is_retried_where_it_failed_least_and_says_why(act: Act) -> None:
    machines = [act.stage.machine(name) for name in act.stage.cluster.nodes]
    for machine in machines:
        machine.run("touch", "/run/broken")
    try:
        machines[act.stage.cluster.nodes.index(act.active)].kill(SERVER)
        failed = act.stage.cluster.wait(lambda s: group_of(s, GROUP)["phase"] == "Failed", 20, "a failed group")
        assert "web-app failed on" in group_of(failed, GROUP)["reason"]
        act.told("GroupFailed", "web-app failed on", "it is tried again with back-off")
        assert {e["type"] for e in act.events() if e["reason"] == "GroupFailed"} == {"Critical"}
    finally:
        for machine in machines:
            machine.run("rm", "-f", "/run/broken")
    mended = act.stage.cluster.wait_running(GROUP)  # the next retry succeeds
    act.told("Retrying", "the back-off time passed")
    act.stage.cluster.hasys("switchover", GROUP, "--to", act.stage.other(mended))  # forgets a failure, for later tests


@pytest.mark.long
def test_row_19_a_node_frozen_for_half_a_minute_fences_before_anything_else_when_it_wakes(act: Act) -> None:
    machine = act.stage.machine(act.active)
    struck = time.monotonic()
    frozen = machine.freeze()
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, WORST)
    pause(30)
    assert act.stage.watch.last_answer(VIP, act.active, struck + LEASE_OVER) is None
    thawed = time.monotonic()
    machine.thaw(frozen)
    until(lambda: not machine.processes(SERVER), 3, "the old web server to be gone")
    assert act.stage.cluster.wait_redundant(GROUP) == act.standby
    act.stage.assert_stayed(act.standby, thawed)
    act.told("FailoverStarted", f"from {act.active} to {act.standby}", f"{act.active} is lost: no keep-alive")


@pytest.mark.long
def test_row_18_the_loss_of_the_leader_elsewhere_moves_nothing(act: Act) -> None:
    act.stage.make_leader("w")
    struck = time.monotonic()
    act.stage.lab.power_off("w")
    act.stage.cluster.wait(lambda s: s["cluster"]["leader"] not in ("", "w"), 10, "another leader")
    pause(2)
    act.assert_unmoved(struck)


@pytest.mark.long
def test_row_18_the_loss_of_a_leading_standby_moves_nothing(act: Act) -> None:
    act.stage.make_leader(act.standby)
    struck = time.monotonic()
    act.stage.lab.power_off(act.standby)
    act.stage.cluster.wait(lambda s: s["cluster"]["leader"] not in ("", act.standby), 10, "another leader")
    pause(2)
    act.assert_unmoved(struck)
    act.told("NodeLost", act.standby)


@pytest.mark.parametrize("first", ["guard", "network"])
def test_row_35_a_node_without_guard_and_network_is_muted_by_its_kernel(act: Act, first: str) -> None:
    """No guard comes back: only the kernel's timeout can mute the address."""
    machine = act.stage.machine(act.active)
    struck = time.monotonic()
    if first == "network":
        machine.drop()
    strike_down(machine, "guard")
    if first == "guard":
        machine.drop()
    try:
        act.stage.wait_holder(act.standby)
        act.stage.assert_felt_at_most(struck, WORST)
        pause(LEASE_OVER)
        assert act.stage.watch.last_answer(VIP, act.active, struck + LEASE_OVER) is None
    finally:
        revive(act)


def test_row_35_a_new_guard_fences_the_processes_of_an_isolated_node(act: Act) -> None:
    machine = act.stage.machine(act.active)
    struck = time.monotonic()
    machine.drop()
    machine.kill("guard")
    until(lambda: not machine.processes(SERVER), 5, "the web server to be fenced")
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, WORST)
    act.told("FailoverStarted", f"from {act.active} to {act.standby}")


def stuck_group(first: str, second: str) -> str:
    """A group whose program ignores SIGTERM for a minute, though the group is given two seconds to stop."""
    nodes = f"[{{name: {first}, priority: 100}}, {{name: {second}, priority: 50}}]"
    program = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", "stubborn"]
    return (
        "apiVersion: hasys/v1\nkind: Group\nmetadata: {name: stuck}\n"
        f"spec: {{nodes: {nodes}, failover: {{stopTimeout: 2s}}}}\n"
        "---\napiVersion: hasys/v1\nkind: Application\nmetadata: {name: stubborn, group: stuck}\n"
        f"spec: {{run: {{command: {json.dumps(program)}, stopTimeout: 60s}}}}\n"
    )


def test_row_28_a_group_that_refuses_to_stop_is_fenced_and_the_other_groups_of_its_node_are_not_touched(
    act: Act,
) -> None:
    cluster, machine = act.stage.cluster, act.stage.machine(act.active)
    cluster.apply(stuck_group(act.active, act.standby))
    try:
        cluster.wait_running("stuck", active=act.active)
        struck = time.monotonic()
        cluster.hasys("switchover", "stuck", "--to", act.standby)
        assert cluster.wait_running("stuck") == act.standby
        assert machine.processes("stubborn") == []
        act.told("StopOverdue", f"stuck did not stop on {act.active}", "blocked by stubborn is Stopping")
        at = {e["reason"]: datetime.fromisoformat(e["time"]) for e in act.events() if e["regarding"]["name"] == "stuck"}
        assert 2.0 <= (at["StopOverdue"] - at["MoveStarted"]).total_seconds() <= 2.0 + WORST
        act.assert_unmoved(struck)
    finally:
        cluster.hasys("delete", "group", "stuck")


def test_row_31_an_orderly_shutdown_is_told_and_costs_what_a_switchover_costs(act: Act) -> None:
    struck = time.monotonic()
    act.stage.lab.shutdown(act.active, "node")
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, 0.5)
    act.told("MoveStarted", f"from {act.active} to {act.standby}", f"{act.active} shuts down")
    act.told("NodeStopped", act.active)


@pytest.mark.long
def test_row_26_a_restart_of_every_member_one_after_the_other_moves_a_group_once_per_node(act: Act) -> None:
    """As a rolling upgrade does it: in order, each member only when all is well again."""
    struck = time.monotonic()
    for name in ("w", act.standby, act.active):
        act.stage.lab.shutdown(name, "witness" if name == "w" else "node")
        act.stage.lab.power_on(name)
        act.stage.cluster.wait_ready()
        act.stage.cluster.wait_redundant(GROUP)
    moves = [e["reason"] for e in act.events() if e["reason"].endswith("Started") and e["regarding"]["kind"] == "Group"]
    assert moves == ["MoveStarted"]
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, 0.5)
