"""Machines of the lab that systemd runs, as it runs the machines of operators: the real one, as process 1.

It has none of the units of this computer, only empty targets of the names that hasys's units mention, and what tests
install. Its folder of units is on the machine's disk, so it outlives a boot.
"""

from __future__ import annotations

import pytest

from hasys.lab.cluster import Cluster, hasys_command
from hasys.lab.machine import Machine
from hasys.lab.shell import LabError, until

SYSTEMD = "/usr/lib/systemd/systemd"
DOWN = "down.target"
"""Isolated, it stops every service in the order of a shutdown; the machine itself stays."""

_BOOT = f"""
set -e
disk=$1/$(hostname) log=$1/$(hostname).log
mkdir -p /run/targets "$disk/systemd/system/service.d"
for target in sysinit basic local-fs network-pre network network-online multi-user shutdown; do
  printf '[Unit]\\nDefaultDependencies=no\\n' >/run/targets/$target.target
done
ln -s multi-user.target /run/targets/default.target
printf '[Unit]\\nDefaultDependencies=no\\nAllowIsolate=yes\\n' >/run/targets/{DOWN}
printf '[Service]\\nStandardOutput=append:%s\\nStandardError=inherit\\n' "$log" \\
  >"$disk/systemd/system/service.d/log.conf"
mount --bind "$disk/systemd" /etc/systemd
mount --bind /run/targets /usr/lib/systemd/system
mount -t tmpfs tmpfs /usr/lib/systemd/system-generators
exec env -i container=lab PATH="$PATH" {SYSTEMD} --log-target=console --show-status=no
"""
"""PID 1 of a machine, after what the lab itself mounts. Argument: the folder of all machines' disks."""


def boot(disks: str) -> tuple[str, ...]:
    """The command that is PID 1 of a machine; words after it mean nothing."""
    return ("sh", "-c", _BOOT, "boot", disks)


def start(cluster: Cluster) -> None:
    """Switch every machine of a cluster on, and make its member a service there."""
    cluster.start(pid1=True, prefix=boot(str(cluster.lab.record.data)))
    for name in cluster.members:
        machine = cluster.machine(name)
        wait_booted(machine)
        config = str(cluster.folder / name / "node.yaml")
        said = machine.run(*hasys_command(), "install", "--config", config, "--start", timeout=120)
        if f"hasys-demo-{name}.service runs" not in said:
            raise LabError(f"install on {name}: {said.strip()}")


def wait_booted(machine: Machine, timeout: float = 20.0) -> None:
    """Wait until systemd takes orders. Skips the test where this computer lets none run."""
    try:
        until(lambda: _answers(machine), timeout, f"systemd of {machine.name}")
    except TimeoutError:
        if "Failed to" in machine.tail() or not machine.on:
            pytest.skip(f"systemd cannot be process 1 of a namespace here: {machine.tail(1)}")
        raise


def _answers(machine: Machine) -> bool:
    try:
        return machine.run("systemctl", "show", "--property=Version", "--value").strip() != ""
    except LabError:
        return False
