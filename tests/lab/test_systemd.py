"""hasys as its operators run it: installed by ``hasys install --start``, each process a service of the real systemd."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasys.lab.cluster import Cluster, group_of, hasys_command
from hasys.lab.feed import Status
from hasys.lab.lab import Lab
from hasys.lab.shell import until
from tests.lab import booted
from tests.lab.stage import GROUP, MANIFEST, PORT, VIP, VIP6, WORST, Act, Stage, lab_or_skip
from tests.unit.cli.pty import Terminal

pytestmark = pytest.mark.lab

UNIT = "demo-test.service"
SERVICE = "[Service]\nExecStart=/bin/sh -c 'test ! -e /run/unit-broken && exec sleep 47182'\nRestart=always\n"
"""A service of the operator's own. By itself it would start again wherever it ended."""
UNIT_MANIFEST = f"""---
apiVersion: hasys/v1
kind: SystemdUnit
metadata: {{name: web-unit, group: {GROUP}}}
spec: {{unit: {UNIT}, after: [web-ip], checkInterval: 100ms, restart: {{retries: 1, startTime: 300ms, backoff: 100ms}}}}
"""


def systemctl(act: Act, node: str, *words: str) -> str:
    return act.stage.machine(node).run("systemctl", *words, timeout=60).strip()


def restarts(act: Act, role: str) -> int:
    """How often the Active's systemd has started that process again."""
    return int(systemctl(act, act.active, "show", "--property=NRestarts", "--value", f"hasys-demo-{act.active}-{role}"))


def unit_of(act: Act, node: str) -> str:
    return systemctl(act, node, "show", "--property=ActiveState", "--value", UNIT)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The stage of the failover tests, on machines that systemd runs, with a service of systemd in its group."""
    with lab_or_skip() as lab:
        cluster = Cluster(lab)
        booted.start(cluster)
        for name in cluster.nodes:
            (cluster.machine(name).disk / "systemd/system" / UNIT).write_text(SERVICE)
        cluster.wait_ready()
        cluster.apply(MANIFEST + UNIT_MANIFEST)
        cluster.wait_running(GROUP)
        yield Stage(cluster, lab.watch([VIP, VIP6], cluster.nodes), lab.probe(VIP), lab.http_probe(VIP, PORT))


@pytest.mark.parametrize("role", ["store", "guard", "agent"])
def test_a_process_that_dies_is_started_again_by_systemd_and_its_groups_stay(act: Act, role: str) -> None:
    before, struck = restarts(act, role), time.monotonic()
    act.stage.machine(act.active).kill(role)
    until(lambda: restarts(act, role) > before, 10, f"{role} to be started again")
    act.stage.settle()
    act.assert_unmoved(struck)


def test_a_guard_that_cannot_start_is_tried_five_times_a_second_at_most(act: Act) -> None:
    config, unit = act.stage.cluster.folder / act.standby / "node.yaml", f"hasys-demo-{act.standby}-guard"
    kept = config.rename(config.with_suffix(".kept"))
    try:
        struck = time.monotonic()
        act.stage.machine(act.standby).kill("guard")
        tried = "show", "--property=NRestarts", "--value", unit
        first = int(systemctl(act, act.standby, *tried))
        until(lambda: int(systemctl(act, act.standby, *tried)) >= first + 10, 30, "ten more attempts")
        assert time.monotonic() - struck >= 9 * 0.2
    finally:
        kept.rename(config)
    act.stage.settle()
    act.assert_unmoved(struck)


def test_systemd_leaves_what_a_group_runs_to_the_next_agent(act: Act) -> None:
    machine = act.stage.machine(act.active)
    programs = machine.processes("http.server"), machine.processes("47182")
    assert all(programs)
    systemctl(act, act.active, "restart", f"hasys-demo-{act.active}-agent")
    act.stage.settle()
    assert (machine.processes("http.server"), machine.processes("47182")) == programs
    assert act.moves() == []


def test_a_restart_of_the_service_of_the_standby_moves_nothing(act: Act) -> None:
    struck, unit = time.monotonic(), f"hasys-demo-{act.standby}"
    before = act.stage.machine(act.standby).processes("store")
    systemctl(act, act.standby, "restart", unit)
    until(lambda: set(act.stage.machine(act.standby).processes("store")) - set(before), 20, "another store")
    act.stage.settle()
    act.assert_unmoved(struck)


def test_an_agent_that_hangs_is_killed_and_replaced_before_the_guard_loses_patience(act: Act) -> None:
    before, struck = restarts(act, "agent"), time.monotonic()
    act.stage.machine(act.active).freeze("agent")
    until(lambda: restarts(act, "agent") > before, 15, "systemd to kill the agent that hangs")
    act.stage.settle()
    act.assert_unmoved(struck)


def test_a_guard_that_hangs_loses_its_groups_and_is_replaced(act: Act) -> None:
    before, struck = restarts(act, "guard"), time.monotonic()
    act.stage.machine(act.active).freeze("guard")
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, WORST)
    until(lambda: restarts(act, "guard") > before, 20, "systemd to kill the guard that hangs")
    assert act.stage.settle() == act.standby, "whole again, without anybody's help"
    assert unit_of(act, act.active) != "active"


def test_a_unit_of_a_group_runs_where_the_group_is_and_hasys_alone_starts_it_again(act: Act) -> None:
    assert unit_of(act, act.active) == "active"
    assert unit_of(act, act.standby) != "active"
    systemctl(act, act.active, "kill", "--signal=SIGKILL", UNIT)
    assert "restart 1 of 1" in act.told("ResourceRestarted", "web-unit")
    act.stage.cluster.wait_running(GROUP, active=act.active)
    assert systemctl(act, act.active, "show", "--property=NRestarts", "--value", UNIT) == "0"


def test_a_unit_that_does_not_start_any_more_moves_its_group(act: Act) -> None:
    broken = act.stage.machine(act.active).root / "run/unit-broken"
    broken.touch()
    systemctl(act, act.active, "kill", "--signal=SIGKILL", UNIT)
    act.stage.cluster.wait_running(GROUP, active=act.standby)
    until(lambda: unit_of(act, act.active) != "active", 10, f"{UNIT} to be down on the old node")
    broken.unlink()


def test_stopping_the_service_of_a_node_hands_its_groups_over_first(act: Act) -> None:
    machine, struck = act.stage.machine(act.active), time.monotonic()
    systemctl(act, act.active, "stop", f"hasys-demo-{act.active}")
    assert machine.processes("http.server") == []
    act.stage.wait_holder(act.standby)
    for role in ("store", "guard", "agent"):  # after the node's own service, which is all that systemctl waits for
        until(lambda role=role: machine.processes(role) == [], 10, f"{role} to end")  # type: ignore[misc]
    act.stage.assert_felt_at_most(struck, WORST)
    act.told("MoveStarted", act.standby)
    systemctl(act, act.active, "start", f"hasys-demo-{act.active}")
    assert act.stage.settle() == act.standby


def test_a_machine_that_shuts_down_hands_over_and_its_next_boot_needs_nobody(act: Act) -> None:
    struck = time.monotonic()
    systemctl(act, act.active, "isolate", booted.DOWN)
    act.stage.wait_holder(act.standby)
    act.told("MoveStarted", act.standby)
    act.stage.assert_felt_at_most(struck, WORST)
    act.stage.lab.power_off(act.active)
    assert act.stage.settle() == act.standby


def test_after_a_power_loss_the_node_is_back_with_its_next_boot(act: Act) -> None:
    struck = time.monotonic()
    act.stage.lab.power_off(act.active)
    act.stage.wait_holder(act.standby)
    act.stage.assert_felt_at_most(struck, WORST)
    assert act.stage.settle() == act.standby
    assert unit_of(act, act.active) != "active"


def test_the_questions_of_init_end_in_a_service_that_runs(lab: Lab, tmp_path: Path) -> None:
    """On the machine's own terminal, as whoever installs the first node answers them."""
    machine = lab.machine("n1", 1, booted.boot(str(lab.record.data)), pid1=True)
    booted.wait_booted(machine)
    folder = machine.disk / "shop"
    dialogue = [
        ("Name of the cluster", "shop"), ("How many servers", "1"), ("Name of the server", ""),
        ("Address of n1", machine.address()), ("for heartbeats", machine.address(1)), ("[default]: ", ""),
        ("[none]: ", f"{VIP}/24"), ("Interface", ""), ("Name of the group", "web"), ("Folder to write to", str(folder)),
        ("Write it", "y"), ("Install its service and start it now", "y"),
    ]  # fmt: skip
    with Terminal(["init"], {}, tmp_path, prefix=machine.command()) as terminal:
        for question, answer in dialogue:
            terminal.until(question)
            terminal.press(f"{answer}\r")
        said = terminal.rest()
        assert terminal.process.returncode == 0, said
    assert "hasys-shop-n1.service runs" in said
    context = str(folder / "client" / "client.yaml")
    machine.run(*hasys_command(), "--context", context, "apply", "-f", str(folder / "web.yaml"), "--wait")
    lab.probe(VIP).wait_answer(10)
    lab.power_off("n1")
    lab.power_on("n1")
    lab.probe(VIP).wait_answer(30, since=time.monotonic())


def test_c10_each_fault_of_a_service_has_its_own_action(act: Act) -> None:
    """Of a unit beside the group, which systemd itself keeps alive or not."""
    beside = Beside(act)
    beside.write("Restart=on-failure\nRestartSec=600s")
    beside.systemctl("start")
    actions = {"crashed": "Failover", "hung": "Alert", "notStarted": "Alert"}
    beside.watch(**actions, restarting="Alert")
    beside.reach("Ok")
    beside.systemctl("kill", "--signal=SIGKILL")
    beside.reach("Failed", "beside.service is started again by systemd (signal)")
    beside.watch(**actions, restarting="Ignore")
    beside.reach("Ok")
    beside.systemctl("stop")
    beside.reach("Failed", "beside.service is not started")
    beside.write("Type=notify\nTimeoutStartSec=200ms")
    beside.systemctl("start", "--no-block")
    beside.reach("Failed", "beside.service hung (timeout)")
    beside.write("Type=simple")
    beside.systemctl("start")
    beside.reach("Ok")
    assert act.moves() == []
    beside.systemctl("kill", "--signal=SIGKILL")
    act.stage.cluster.wait_running(GROUP, active=act.standby)
    act.told("MoveStarted", "beside.service crashed (signal)")
    act.stage.cluster.hasys("delete", "monitor", "beside", "-g", GROUP)


class Beside:
    """A unit beside.service on the Active, and a monitor of it."""

    def __init__(self, act: Act) -> None:
        self._act = act

    def write(self, settings: str) -> None:
        """Install it anew with these settings."""
        folder = self._act.stage.machine(self._act.active).disk / "systemd/system"
        (folder / "beside.service").write_text(f"[Service]\nExecStart=/bin/sleep 47183\n{settings}\n")
        systemctl(self._act, self._act.active, "daemon-reload")

    def systemctl(self, *words: str) -> None:
        systemctl(self._act, self._act.active, *words, "beside.service")

    def watch(self, **actions: str) -> None:
        spec = {"interval": "200ms", "timeout": "2s", "failures": 2, "service": {"unit": "beside.service", **actions}}
        meta = f"---\napiVersion: hasys/v1\nkind: Monitor\nmetadata: {{name: beside, group: {GROUP}}}\n"
        self._act.stage.cluster.apply(f"{meta}spec: {json.dumps(spec)}\n")

    def reach(self, state: str, says: str = "") -> None:
        """Wait until the status shows the monitor so."""

        def there(status: Status) -> bool:
            found = [m for m in group_of(status, GROUP)["monitors"] if m["name"] == "beside"]
            return any(m["state"] == state and says in m["message"] for m in found)

        self._act.stage.cluster.wait(there, 10, f"the monitor to be {state} {says}")
