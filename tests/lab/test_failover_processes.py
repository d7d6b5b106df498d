"""Processes that die, freeze or are meddled with: what must not be felt, what must move, and never two at once."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from hasys.lab.cluster import group_of
from hasys.lab.shell import until
from hasys.reconciler.watching import TELL
from hasys.store.main import NICE
from tests.lab.stage import GROUP, UNFELT, VIP, WORST, Act, pause

pytestmark = pytest.mark.lab

LEASE_OVER = 2.0
"""Seconds after which a frozen holder of the default profile (TTL 1 s) must have been muted by its kernel."""


def web_server(act: Act) -> list[int]:
    """Host pids of the group's web server on the Active."""
    return act.stage.machine(act.active).processes("http.server")


def killed(act: Act, role: str) -> float:
    """SIGKILL a role on the Active and wait until the role is back; returns when it was struck."""
    machine = act.stage.machine(act.active)
    struck = time.monotonic()
    gone = set(machine.kill(role))
    until(lambda: set(machine.processes(role)) - gone, 10, f"{role} to be started again")
    pause(2)
    return struck


@pytest.mark.parametrize("role", ["agent", "store", "node"])
def test_a_killed_process_of_the_active_is_not_felt(act: Act, role: str) -> None:
    struck = killed(act, role)
    act.stage.assert_stayed(act.active, struck)


@pytest.mark.parametrize("role", ["store", "guard"])
def test_what_keeps_a_lease_does_not_wait_for_memory_to_be_read_from_a_disk(act: Act, role: str) -> None:
    for machine in map(act.stage.machine, (act.active, act.standby)):
        [pid] = machine.processes(role)
        found = re.findall(r"^(Pss|Locked):\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        sizes = {name: int(size) for name, size in found}
        assert sizes["Locked"] > 0.95 * sizes["Pss"], f"{role} on {machine.name}: {sizes} kB"


def test_the_store_comes_before_ordinary_work_also_where_sessions_share_the_processors(act: Act) -> None:
    for machine in map(act.stage.machine, (act.active, act.standby)):
        [pid] = machine.processes("store")
        assert os.getpriority(os.PRIO_PROCESS, pid) == NICE
        group = Path(f"/proc/{pid}/autogroup")
        assert not group.exists() or group.read_text().split()[-1] == str(NICE)


def test_a_killed_guard_moves_nothing(act: Act) -> None:
    struck = killed(act, "guard")
    assert act.stage.watch.last_answer(VIP, act.standby, struck) is None
    act.stage.assert_felt_at_most(struck, WORST)


def test_a_restarted_agent_adopts_what_runs(act: Act) -> None:
    before = web_server(act)
    struck = killed(act, "agent")
    act.stage.cluster.wait_running(GROUP, active=act.active)
    assert before
    assert web_server(act) == before
    assert act.stage.web.outage(struck).felt <= UNFELT


def test_a_frozen_node_is_muted_by_its_kernel_and_replaced(act: Act) -> None:
    machine = act.stage.machine(act.active)
    struck = time.monotonic()
    frozen = machine.freeze()
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, WORST)
    pause(LEASE_OVER)
    assert act.stage.watch.last_answer(VIP, act.active, struck + LEASE_OVER) is None
    thawed = time.monotonic()
    machine.thaw(frozen)
    assert act.stage.cluster.wait_redundant(GROUP) == act.standby
    act.stage.assert_stayed(act.standby, thawed)
    act.told("FailoverStarted", f"from {act.active} to {act.standby}", f"{act.active} is lost: no keep-alive")


def test_a_frozen_node_gives_its_processes_up_when_it_wakes(act: Act) -> None:
    machine = act.stage.machine(act.active)
    frozen = machine.freeze()
    act.stage.wait_holder(act.standby)
    machine.thaw(frozen)
    until(lambda: not web_server(act), 5, "the old web server to be gone")
    until(lambda: VIP not in machine.run("ip", "addr", "show", "eth0"), 5, "the address to be off the interface")


@pytest.mark.parametrize("role", ["store", "agent"])
def test_a_frozen_store_or_agent_of_the_active_moves_nothing(act: Act, role: str) -> None:
    machine = act.stage.machine(act.active)
    struck = time.monotonic()
    frozen = machine.freeze(role)
    pause(3)
    machine.thaw(frozen)
    act.stage.assert_stayed(act.active, struck)


def test_an_agent_outlasts_a_store_that_stays_frozen(act: Act) -> None:
    """Longer than a report of live figures is waited for, twice."""
    machine = act.stage.machine(act.active)
    agent = machine.processes("agent")
    struck = time.monotonic()
    frozen = machine.freeze("store")
    pause(2 * TELL + 1)
    assert machine.processes("agent") == agent
    machine.thaw(frozen)
    act.stage.assert_stayed(act.active, struck)


def test_a_frozen_guard_loses_the_address(act: Act) -> None:
    machine = act.stage.machine(act.active)
    struck = time.monotonic()
    frozen = machine.freeze("guard")
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, WORST)
    machine.thaw(frozen)
    assert act.stage.cluster.wait_redundant(GROUP) == act.standby


def test_the_death_of_the_leaders_store_moves_nothing(act: Act) -> None:
    leader = act.stage.cluster.status()["cluster"]["leader"]
    struck = time.monotonic()
    act.stage.machine(leader).kill("store")
    pause(2.5)
    act.stage.assert_stayed(act.active, struck)


def test_a_dead_application_is_restarted_in_place(act: Act) -> None:
    struck = time.monotonic()
    act.stage.machine(act.active).kill("http.server")
    act.stage.web.wait_answer(10)  # asked now: it answered until it was killed
    assert act.stage.web.outage(struck).felt < 1.5  # under 1 s, and the start time of its Python
    act.stage.cluster.wait_running(GROUP, active=act.active)
    act.stage.assert_stayed(act.active, struck)


def test_an_application_that_cannot_run_here_fails_over(act: Act) -> None:
    machine = act.stage.machine(act.active)
    machine.run("touch", "/run/broken")
    try:
        machine.kill("http.server")
        act.stage.cluster.wait_running(GROUP, active=act.standby)
        act.stage.wait_holder(act.standby)
    finally:
        machine.run("rm", "-f", "/run/broken")
    act.stage.cluster.hasys("switchover", GROUP, "--to", act.active)  # forgets the failure, for the tests after this


def test_an_address_deleted_by_hand_returns(act: Act) -> None:
    struck = time.monotonic()
    act.stage.machine(act.active).run("ip", "addr", "del", f"{VIP}/24", "dev", "eth0")
    act.stage.probe.wait_answer(5, since=time.monotonic())
    act.stage.assert_felt_at_most(struck, 1.0)
    assert act.stage.watch.last_answer(VIP, act.standby, struck) is None
    act.told("DriftRepaired", act.active, f"{VIP} was missing on eth0")


def test_an_address_added_on_the_standby_by_hand_stays_mute_and_is_removed(act: Act) -> None:
    struck = time.monotonic()
    machine = act.stage.machine(act.standby)
    machine.run("ip", "addr", "add", f"{VIP}/24", "dev", "eth0")
    until(lambda: VIP not in machine.run("ip", "addr", "show", "eth0"), 5, "the address to be removed")
    act.told("ForeignAddressRemoved", f"removed from {act.standby}", VIP)
    act.assert_unmoved(struck)


def test_neighbours_that_an_address_on_the_standby_led_astray_are_told_where_it_is(act: Act) -> None:
    client, lost, mac = act.stage.lab.client, act.stage.machine(act.standby), act.stage.machine(act.active).mac()
    client.run("ip", "neigh", "replace", VIP, "lladdr", lost.mac(), "dev", "eth0", "nud", "reachable")
    pause(1.2)  # the kernel believes no announcement within a second of the last
    lost.run("ip", "addr", "add", f"{VIP}/24", "dev", "eth0")
    until(lambda: mac in client.run("ip", "neigh", "show", VIP), 5, "the client to know better")
    act.stage.probe.wait_answer(2)


def test_removed_run_time_files_do_not_keep_the_group_from_moving(act: Act) -> None:
    act.stage.machine(act.active).run("rm", "-rf", "/run/hasys")
    act.stage.cluster.hasys("switchover", GROUP)
    act.stage.wait_holder(act.standby)
    assert act.stage.cluster.wait_running(GROUP) == act.standby


def test_a_switchover_moves_the_group_in_order(act: Act) -> None:
    struck = time.monotonic()
    act.stage.cluster.hasys("switchover", GROUP)
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, 0.5)
    assert act.stage.cluster.wait_running(GROUP) == act.standby


def test_an_orderly_stop_hands_the_group_over_first(act: Act) -> None:
    struck = time.monotonic()
    act.stage.lab.shutdown(act.active, "node")
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, 0.5)


def test_a_drained_node_runs_nothing_until_it_is_undrained(act: Act) -> None:
    act.stage.cluster.hasys("drain", act.active)
    try:
        act.stage.wait_holder(act.standby)
        group = group_of(act.stage.cluster.status(), GROUP)
        assert not group["redundant"]
    finally:
        act.stage.cluster.hasys("undrain", act.active)


def test_every_process_of_the_active_killed_at_once_ends_in_one_active(act: Act) -> None:
    for role in ("node", "agent", "guard", "store"):
        act.stage.machine(act.active).kill(role, signal.SIGKILL)
    pause(LEASE_OVER)  # until then the kernel answers for the guard that is gone, and the leader counts on it
    act.stage.probe.wait_answer(15)
    act.stage.cluster.wait_redundant(GROUP)
