"""A cluster whose group is a database on a shared disk; a client that writes all the time; faults, one after another.

Not part of ``make test``: ``make databases`` installs the databases and takes its time. ``HASYS_TIMES`` counts faults.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hasys.lab.cluster import Cluster, address_manifest, disk_manifest, group_manifest
from hasys.lab.disks import MountWatch, SharedDisk
from hasys.lab.shell import until
from tests.lab.stage import lab_or_skip

VIP = "10.77.0.100"
TIMES = int(os.environ.get("HASYS_TIMES", "20"))
PROGRESS = 60.0
"""Seconds within which the client must be able to write again after a fault: recovery of the database included."""
SETTINGS = {"unmountTimeout": "2s", "killAfter": "1s"}

_WRITER = """
n=0
while :; do
  n=$((n + 1))
  if timeout 5 {insert}; then echo $n >> {acknowledged}; else sleep 0.1; fi
done
"""
"""Each row in a connection of its own; its number is noted only after the database has said that it is committed."""


@dataclass
class Stage:
    """One running database and everything around it."""

    cluster: Cluster
    mounts: MountWatch
    process: str
    """Name of the database's process."""
    acknowledged: Path
    rows: Callable[[], set[int]]
    """What the database has, asked by the client."""
    faults: dict[str, int] = field(default_factory=dict)

    def written(self) -> set[int]:
        """What the client was told to be safe."""
        return {int(line) for line in self.acknowledged.read_text().split()} if self.acknowledged.exists() else set()

    def progress(self) -> None:
        """Wait until the client has written something more."""
        before = len(self.written())
        until(lambda: len(self.written()) > before + 2, PROGRESS, "the client to write again", every=0.1)

    def fault(self, name: str, active: str) -> None:
        """Do one thing to the Active."""
        self.faults[name] = self.faults.get(name, 0) + 1
        machine = self.cluster.machine(active)
        match name:
            case "kill":
                machine.kill(self.process)
            case "switchover":
                self.cluster.hasys("switchover", "db", timeout=120)
            case "power":
                self.cluster.lab.power_off(active)
            case "cut":
                machine.drop()

    def torture(self) -> None:
        """Every fault in turn, with the client writing all the time; at the end, nothing that was acknowledged is
        missing, and the disk was never mounted twice."""
        for number, name in zip(range(TIMES), itertools.cycle(("kill", "power", "switchover", "cut")), strict=False):
            active = self.cluster.wait_redundant("db", timeout=PROGRESS)
            self.progress()
            self.fault(name, active)
            self.progress()
            self.cluster.restore()
            lost = self.written() - self.rows()
            assert not lost, f"fault {number} ({name}): acknowledged and lost: {sorted(lost)[:10]}"
        assert self.mounts.twice() == []
        print(f"{self.faults}: {len(self.written())} acknowledged, none lost, never mounted twice")


@contextmanager
def stage(
    fill: Callable[[Path], None], database: str, process: str, insert: str, ask: Sequence[str]
) -> Iterator[Stage]:
    """``fill`` makes the database in a folder; ``database`` is its manifest, where ``{point}`` is that folder;
    ``insert`` and ``ask`` are the client's commands."""
    with lab_or_skip() as lab:
        cluster = Cluster(lab)
        cluster.start()
        disk = SharedDisk(lab.record.data / "disk.img", megabytes=512)
        lab.on_close(disk.close)
        point = lab.record.data / "shared"
        point.mkdir()
        lab.record.data.chmod(0o711)  # the database's user must get there
        subprocess.run(["mount", disk.device, str(point)], check=True)
        try:
            fill(point)
        finally:
            subprocess.run(["umount", str(point)], check=True)
        cluster.wait_ready()
        watch = MountWatch([cluster.machine(n) for n in cluster.nodes], disk.device)
        lab.on_close(watch.close)
        cluster.apply(
            group_manifest("db")
            + address_manifest(f"{VIP}/24", name="db-ip", group="db")
            + disk_manifest(disk.device, str(point), name="disk", group="db", extra=SETTINGS)
            + database.replace("{point}", str(point))
        )
        cluster.wait_running("db", timeout=60)
        acknowledged = lab.record.data / "acknowledged"

        def rows() -> set[int]:
            return {int(line) for line in lab.client.run(*ask).split()}

        lab.client.spawn("sh", "-c", _WRITER.format(insert=insert, acknowledged=acknowledged))
        yield Stage(cluster, watch, process, acknowledged, rows)
