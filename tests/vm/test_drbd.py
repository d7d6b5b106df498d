"""B2 with DRBD 8.4 of a real kernel: two guests, a volume replicated between them, the driver on either side.

``make vm-test``. No cluster is on top: who may have the volume is a grant's business and is shown elsewhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hasys.lab.shell import until
from tests.conformance.drbd import CLAIMS
from tests.vm.guests import NET, NODES, ROOT, Stage, missing

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1500),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

PORT = 7788
RESOURCE = f"""global {{ usage-count no; }}
resource r0 {{ protocol C; device /dev/drbd0; disk /dev/vdb; meta-disk internal;
 disk {{ c-plan-ahead 0; resync-rate 200M; }}
 net {{ ping-int 2; ping-timeout 10; timeout 40; connect-int 2; }}
 on n1 {{ address {NET}.1:{PORT}; }} on n2 {{ address {NET}.2:{PORT}; }} }}
"""
CUT = f"""table inet cut {{
 chain input {{
  type filter hook input priority 0; policy accept;
  tcp dport {PORT} drop
  tcp sport {PORT} drop
 }}
}}
"""
"""The network of the replication is down."""
SLOW = 240.0
"""Seconds for what takes a few on a machine with KVM."""


class Replicated(Stage):
    """With a second disk in each guest, below DRBD; without hasys."""

    def _disks(self, name: str) -> list[str]:
        disk = self.folder / f"{name}-data.img"
        with disk.open("wb") as file:
            file.truncate(64 << 20)
        return [*super()._disks(name), str(disk)]

    def sh(self, name: str, command: str, stdin: str = "") -> str:
        return str(self.guests[name].sh(command, timeout=SLOW, stdin=stdin)).strip()

    def create(self, name: str) -> None:
        """What an administrator does once, and the service of drbd-utils at boot."""
        self.sh(name, "cat >/etc/drbd.d/r0.res; : >/etc/drbd.d/global_common.conf; modprobe drbd", stdin=RESOURCE)
        self.sh(name, "drbdadm create-md --force r0 2>&1 && drbdadm up r0 2>&1")

    def volume(self, name: str, verb: str) -> dict[str, Any]:
        """What the driver there comes to."""
        told = self.sh(name, f"cd {ROOT} && {sys.executable} -m tests.vm.volume {verb}")
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        return found

    def role(self, name: str) -> str:
        mounted = "/dev/drbd0 /srv/data " in self.sh(name, "cat /proc/mounts")
        return self.sh(name, "drbdadm role r0").partition("/")[0] + (" and mounted" if mounted else "")

    def wait_disks(self, name: str, states: str) -> None:
        """As the kernel says it: ``drbdadm dstate`` fails while two nodes are getting to know each other."""
        until(lambda: f"ds:{states}" in self.sh(name, "cat /proc/drbd"), SLOW, states, every=0.5)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    lack = missing()
    if lack:
        pytest.skip(lack)
    stage = Replicated(tmp_path_factory.mktemp("drbd"))
    try:
        for name in NODES:
            stage.guests[name].start()
        for name in NODES:
            stage.wait_boot(name)
        stage.create("n1")
        yield stage
    finally:
        stage.close()


def test_drbd_of_a_real_kernel_keeps_what_the_stand_in_of_the_tests_keeps(stage: Replicated) -> None:
    asked = f"cd {ROOT} && {sys.executable} -m tests.conformance.drbd r0 /dev/drbd0 2>&1"
    assert stage.guests["n1"].sh(asked, timeout=900).split() == [claim.__name__ for claim in CLAIMS]


def test_b2_a_volume_moves_with_what_was_written_and_starts_on_the_latest_data_alone(stage: Replicated) -> None:
    stage.sh("n1", "drbdadm primary --force r0 && mkfs.ext4 -q /dev/drbd0 && drbdadm secondary r0")
    stage.sh("n2", "nft -f -", stdin=CUT)
    stage.create("n2")

    refused = stage.volume("n2", "start")  # its disk is empty, and it cannot reach the other one
    assert (refused["state"], stage.role("n2")) == ("Failed", "Secondary")
    assert refused["message"].startswith("r0 is not promoted: the local disk is Inconsistent, not UpToDate")

    alone = stage.volume("n1", "start")
    assert (alone["state"], stage.role("n1")) == ("Running", "Primary and mounted")
    assert alone["message"].startswith("not connected to the other node")
    stage.sh("n1", "echo first >/srv/data/said && sync /srv/data/said")
    stage.sh("n2", "nft delete table inet cut")
    stage.wait_disks("n1", "UpToDate/UpToDate")

    held_back = stage.volume("n2", "start")  # in step, and the other one is Primary
    assert held_back["message"].startswith("r0 is not promoted: the other node is Primary")

    stage.volume("n1", "stop")
    assert stage.role("n1") == "Secondary"
    moved = stage.volume("n2", "start")
    assert (moved["state"], moved["message"]) == ("Running", "")
    assert (stage.role("n2"), stage.sh("n2", "cat /srv/data/said")) == ("Primary and mounted", "first")

    stage.sh("n2", "for i in 1 2 3; do echo $i >>/srv/data/said && sync /srv/data/said; done")
    stage.guests["n2"].power_cut()
    until(lambda: stage.volume("n1", "start")["state"] == "Running", SLOW, "the power cut to be seen", every=1.0)
    assert stage.sh("n1", "cat /srv/data/said").split() == ["first", "1", "2", "3"]
