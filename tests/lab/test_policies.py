"""When groups move by themselves and when they wait, on three real nodes; each test brings its groups."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hasys.lab.cluster import (
    Cluster,
    CommandFailed,
    address_manifest,
    application_manifest,
    group_manifest,
    group_of,
    runs,
)
from hasys.lab.feed import Status
from hasys.lab.instruments import Watch
from hasys.lab.lab import Lab, missing
from hasys.lab.machine import Machine
from hasys.lab.shell import until
from tests.unit.cli.pty import Terminal

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

ADDRESSES = ("10.77.0.101", "10.77.0.102", "10.77.0.103")
"""Those of the first groups of a test: somebody watches who holds them."""
REBOOT = "grep -qx n1 /run/hostname && mkdir {disk}/rebooted && exec systemctl reboot --force --force"
"""Ends the machine, a namespace of processes, as it would a real one; obeyed once, because machines of a lab share the
boot id by which an agent knows that it has rebooted already."""
DOWN, ENTER = "\x1b[B", "\r"
"""Keys, as a terminal sends them."""
TICK = 0.01
"""Seconds: what /proc/uptime rounds down to."""


class Scene:
    """A running cluster, the watcher, and the groups of one test."""

    def __init__(self, cluster: Cluster, watch: Watch) -> None:
        self.cluster, self.watch = cluster, watch
        self.since, self._began = time.monotonic(), datetime.now(UTC)
        self._applied = ""

    @property
    def lab(self) -> Lab:
        return self.cluster.lab

    def machine(self, name: str) -> Machine:
        return self.cluster.machine(name)

    def apply(self, manifest: str) -> None:
        """Apply what this test needs; :meth:`tidy` deletes it."""
        self.cluster.apply(manifest)
        self._applied += manifest

    def lose(self, name: str) -> float:
        """It has no power any more; returns since when."""
        self.lab.power_off(name)
        return time.monotonic()

    def assert_nowhere(self, address: str, since: float) -> None:
        """No node answered for the address since then."""
        asked = self.watch.asked(address, since)
        assert asked, "the watcher did not watch"
        assert [node for node, questions in asked.items() if any(q.received for q in questions)] == []

    def epochs(self) -> dict[str, int]:
        return {group["name"]: group["epoch"] for group in self.cluster.status()["groups"]}

    def run(self, homes: Mapping[str, str]) -> None:
        """Wait until each of these groups runs, with all it has, on the node named."""

        def there(status: Status) -> bool:
            return all(runs(status, name, home) for name, home in homes.items())

        self.cluster.wait(there, 30, f"groups to run: {homes}")

    def redundant(self, wanted: Mapping[str, bool]) -> None:
        """Wait until the status says of each of these groups whether another node could take it."""

        def there(status: Status) -> bool:
            return all(group_of(status, name)["redundant"] == is_so for name, is_so in wanted.items())

        self.cluster.wait(there, 30, f"redundancy: {wanted}")

    def blocked(self, group: str, *words: str) -> None:
        """Wait until the group waits, for these reasons, and nothing of it is said to run.

        The phase is a leader's decision and is kept; the states are told by who leads now. A new leader calls a node
        lost only after it has listened, and until then repeats what the node reported last.
        """

        def waits(status: Status) -> bool:
            found = group_of(status, group)
            states = {resource["state"] for resource in found["resources"]}
            why = all(word in found["reason"] for word in words)
            return found["phase"] == "Blocked" and why and states <= {"Unknown", "Stopped"}

        self.cluster.wait(waits, 20, f"{group} to be blocked: {', '.join(words)}")

    def told(self, reason: str, group: str) -> str:
        """Wait for an event of this test about this group, or about a node because of it; returns its text."""

        def message() -> str:
            found = json.loads(self.cluster.hasys("events", "--limit", "300", "-o", "json"))
            texts = [e["message"] for e in found if e["reason"] == reason
                     and datetime.fromisoformat(e["time"]) >= self._began]  # fmt: skip
            return next((text for text in texts if group in text), "")

        return until(message, 10, f"an event {reason} about {group}", every=0.2)

    def tidy(self) -> None:
        """Every node is Ready, and there is no group."""
        self.cluster.restore()
        self.cluster.hasys("delete", "-f", "-", feed=self._applied)
        self.cluster.wait(lambda s: not s["groups"], 20, "every group to be gone")


@pytest.fixture(scope="module")
def staged() -> Iterator[tuple[Cluster, Watch]]:
    lack = missing()
    if lack:
        pytest.skip(lack)
    with Lab() as lab:
        cluster = Cluster(lab, nodes=("n1", "n2", "n3"), witness=None)
        settings: dict[str, dict[str, Any]] = {
            "n1": {"reboot": shell(REBOOT.format(disk=lab.record.data / "n1"))},
            "n3": {
                "commonStart": {**shell("cat /proc/uptime > /run/prepared"), "wait": "1500ms"},
                "commonStop": shell(f"echo n3 common-stop >> {lab.record.data}/n3/stopped"),
            },
        }
        for node, more in settings.items():
            with (cluster.folder / node / "node.yaml").open("a") as file:
                file.writelines(f"{key}: {json.dumps(value)}\n" for key, value in more.items())
        cluster.start()
        cluster.wait_ready()
        yield cluster, lab.watch(ADDRESSES, cluster.nodes)


@pytest.fixture
def scene(staged: tuple[Cluster, Watch]) -> Iterator[Scene]:
    one = Scene(*staged)
    yield one
    one.watch.assert_never_two(one.since)
    assert one.watch.asked(ADDRESSES[0], one.since), "the watcher did not watch"
    one.tidy()


def served(name: str, address: str, **failover: Any) -> str:
    """A group of one address that prefers n1 and may run on n2."""
    return group_manifest(name, failover=failover) + address_manifest(f"{address}/24", f"{name}-ip", name)


def step(kind: str, name: str, **spec: Any) -> str:
    """A resource of the group steps, or its monitor."""
    metadata = {"name": name, "group": "steps"}
    return "---\n" + json.dumps({"apiVersion": "hasys/v1", "kind": kind, "metadata": metadata, "spec": spec}) + "\n"


def shell(line: str) -> dict[str, list[str]]:
    return {"command": ["sh", "-c", line]}


def uptime(machine: Machine, file: str) -> float:
    """Seconds from the boot of this computer until the file was written."""
    return float(machine.run("cat", file).split()[0])


def test_a13_a_manual_and_a_paused_group_wait_for_the_operator_while_another_fails_over(scene: Scene) -> None:
    names = ("auto", "manual", "paused")
    scene.apply("".join(served(n, a, mode="Manual" if n == "manual" else "Auto")
                        for n, a in zip(names, ADDRESSES, strict=True)))  # fmt: skip
    scene.run(dict.fromkeys(names, "n1"))
    scene.cluster.hasys("pause", "paused")
    before = scene.epochs()

    struck = scene.lose("n1")
    scene.run({"auto": "n2"})
    scene.blocked("manual", "n1 is lost", "failover is Manual: hasys switchover, or mend the node")
    scene.blocked("paused", "n1 is lost", "it is paused")
    assert [name for name, epoch in scene.epochs().items() if epoch != before[name]] == ["auto"]
    until(lambda: scene.watch.holders(ADDRESSES[0]) == ["n2"], 10, "the watcher to see n2")
    scene.assert_nowhere(ADDRESSES[1], struck)
    scene.assert_nowhere(ADDRESSES[2], struck)

    scene.cluster.hasys("switchover", "manual")
    scene.cluster.hasys("resume", "paused")
    scene.run(dict.fromkeys(names, "n2"))


def test_a15_and_a9_a_failover_waits_for_figure_disk_and_script_and_goes_on_when_all_are_well(scene: Scene) -> None:
    other = scene.machine("n2")
    other.run("sh", "-c", "echo 87 > /run/in-sync; mkdir /run/copy; mount -t tmpfs none /run/copy")
    gates: dict[str, dict[str, Any]] = {
        "replica": {"script": {**shell("cat /run/in-sync"), "minimum": 95}},
        "local-disk": {"mount": {"paths": ["/run/copy"], "unmounted": True}},
        "may-serve": {"script": {"command": ["test", "-e", "/run/may-serve"]}},
    }
    looks = {"on": "Standby", "interval": "200ms", "failures": 1}
    scene.apply(
        served("steps", ADDRESSES[0], gates=list(gates))
        + "".join(step("Monitor", name, **what, **looks) for name, what in gates.items())
    )
    scene.run({"steps": "n1"})
    words = ("gate replica: sh: less than 95", "gate local-disk: ", "gate may-serve: ")
    with pytest.raises(
        CommandFailed, match=r"no other node can take steps: n2: gate replica: .*gate local-disk: .*gate may"
    ):
        scene.cluster.hasys("switchover", "steps")
    assert not scene.cluster.group("steps")["redundant"]

    struck = scene.lose("n1")
    scene.blocked("steps", "n1 is lost", *words)
    other.run("sh", "-c", "echo 99 > /run/in-sync")
    scene.blocked("steps", *words[1:])
    other.run("umount", "/run/copy")
    scene.blocked("steps", words[2])
    scene.assert_nowhere(ADDRESSES[0], struck)
    other.run("touch", "/run/may-serve")
    scene.run({"steps": "n2"})


def test_a14_and_a19_one_group_returns_to_its_node_and_one_that_reached_its_limit_waits(scene: Scene) -> None:
    names = ("free", "limited", "homing")
    policies: dict[str, dict[str, Any]] = {
        "free": {},
        "limited": {"limit": {"failovers": 1, "within": "10m", "quiet": "1h"}},
        "homing": {"failback": {"quiet": "1s"}},
    }
    scene.apply("".join(served(n, a, **policies[n]) for n, a in zip(names, ADDRESSES, strict=True)))
    scene.run(dict.fromkeys(names, "n1"))

    scene.lose("n1")
    scene.run(dict.fromkeys(names, "n2"))
    before = scene.epochs()
    scene.lab.power_on("n1")
    scene.run({"homing": "n1"})
    assert "failback: n1 has been well for 1s" in scene.told("MoveStarted", "homing")
    assert [name for name, epoch in scene.epochs().items() if epoch != before[name]] == ["homing"]
    scene.cluster.wait_ready()

    scene.lose("n2")
    scene.run({"free": "n1"})
    scene.blocked("limited", "n2 is lost", "1 failover within 10m, its limit")
    scene.cluster.hasys("switchover", "limited")
    scene.run({"limited": "n1"})


def test_a18_the_node_that_a_failing_application_left_reboots_and_is_well_afterwards(scene: Scene) -> None:
    program = ("sh", "-c", "test ! -e /run/broken && exec sleep 4718")
    scene.apply(
        served("shop", ADDRESSES[0], rebootFailedNode=True)
        + application_manifest(program, "shop-app", "shop", {"restart": {"retries": 1, "backoff": "100ms"}})
    )
    scene.run({"shop": "n1"})
    machine = scene.machine("n1")
    machine.run("touch", "/run/broken")
    machine.kill("4718")
    until(lambda: not machine.on, 20, "n1 to reboot")
    assert "n1 is asked to reboot: shop failed over: shop-app failed on n1" in scene.told("NodeRebooting", "shop")
    scene.run({"shop": "n2"})
    scene.lose("n1")  # what is left of it: its network
    scene.cluster.restore()
    scene.run({"shop": "n2"})
    scene.cluster.hasys("switchover", "shop", "--to", "n1")
    scene.run({"shop": "n1"})


def test_a24_a1_a30_one_standby_takes_the_groups_of_two_actives_and_status_tells_which_are_not_redundant(
    scene: Scene,
) -> None:
    homes = {f"g{i}": ("n1", "n2")[i % 2] for i in range(8)}
    addresses = {name: f"10.77.0.{101 + i}" for i, name in enumerate(homes)}
    scene.apply("".join(
        group_manifest(name, {home: 100, "n3": 50}) + address_manifest(f"{addresses[name]}/24", f"{name}-ip", name)
        for name, home in homes.items()
    ))  # fmt: skip
    scene.run(homes)
    scene.redundant(dict.fromkeys(homes, True))
    roles = {group["name"]: group["nodes"] for group in scene.cluster.status()["groups"]}
    assert roles == {name: {home: "Active", "n3": "Standby"} for name, home in homes.items()}

    scene.lose("n1")
    scene.run({name: "n3" if home == "n1" else home for name, home in homes.items()})
    scene.redundant(dict.fromkeys(homes, False))  # without another of the three there is no majority
    assert scene.told("RedundancyLost", "g0 runs on n3 alone") == "g0 runs on n3 alone: n1: Lost, no keep-alive"
    scene.cluster.restore()
    scene.cluster.hasys("drain", "n1")  # it votes, and takes nothing
    scene.redundant({name: home != "n1" for name, home in homes.items()})
    scene.cluster.hasys("undrain", "n1")
    scene.redundant(dict.fromkeys(homes, True))
    scene.lose("n2")
    scene.run(dict.fromkeys(homes, "n3"))
    held = scene.machine("n3").run("ip", "-o", "-4", "addr", "show", "eth0")
    assert [name for name, address in addresses.items() if f" {address}/" not in held] == []


def test_b7_a22_branches_run_side_by_side_stop_in_reverse_and_the_common_stop_comes_last(scene: Scene) -> None:
    told = scene.machine("n3").disk / "stopped"
    meet = "touch /run/{0}; until test -e /run/{1}; do sleep 0.02; done"

    def branch(name: str, run: str, after: Sequence[str]) -> str:
        undo = shell(f"echo $(hostname) {name} >> {told}")
        return step("Command", name, run=shell(run), undo=undo, after=list(after))

    scene.apply(
        group_manifest("steps", {"n3": 100, "n1": 50})
        + branch("first", "true", [])
        + branch("left", meet.format("left", "right"), ["first"])
        + branch("right", meet.format("right", "left"), ["first"])
        + branch("last", "test -e /run/left && test -e /run/right", ["left", "right"])
    )
    scene.run({"steps": "n3"})
    scene.lab.shutdown("n3", "node")
    scene.run({"steps": "n1"})
    stopped = [line.removeprefix("n3 ") for line in told.read_text().splitlines() if line.startswith("n3 ")]
    assert sorted(stopped[1:3]) == ["left", "right"]
    assert [stopped[0], *stopped[3:]] == ["last", "first", "common-stop"]


def test_b12_a22_b6_b8_b9_roles_wait_for_the_common_start_steps_for_each_other_and_retry_runs_what_failed(
    scene: Scene,
) -> None:
    machine = scene.machine("n3")
    scene.apply(
        group_manifest("steps", {"n3": 100}, {"mode": "Manual"})
        + step("Command", "first", run=shell("cat /proc/uptime >> /run/first"))
        + step("Delay", "settle", duration="700ms", after=["first"])
        + step("Command", "second", run=shell("cat /proc/uptime >> /run/second"), after=["settle"])
        + step("Command", "extra", run=shell("exit 3"), after=["first"], onStartFailure="Continue")
        + step("Application", "serve", run={"command": ["sleep", "4712"]}, after=["extra", "second"])
        + step("Command", "licence", run=shell("echo >> /run/asked; test -e /run/licence"), after=["serve"])
        + step("Command", "licensed", run=shell("touch /run/licensed"), after=["licence"])
    )
    status = scene.cluster.wait(lambda s: group_of(s, "steps")["phase"] == "Failed", 20, "the group to fail")
    states = {r["name"]: r["state"] for r in group_of(status, "steps")["resources"]}
    assert states == {"first": "Running", "settle": "Running", "second": "Running", "extra": "Failed",
                      "serve": "Running", "licence": "Failed", "licensed": "Stopped"}  # fmt: skip
    assert uptime(machine, "/run/second") - uptime(machine, "/run/first") > 0.7 - TICK
    (serving,) = machine.processes("4712")

    machine.run("touch", "/run/licence")
    scene.cluster.hasys("retry", "steps", "licence")
    until((machine.root / "run/licensed").exists, 10, "what waited for the licence")
    ran = {name: len(machine.run("cat", f"/run/{name}").splitlines()) for name in ("first", "second", "asked")}
    assert ran == {"first": 1, "second": 1, "asked": 2}
    assert machine.processes("4712") == [serving]

    scene.lose("n3")
    scene.lab.power_on("n3")
    until((machine.root / "run/second").exists, 20, "the group to start after the boot of n3")
    assert uptime(machine, "/run/first") - uptime(machine, "/run/prepared") > 1.5 - TICK


def test_a21_a11_an_operator_moves_forces_pauses_and_drains_from_the_text_menu(scene: Scene, tmp_path: Path) -> None:
    scene.apply(served("shop", ADDRESSES[0]))
    scene.run({"shop": "n1"})
    words = ("--context", str(scene.cluster.client_settings), "top")
    before = scene.epochs()
    with Terminal(words, {"NO_COLOR": "1"}, tmp_path, scene.lab.client.command()) as menu:
        menu.until("Quit")
        menu.press("s")
        menu.until("Move shop away from n1")
        menu.press(ENTER)
        menu.until("not confirmed: nothing was done")
        assert scene.epochs() == before
        menu.press("s")
        menu.until("Yes: n2")
        menu.press(DOWN + DOWN + ENTER)
        menu.until("switchover of shop to n2 done")
        scene.run({"shop": "n2"})
        menu.press("p")
        menu.until("automatic failover of shop off?")
        menu.press(DOWN + ENTER)
        menu.until("pause of shop done")
        assert scene.cluster.group("shop")["paused"]
        menu.press("p")
        menu.until("automatic failover of shop on again?")
        menu.press(DOWN + ENTER)
        menu.until("resume of shop done")
        assert not scene.cluster.group("shop").get("paused")
        menu.press("f")
        menu.until("FORCED: conditions are skipped")
        menu.until("Yes: n1")
        menu.press(DOWN + ENTER)
        menu.until("type shop and Enter to confirm")
        menu.press("shop" + ENTER)
        menu.until("failover of shop to n1 done")
        scene.run({"shop": "n1"})
        scene.redundant({"shop": True})
        menu.press("\t")
        menu.until("Drain/undrain")
        menu.press("d")
        menu.until("Move everything away from n1")
        menu.press(DOWN + ENTER)
        menu.until("drain of n1 done")
        scene.run({"shop": "n2"})
        assert {n["name"]: n["state"] for n in scene.cluster.status()["nodes"]}["n1"] == "Drained"
        menu.press("d")
        menu.until("Let n1 be used again?")
        menu.press(DOWN + ENTER)
        menu.until("undrain of n1 done")
        menu.press("q")
        menu.rest()
    assert menu.process.returncode == 0
    done = scene.cluster.hasys("history", "shop")
    assert [word for word in ("switchover", "pause", "resume", "failover") if word not in done] == []
