"""``hasys node run`` as its operator stops it: what its groups see when no other node can take them."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from hasys.lab.cluster import Cluster, address_manifest, application_manifest, group_manifest
from hasys.lab.feed import Status
from hasys.lab.lab import Lab
from hasys.lab.machine import Machine
from hasys.lab.shell import until

pytestmark = pytest.mark.lab

VIP = "10.77.0.100"
PROGRAM = "program-of-web"
"""A word by which the program is found among the machine's processes."""
POLITE = "trap 'echo asked > /run/asked; exit 0' TERM; while :; do sleep 0.1; done"
STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"


@pytest.fixture
def alone(lab: Lab) -> Cluster:
    """A cluster of one node: nobody can take its groups over. Its machine does not start it again when it ends."""
    cluster = Cluster(lab, nodes=("n1",), witness=None)
    cluster.start()
    cluster.wait_ready()
    (cluster.machine("n1").root / "run/halt").touch()
    return cluster


def _run(cluster: Cluster, script: str, stop_timeout: str) -> Machine:
    """The group with an address and a program; returns its machine once both run."""
    run = {"run": {"command": ["sh", "-c", script, PROGRAM], "stopTimeout": stop_timeout}}
    program = application_manifest([], extra=run)
    manifest = group_manifest(nodes={"n1": 100}) + address_manifest(f"{VIP}/24") + program
    cluster.hasys("apply", "-f", "-", "--wait", feed=manifest)
    return cluster.machine("n1")


def _ended(machine: Machine, timeout: float) -> None:
    until(lambda: not machine.processes("node"), timeout, "node run to end")
    for role in ("store", "guard", "agent", PROGRAM):
        assert machine.processes(role) == [], role


def test_a_group_that_nobody_can_take_is_stopped_in_order_before_the_node_ends(alone: Cluster) -> None:
    machine = _run(alone, POLITE, "10s")
    assert machine.processes(PROGRAM)
    machine.kill("node", signal.SIGTERM)
    _ended(machine, 15)
    assert (machine.root / "run/asked").read_text() == "asked\n"
    assert VIP not in machine.run("ip", "addr", "show", "eth0")


def test_ctrl_c_twice_does_not_wait_for_a_program_that_will_not_stop(alone: Cluster) -> None:
    machine = _run(alone, STUBBORN, "60s")
    machine.kill("node", signal.SIGINT)
    until(lambda: "handing the groups over" in machine.tail(), 10, "the hand-over to begin")
    struck = time.monotonic()
    machine.kill("node", signal.SIGINT)
    _ended(machine, 15)
    assert time.monotonic() - struck < 5


def test_systemd_hears_that_the_node_serves_and_that_its_guard_lives(lab: Lab, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(30)
        systemd.bind(str(tmp_path / "notify"))
        cluster = Cluster(lab, nodes=("n1",), witness=None)
        cluster.start(prefix=("env", f"NOTIFY_SOCKET={tmp_path / 'notify'}", "WATCHDOG_USEC=1500000"))
        said = [systemd.recv(100)]
        while said[-1] != b"READY=1":
            said.append(systemd.recv(100))
        assert set(said) <= {b"READY=1", b"WATCHDOG=1"}
        machine = cluster.machine("n1")
        assert all(machine.processes(role) for role in ("store", "guard", "agent"))
        assert systemd.recv(100) == b"WATCHDOG=1"


def test_an_operator_restarts_the_agent_and_nothing_that_runs_is_touched(alone: Cluster) -> None:
    machine = _run(alone, POLITE, "10s")
    program, (before,) = machine.processes(PROGRAM), machine.processes("agent")
    assert "took over" in alone.hasys("node", "restart-process", "n1", "agent")
    assert machine.processes(PROGRAM) == program
    assert before not in machine.processes("agent")
    assert VIP in machine.run("ip", "addr", "show", "eth0")
    shown = alone.wait(lambda s: _own(s).get("agent", {}).get("restarts"), 30, "the next agent's figures")
    assert sorted(_own(shown)) == ["agent", "guard", "store", "supervisor"]
    assert all(one["pid"] and one["memory"] > 1 << 20 for one in _own(shown).values())


def _own(status: Status) -> dict[str, Any]:
    """hasys's own processes on the one node, by role."""
    return {one["role"]: one for one in status["nodes"][0].get("figures", {}).get("own", ())}
