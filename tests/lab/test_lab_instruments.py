"""Probe and watcher tell the truth, shown on addresses moved by hand and on keepalived, whose faults are known."""

from __future__ import annotations

import time

import pytest

from bench import keepalived
from hasys.lab.instruments import Probe, Watch
from hasys.lab.lab import Lab
from hasys.lab.machine import Machine
from hasys.lab.shell import until

pytestmark = pytest.mark.lab

VIP, VIP6 = "10.77.0.100", "fd77::100"


def put(machine: Machine, address: str = VIP) -> None:
    prefix = ("128", "nodad") if ":" in address else ("32",)
    machine.run("ip", "addr", "add", f"{address}/{prefix[0]}", "dev", "eth0", *prefix[1:])


def take(machine: Machine, address: str = VIP) -> None:
    machine.run("ip", "addr", "del", f"{address}/{'128' if ':' in address else '32'}", "dev", "eth0")


@pytest.fixture
def two(lab: Lab) -> tuple[Lab, Machine, Machine, Watch]:
    """Two machines under watch."""
    n1, n2 = lab.machine("n1", 1), lab.machine("n2", 2)
    return lab, n1, n2, lab.watch([VIP, VIP6], ["n1", "n2"])


@pytest.mark.parametrize("address", [VIP, VIP6])
def test_the_watcher_names_the_holder(two: tuple[Lab, Machine, Machine, Watch], address: str) -> None:
    _, n1, n2, watch = two
    put(n1, address)
    until(lambda: watch.holders(address) == ["n1"], 3, "n1 to be seen")
    take(n1, address)
    put(n2, address)
    until(lambda: watch.holders(address) == ["n2"], 3, "n2 to be seen")
    watch.assert_never_two()


@pytest.mark.parametrize("address", [VIP, VIP6])
def test_the_watcher_sees_two_holders(two: tuple[Lab, Machine, Machine, Watch], address: str) -> None:
    _, n1, n2, watch = two
    put(n1, address)
    until(lambda: watch.holders(address) == ["n1"], 3, "n1 to be seen")
    put(n2, address)
    until(watch.overlaps, 3, "both to be seen for more than one answer")
    take(n2, address)
    with pytest.raises(AssertionError, match="n1 and n2 both"):
        watch.assert_never_two()


def test_the_watcher_sees_a_holder_whom_everybody_else_has_lost(two: tuple[Lab, Machine, Machine, Watch]) -> None:
    _, n1, n2, watch = two
    put(n1)
    until(lambda: watch.holders(VIP) == ["n1"], 3, "n1 to be seen")
    n1.drop()
    put(n2)
    until(lambda: watch.holders(VIP) == ["n1", "n2"], 3, "both to be seen")


MUTE_ECHO = """
table netdev gate {
  chain in {
    type filter hook ingress device "eth0" priority 0
    icmp type echo-request drop
  }
}
"""


def test_a_machine_that_answers_arp_alone_still_holds(two: tuple[Lab, Machine, Machine, Watch]) -> None:
    _, n1, _, watch = two
    put(n1)
    until(lambda: watch.holders(VIP) == ["n1"], 3, "n1 to be seen")
    n1.run("nft", "-f", "-", feed=MUTE_ECHO)
    muted = time.monotonic()
    until(lambda: time.monotonic() > muted + 0.2, 1, "old answers to age")
    assert watch.holders(VIP) == ["n1"]


def test_a_muted_machine_does_not_hold(two: tuple[Lab, Machine, Machine, Watch]) -> None:
    _, n1, _, watch = two
    put(n1)
    until(lambda: watch.holders(VIP) == ["n1"], 3, "n1 to be seen")
    n1.run("nft", "-f", "-", feed=MUTE_ECHO.replace("icmp type echo-request drop", "drop"))
    until(lambda: watch.holders(VIP) == [], 1, "n1 to fall silent")


def test_the_kernel_log_tells_when_an_address_came_and_went(two: tuple[Lab, Machine, Machine, Watch]) -> None:
    lab, n1, _, _ = two
    put(n1)
    take(n1)
    until(lambda: len(lab.addresses.events(VIP)) == 2, 2, "two events")
    assert [(e.machine, e.present) for e in lab.addresses.events(VIP)] == [("n1", True), ("n1", False)]


def test_the_probe_measures_a_silence_to_its_resolution(two: tuple[Lab, Machine, Machine, Watch]) -> None:
    lab, n1, _, _ = two
    put(n1)
    probe = lab.probe(VIP)
    probe.wait_answer(3)
    before = time.monotonic()
    n1.drop()
    dropped = time.monotonic()
    until(lambda: time.monotonic() > dropped + 0.3, 1, "a silence of 0.3 s")
    healing = time.monotonic()
    lab.heal()
    healed = time.monotonic()
    probe.wait_answer(3)
    seen = probe.outage(before)
    slack = 0.006 + seen.blind
    assert healing - dropped <= seen.longest <= healed - before + slack


def test_the_http_probe_counts_answers_with_status_200(lab: Lab) -> None:
    n1 = lab.machine("n1", 1, ("python3", "-m", "http.server", "8080", "--directory", "/proc/sys/kernel/random"))
    probe = lab.http_probe("10.77.0.1", 8080, period=0.02)
    probe.wait_answer(10)
    n1.kill("python3")
    since = time.monotonic()
    probe.wait_answer(10, since)
    assert probe.outage(since).longest > 0.15  # the machine's init waits 0.2 s before it starts the server again


def active_of(watch: Watch, probe: Probe) -> str:
    """The machine that serves the client."""
    probe.wait_answer(10)
    (active,) = until(lambda: found if len(found := watch.holders(VIP)) == 1 else None, 5, "one holder")
    return active


def test_keepalived_fails_over_after_power_loss_in_three_adverts(lab: Lab) -> None:
    keepalived.start(lab, {"n1": 1, "n2": 2}, f"{VIP}/24", interval=0.1)
    watch, probe = lab.watch([VIP], ["n1", "n2"]), lab.probe(VIP)
    active = active_of(watch, probe)
    before = time.monotonic()
    lab.power_off(active)
    probe.wait_answer(5)
    assert 0.15 < probe.outage(before).longest < 1.0  # three intervals, the first of them begun before the fault
    watch.assert_never_two(before)


def test_keepalived_has_two_holders_under_silent_loss(lab: Lab) -> None:
    """VRRP has no lease: the old master goes on answering. This is the fault that the watcher must never miss."""
    keepalived.start(lab, {"n1": 1, "n2": 2}, f"{VIP}/24", interval=0.1)
    watch, probe = lab.watch([VIP], ["n1", "n2"]), lab.probe(VIP)
    active = active_of(watch, probe)
    lab.machines[active].drop()
    until(watch.overlaps, 5, "both to answer")
    with pytest.raises(AssertionError, match="n1 and n2 both"):
        watch.assert_never_two()
