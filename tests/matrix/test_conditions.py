"""Rows of the failover matrix about load, disks, strangers and timings. S1 is asserted by ``act``, or at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hasys.config import API_PORT, LEASE_PORT, RAFT_PORT
from hasys.lab.cluster import Cluster, CommandFailed, group_manifest, group_of, hasys_command
from hasys.lab.instruments import Watch
from hasys.lab.lab import Lab
from hasys.lab.shell import run, until
from tests.lab.stage import GROUP, MANIFEST, VIP, Act, pause
from tests.matrix.disks import FlakyDisks, small_disk

pytestmark = pytest.mark.lab

BLOCK = 4096
"""Bytes that a file system gives to a file at once."""

# ---------------------------------------------------------------- row 23
BUSY = "while True: pass"
MEMORY = "import time; b = bytearray(200_000_000); time.sleep(3600)"
FSYNC = """
import os
f = os.open("{file}", os.O_CREAT | os.O_WRONLY)
while True:
    os.pwrite(f, os.urandom(262144), 0)
    os.fsync(f)
"""


@pytest.mark.long
def test_row_23_a_saturated_active_keeps_its_role(act: Act) -> None:
    """Eight busy processes per core, memory in use, and a disk that is busy with fsync, for half a minute."""
    machine = act.stage.machine(act.active)
    scratch = machine.record.data / "scratch"
    loads = [*[BUSY] * (8 * (os.cpu_count() or 1)), MEMORY, FSYNC.format(file=scratch)]
    struck = time.monotonic()
    started = [machine.spawn(sys.executable, "-c", load) for load in loads]
    try:
        pause(30)
        assert all(process.poll() is None for process in started)
        for name in act.stage.cluster.nodes:
            if name != act.active:
                assert act.stage.watch.last_answer(VIP, name, struck) is None
        assert act.moves() == []
    finally:
        machine.kill_all("-c")
        scratch.unlink()
    act.stage.cluster.wait_running(GROUP, active=act.active)


# ---------------------------------------------------------------- rows 25, 29, 33: disks
@pytest.fixture
def cluster(lab: Lab) -> Cluster:
    """Nodes and witness that are not switched on yet."""
    return Cluster(lab)


def serve(cluster: Cluster) -> Watch:
    """Switch everything on and wait for a settled group."""
    cluster.start()
    cluster.wait_ready()
    cluster.apply(MANIFEST)
    cluster.wait_redundant(GROUP)
    return cluster.lab.watch([VIP], cluster.nodes)


@pytest.fixture
def flaky(cluster: Cluster) -> Iterator[FlakyDisks]:
    disks = FlakyDisks(cluster)
    yield disks
    disks.go_on()
    disks.close()


def acknowledged(output: Path) -> int:
    """The newest number that the writer was told to be safe; 0: none yet."""
    lines = output.read_text().split("\n")
    return int(lines[-2]) if len(lines) > 1 else 0


@pytest.mark.long
def test_row_25_power_loss_of_everything_in_the_middle_of_writes_loses_nothing_acknowledged(
    cluster: Cluster, flaky: FlakyDisks
) -> None:
    watch = serve(cluster)
    began, output = time.monotonic(), cluster.folder / "acknowledged"
    with output.open("wb") as file:
        here = ("env", "-C", str(Path(__file__).parents[2]), sys.executable, "-m", "tests.matrix.writer")
        argv = [*here, str(cluster.client_settings), *cluster.nodes]
        writer = cluster.lab.client.spawn(*argv, output=file.fileno())
    until(lambda: acknowledged(output) >= 50, 30, "fifty acknowledged writes")
    for seed in (1, 2):
        before = acknowledged(output)
        flaky.command("off")
        for name in cluster.members:
            cluster.lab.power_off(name)
        flaky.command(f"on {seed}")
        for name in cluster.members:
            cluster.lab.power_on(name)
        cluster.wait_redundant(GROUP)
        found = json.loads(cluster.hasys("get", "delay", "ledger", "-g", "g", "-o", "json"))
        assert int(found["metadata"]["labels"]["seq"]) >= before
        until(lambda: acknowledged(output) > before + 20, 30, "new writes")  # noqa: B023  awaited in the same round
    assert writer.poll() is None
    watch.assert_never_two(began)
    assert len(watch.holders(VIP)) == 1


@pytest.mark.long
def test_row_33_a_leader_whose_disk_hangs_hands_over_and_nothing_moves(cluster: Cluster) -> None:
    """The journal is the only thing on that disk: the leader's fsync neither ends nor fails."""
    leader = "w"
    disks = FlakyDisks(cluster)
    try:
        for name in cluster.nodes:  # only the leader's disk is one that hangs
            (cluster.folder / name / "data").unlink()
        watch = serve(cluster)
        began = time.monotonic()
        cluster.make_leader(leader, GROUP)
        active = cluster.wait_redundant(GROUP)
        epoch = cluster.group(GROUP)["epoch"]
        disks.hang()
        struck = time.monotonic()
        cluster.hasys("drain", "n1" if active == "n2" else "n2")  # a write: the leader notices its disk
        cluster.wait(lambda s: s["cluster"]["leader"] not in ("", leader), 15, "another leader")
        pause(2)
        assert cluster.group(GROUP)["epoch"] == epoch
        assert watch.holders(VIP) == [active]
        assert watch.last_answer(VIP, "n1" if active == "n2" else "n2", struck) is None
        watch.assert_never_two(began)
    finally:
        disks.go_on()
        disks.close()


def fill(file: Path) -> None:
    """Until there is no space left."""
    with file.open("wb", buffering=0) as ballast, suppress(OSError):
        while ballast.write(bytes(BLOCK)):
            pass


def labelled(text: str) -> str:
    """The group with a label, which changes nothing of what runs."""
    return group_manifest(GROUP).replace(f"{{name: {GROUP}}}", f"{{name: {GROUP}, labels: {{text: {text}}}}}")


@pytest.mark.long
def test_row_29_a_node_whose_disk_is_full_gives_its_groups_away_in_order_and_says_why(cluster: Cluster) -> None:
    """Its store ends; its guard hears the other stores, so that what it serves stops in order."""
    with small_disk(cluster, "n1") as folder:
        watch = serve(cluster)
        began = time.monotonic()
        epoch = cluster.group(GROUP)["epoch"]
        fill(folder / "ballast")
        cluster.apply(labelled("x" * 3 * BLOCK))  # more than what is left in the last block of the log
        full = cluster.wait(lambda s: "No space left on device" in _node(s, "n1")["message"], 20, "n1 to say why")
        assert full["cluster"]["leader"] != "n1"
        assert full["cluster"]["quorum"]
        assert _node(full, "n1")["state"] == "NotReady"
        cluster.wait_running(GROUP, "n2")
        (folder / "ballast").unlink()
        cluster.wait(lambda s: not _node(s, "n1")["message"], 20, "n1 to be well again")
        cluster.wait_redundant(GROUP)
        assert (watch.holders(VIP), cluster.group(GROUP)["epoch"]) == (["n2"], epoch + 1)
        watch.assert_never_two(began)


def _node(status: object, name: str) -> dict[str, str]:
    assert isinstance(status, dict)
    found: dict[str, str] = next(n for n in status["nodes"] if n["name"] == name)
    return found


# ---------------------------------------------------------------- row 30
NOISE = """
import os, random, socket, sys, time
rng = random.Random(7)
tcp, udp = ([tuple(a.rsplit(":", 1)) for a in arg.split(",")] for arg in sys.argv[1:])
greetings = (b"\\x16\\x03\\x01", b"", b"GET / HTTP/1.1\\r\\n\\r\\n")
until, sent = time.monotonic() + 4, 0
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while time.monotonic() < until:
    for host, port in udp:
        u.sendto(rng.randbytes(rng.randint(0, 1400)), (host, int(port)))
    for host, port in tcp:
        with socket.socket() as s:
            s.settimeout(1)
            s.connect((host, int(port)))
            try:
                s.sendall(rng.choice(greetings) + rng.randbytes(rng.randint(0, 4000)))
            except OSError:
                continue
            sent += 1
    time.sleep(0.01)
print(sent)
"""


@pytest.mark.long
def test_row_30_garbage_and_a_foreign_clusters_client_on_every_port_are_refused_and_counted(
    act: Act, tmp_path: Path
) -> None:
    cluster, struck = act.stage.cluster, time.monotonic()
    hosts = [cluster.machine(name).address() for name in cluster.members]
    tcp = ",".join(f"{host}:{port}" for host in hosts for port in (API_PORT, RAFT_PORT))
    udp = ",".join(f"{host}:{LEASE_PORT}" for host in hosts)
    sent = cluster.lab.client.run(sys.executable, "-c", NOISE, tcp, udp)
    assert int(sent) > 50
    foreign = tmp_path / "foreign"
    addresses = [f"{name}={host}" for name, host in zip(cluster.members, hosts, strict=True)]
    run(*hasys_command(), "init", "--cluster", "demo", "--node", addresses[0], "--node", addresses[1], "--witness",
        addresses[2], "--out", str(foreign))  # fmt: skip
    strange = [*hasys_command(), "--context", str(foreign / "client" / "client.yaml"), "switchover", GROUP]
    done = subprocess.run(cluster.lab.client.command(*strange), capture_output=True, text=True, check=False)
    assert done.returncode in (1, 3), done.stdout
    assert "certificate" in done.stderr
    act.assert_unmoved(struck)
    for name in cluster.members:
        assert "refused" in cluster.machine(name).log.read_text()


# ---------------------------------------------------------------- row 38
def test_row_38_a_flushed_ruleset_on_every_node_is_back_at_once_and_nobody_else_answers(act: Act) -> None:
    struck = time.monotonic()
    for name in act.stage.cluster.nodes:
        machine = act.stage.machine(name)
        machine.run("nft", "flush", "ruleset")
        until(lambda: "hook ingress" in machine.run("nft", "list", "ruleset"), 2, "the gate to be back")  # noqa: B023
    act.assert_unmoved(struck)


# ---------------------------------------------------------------- row 40
def timing_profile(name: str) -> str:
    return f"apiVersion: hasys/v1\nkind: Cluster\nmetadata: {{name: demo}}\nspec: {{profile: {name}}}\n"


@pytest.mark.parametrize("profile", [pytest.param("fast", marks=pytest.mark.long), "wan"])
def test_row_40_timings_changed_in_operation_with_a_leader_change_in_the_middle_move_nothing(
    act: Act, profile: str
) -> None:
    cluster, struck = act.stage.cluster, time.monotonic()
    try:
        cluster.apply(timing_profile(profile))
        leader = cluster.status()["cluster"]["leader"]
        cluster.machine(leader).kill("store")
        cluster.wait(lambda s: s["cluster"]["leader"] not in ("", leader), 20, "another leader")
        cluster.wait(lambda s: s["cluster"]["profile"] == profile, 10, "the new profile")
        pause(3)
        act.assert_unmoved(struck)
    finally:
        cluster.apply(timing_profile("default"))
        cluster.wait(lambda s: s["cluster"]["profile"] == "default", 20, "the default profile")
    pause(6)  # grants of the longer TTL end before the next test strikes
    act.assert_unmoved(struck)


# ---------------------------------------------------------------- rows 17, 39: majorities
def test_row_17_without_witness_and_standby_the_active_fences_itself_and_serves_again_with_one_of_them(
    act: Act,
) -> None:
    act.stage.lab.power_off("w")
    act.stage.lab.power_off(act.standby)
    struck = time.monotonic()  # until here there was a majority
    act.stage.wait_holder(None, timeout=2)
    pause(2)
    assert act.stage.watch.last_answer(VIP, act.active, struck + 2) is None
    act.stage.lab.power_on("w")
    act.stage.wait_holder(act.active)
    act.told("RestartOnNode", f"starts again on {act.active}", f"the guard of {act.active} fenced it")


@pytest.mark.long
def test_row_39_a_wiped_voter_does_not_count_while_another_is_down_and_nothing_acknowledged_is_lost(act: Act) -> None:
    cluster, lab = act.stage.cluster, act.stage.lab
    lab.power_off(act.standby)
    cluster.hasys("pause", GROUP, "--reason", "the last word before")  # acknowledged by the Active and the witness
    lab.power_off("w")
    act.stage.wait_holder(None, timeout=3)
    run("rm", "-rf", str(cluster.folder / act.standby / "data"))
    lab.power_on(act.standby)
    pause(5)
    assert act.stage.watch.holders(VIP) == []
    with pytest.raises(CommandFailed):
        cluster.hasys("resume", GROUP, "--timeout", "2s")
    lab.power_on("w")
    cluster.wait(lambda s: s["cluster"]["quorum"], 20, "a majority")
    assert group_of(cluster.status(), GROUP)["paused"]
    cluster.hasys("resume", GROUP)
    assert cluster.wait_redundant(GROUP) == act.active
