"""A lab's machines do what real ones do: boot, lose power, lose their cables; and the lab leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hasys.lab import registry
from hasys.lab.lab import Lab
from hasys.lab.probe import reach
from hasys.lab.shell import LabError, until
from hasys.lab.switch import Direction

pytestmark = pytest.mark.lab

IDLER = ("tail", "-f", "/dev/null")


def reaches(lab: Lab, source: str, address: str) -> bool:
    """One echo answered within half a second."""
    return reach(lab.machines[source].netns, address, 0.5)


def test_machines_reach_each_other_on_both_networks(lab: Lab) -> None:
    lab.machine("n1", 1)
    lab.machine("n2", 2)
    for address in ("10.77.0.2", "10.78.0.2", "fd77::2", "fd78::2"):
        assert reaches(lab, "n1", address), address


def test_a_machine_has_its_own_name_processes_run_folder_and_cgroups(lab: Lab) -> None:
    n1 = lab.machine("n1", 1, IDLER)
    assert n1.run("hostname").strip() == "n1"
    assert n1.run("cat", "/run/hostname", "/etc/hostname").split() == ["n1", "n1"]
    assert n1.run("cat", "/proc/self/cgroup").splitlines()[-1] == "0::/"
    n1.run("mkdir", "/sys/fs/cgroup/mine")
    assert (n1.cgroup / "mine").is_dir()
    assert "1" in n1.run("ps", "-e", "-o", "pid=").split()


def test_power_off_ends_every_process_and_forgets_the_kernel_state(lab: Lab) -> None:
    n1 = lab.machine("n1", 1, IDLER)
    n1.run("ip", "addr", "add", "10.77.0.100/24", "dev", "eth0")
    n1.run("nft", "add", "table", "inet", "mine")
    (n1.disk / "kept").write_text("x")
    pids = until(lambda: n1.processes("tail"), 2, "the boot command")
    lab.power_off("n1")
    assert not any(registry.start_time(pid) for pid in pids)
    lab.power_on("n1")
    assert "10.77.0.100" not in n1.run("ip", "addr")
    assert n1.run("nft", "list", "tables").strip() == ""
    assert (n1.disk / "kept").exists()


def test_the_boot_command_is_started_again_when_it_dies(lab: Lab) -> None:
    n1 = lab.machine("n1", 1, IDLER)
    first = until(lambda: n1.processes("tail"), 2, "the boot command")
    n1.kill("tail")
    until(lambda: n1.processes("tail") not in ([], first), 2, "its restart")


def test_an_orderly_shutdown_does_not_start_it_again(lab: Lab) -> None:
    n1 = lab.machine("n1", 1, IDLER)
    until(lambda: n1.processes("tail"), 2, "the boot command")
    n1.shutdown("tail", timeout=5)
    assert not n1.on


def test_a_boot_command_that_is_pid_1_takes_the_machine_with_it(lab: Lab) -> None:
    n1 = lab.machine("n1", 1, IDLER, pid1=True)
    assert n1.run("cat", "/proc/1/comm").strip() == "tail"
    os.kill(n1.init, signal.SIGKILL)
    until(lambda: not n1.on, 2, "the machine's end")


def test_a_pulled_cable_shows_as_no_carrier(lab: Lab) -> None:
    n1 = lab.machine("n1", 1)
    n1.cable(plugged=False, networks=[0])
    assert "NO-CARRIER" in n1.run("ip", "link", "show", "eth0")
    assert "NO-CARRIER" not in n1.run("ip", "link", "show", "eth1")
    n1.cable(plugged=True)
    until(lambda: reaches(lab, "client", "10.77.0.1"), 3, "the network to return")


def test_silent_loss_has_a_direction_a_network_and_an_end(lab: Lab) -> None:
    n1 = lab.machine("n1", 1)
    lab.machine("n2", 2)
    assert reaches(lab, "n2", "10.77.0.1")
    n1.drop(Direction.OUT, networks=[0])
    assert not reaches(lab, "n2", "10.77.0.1")
    assert reaches(lab, "n2", "10.78.0.1")
    assert "NO-CARRIER" not in n1.run("ip", "link")
    lab.heal()
    assert reaches(lab, "n2", "10.77.0.1")


def test_one_way_loss_lets_the_other_way_pass(lab: Lab) -> None:
    n1 = lab.machine("n1", 1)
    n2 = lab.machine("n2", 2)
    assert reaches(lab, "n1", "10.77.0.2")
    n1.drop(Direction.IN)
    n2.run("nft", "-f", "-", feed=_COUNT_ECHO)
    assert not reaches(lab, "n1", "10.77.0.2")
    assert "packets 1 " in n2.run("nft", "list", "table", "inet", "count")


_COUNT_ECHO = """
table inet count {
  chain in {
    type filter hook input priority 0
    icmp type echo-request counter
  }
}
"""


def test_a_partition_cuts_sides_and_leaves_each_side_whole(lab: Lab) -> None:
    for host, name in enumerate(("n1", "n2", "w"), start=1):
        lab.machine(name, host)
    lab.partition(["n1"], ["n2"])
    assert not reaches(lab, "n1", "10.77.0.2")
    assert not reaches(lab, "n2", "10.78.0.1")
    assert reaches(lab, "n1", "10.77.0.3")
    assert reaches(lab, "n2", "10.77.0.3")


def test_usage_grows_with_work(lab: Lab) -> None:
    n1 = lab.machine("n1", 1)
    before = n1.usage()
    n1.run("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
    after = n1.usage()
    assert after.cpu - before.cpu > 0.02


def test_two_labs_live_side_by_side(lab: Lab) -> None:
    lab.machine("n1", 1)
    with Lab() as other:
        other.machine("n1", 1)
        other.machine("n2", 2)
        assert not reaches(lab, "n1", "10.77.0.2")
        assert reaches(other, "n1", "10.77.0.2")
    assert lab.machines["n1"].on


def test_a_lab_leaves_nothing_behind() -> None:
    with Lab() as lab:
        lab.machine("n1", 1, IDLER)
        record = lab.record
    assert left_of(record) == []


def test_a_killed_lab_is_cleared_away_by_the_next(lab: Lab) -> None:
    script = (
        "from hasys.lab.lab import Lab\n"
        "import signal\n"
        "with Lab() as lab:\n"
        "    lab.machine('n1', 1, ('sleep', '600'))\n"
        "    print(lab.record.id, flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        record = registry.Record(victim.stdout.readline().strip())
        victim.kill()
    assert left_of(record)
    registry.clear_stale()
    assert left_of(record) == []
    assert lab.client.on, "a living lab must not be touched"


def left_of(record: registry.Record) -> list[str]:
    """Everything that a lab could have left."""
    namespaces = [str(p) for p in Path("/run/netns").glob(f"hl-{record.id}-*")]
    return namespaces + [str(p) for p in (record.folder, record.cgroup, record.data) if p.exists()]


def test_a_switched_off_machine_cannot_be_switched_off_again(lab: Lab) -> None:
    n1 = lab.machine("n1", 1)
    lab.power_off("n1")
    with pytest.raises(LabError, match="off already"):
        n1.power_off()
