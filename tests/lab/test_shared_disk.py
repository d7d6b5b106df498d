"""B3: a shared disk with a web server on it: mounted on the Active alone, whatever happens to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hasys.lab.cluster import (
    Cluster,
    CommandFailed,
    address_manifest,
    application_manifest,
    disk_manifest,
    group_manifest,
)
from hasys.lab.disks import MountWatch, SharedDisk
from hasys.lab.instruments import Probe
from hasys.lab.shell import run, until
from tests.lab.stage import lab_or_skip

pytestmark = pytest.mark.lab

VIP, PORT = "10.77.0.100", 8080
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; user root;
events {{}}
http {{ access_log {folder}/access.log; client_body_temp_path {folder}/body;
  server {{ listen {port}; root {folder}/html; }} }}
"""


@dataclass
class Stage:
    """A running cluster whose group has a disk."""

    cluster: Cluster
    disk: SharedDisk
    point: Path
    mounts: MountWatch
    web: Probe

    @property
    def active(self) -> str:
        return self.cluster.wait_redundant("web")

    def other(self, node: str) -> str:
        return next(n for n in self.cluster.nodes if n != node)

    def wait_mounted(self, node: str) -> None:
        until(lambda: self.mounts.now == {node}, 20, f"{node} alone to have the disk mounted")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with lab_or_skip() as lab:
        cluster = Cluster(lab)
        cluster.start()
        disk = SharedDisk(lab.record.data / "disk.img")
        lab.on_close(disk.close)
        point = lab.record.data / "shared"
        _fill(disk, point)
        cluster.wait_ready()
        watch = MountWatch([cluster.machine(n) for n in cluster.nodes], disk.device)
        lab.on_close(watch.close)
        nginx = ["nginx", "-c", f"{point}/nginx.conf", "-e", f"{point}/error.log"]
        cluster.apply(
            group_manifest()
            + address_manifest(f"{VIP}/24")
            + disk_manifest(disk.device, str(point), extra={"unmountTimeout": "2s", "killAfter": "1s"})
            + application_manifest(nginx, extra={"after": ["web-ip", "data"]})
        )
        cluster.wait_running("web")
        yield Stage(cluster, disk, point, watch, lab.http_probe(VIP, PORT))


FILL = """
mount "$1" "$2"; mkdir "$2/html"
printf %s "$3" > "$2/html/index.html"; printf %s "$4" > "$2/nginx.conf"
umount "$2"
"""


def _fill(disk: SharedDisk, point: Path) -> None:
    """What the web server needs, on the disk itself; mounted where no machine that begins now copies the mount."""
    point.mkdir()
    conf = NGINX.format(folder=point, port=PORT)
    run("unshare", "--mount", "sh", "-ec", FILL, "fill", disk.device, str(point), "from the shared disk", conf)


@pytest.fixture(autouse=True)
def never_twice(stage: Stage) -> Iterator[None]:
    """Around every test: somebody looked, and never saw two."""
    looks = stage.mounts.looks
    yield
    assert stage.mounts.looks > looks + 100
    assert stage.mounts.twice() == []


def test_b3_a_switchover_unmounts_here_before_it_mounts_there(stage: Stage) -> None:
    active = stage.active
    stage.wait_mounted(active)
    stage.cluster.hasys("switchover", "web")
    stage.wait_mounted(stage.other(active))
    stage.web.wait_answer(10)
    assert stage.cluster.wait_running("web") == stage.other(active)


def test_b3_a_cut_off_active_unmounts_by_itself_though_the_mount_is_used(stage: Stage) -> None:
    active = stage.active
    machine = stage.cluster.machine(active)
    user = machine.spawn("sh", "-c", f"exec sleep 600 > {stage.point}/held")
    until(lambda: machine.processes("sleep"), 5, "the user of the mount")
    machine.drop()
    stage.wait_mounted(stage.other(active))
    assert user.wait(timeout=5) != 0
    stage.web.wait_answer(10)
    stage.cluster.restore()


def test_b3_a_lost_active_is_replaced_after_the_time_for_its_unmount_and_within_the_bound(stage: Stage) -> None:
    active = stage.active
    stage.wait_mounted(active)
    bound = float(stage.cluster.group("web")["failoverBound"].removesuffix("s"))
    assert bound >= 2
    stage.cluster.lab.power_off(active)
    stage.cluster.wait_running("web", stage.other(active), timeout=bound + 5)
    stage.wait_mounted(stage.other(active))
    stage.web.wait_answer(10)
    stage.cluster.restore()


def test_b11_an_administrator_runs_a_command_on_a_node_and_the_history_keeps_it(stage: Stage) -> None:
    assert stage.cluster.hasys("run", "n2", "--", "sh", "-c", "hostname; id -un") == "n2\nroot\n"
    with pytest.raises(CommandFailed, match=r"sh -c exit 7 on n1: exit status 7"):
        stage.cluster.hasys("run", "n1", "--", "sh", "-c", "exit 7")
    history = stage.cluster.hasys("history")
    assert "sh -c exit 7 on n1: exit status 7" in history
    assert "admin" in history


def test_a20_a_command_file_moves_the_groups_of_its_node_once(stage: Stage, tmp_path: Path) -> None:
    active = stage.active
    (tmp_path / "HA_MANUAL_FAILOVER.DAT").touch()
    watch = ("command-files", "--directory", str(tmp_path), "--node", active, "--once")
    assert "switchover of web done" in stage.cluster.hasys(*watch)
    assert stage.cluster.wait_running("web") == stage.other(active)
    assert "switchover of web done" in (tmp_path / "HA_MANUAL_FAILOVER.DAT.result").read_text()
    assert stage.cluster.hasys(*watch) == ""
