"""``hasys doctor``: every finding names what it looked at, and each that is not fine says how to mend it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from hasys.cli import machine
from hasys.cli.machine import BAD, GOOD, WARN, Finding
from hasys.config import load
from hasys.guard import arbiter, cgroup
from hasys.model.errors import ConfigRefused
from tests.unit.cli.conftest import Run


def test_every_finding_that_is_not_fine_says_how_to_mend_it(hasys: Run, folders: Path) -> None:
    findings = json.loads(hasys("doctor", "--config", folders / "n1", "-o", "json").stdout)
    assert {"root", "kernel", "nftables", "cgroup v2", "ports", "node certificate", "durable writes"} <= {
        finding["check"] for finding in findings
    }
    for finding in findings:
        assert finding["state"] == GOOD or finding["mend"], finding


def test_the_status_is_1_exactly_when_something_is_bad(hasys: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for state, status in ((GOOD, 0), (WARN, 0), (BAD, 1)):
        finding = Finding(state, "kernel", "Linux", "mend it")
        monkeypatch.setattr("hasys.cli.doctor.examine", lambda _path, finding=finding: [finding])
        result = hasys("doctor")
        assert result.exit_code == status
        assert "mend it" in result.stdout


def test_of_several_cgroup_mounts_the_one_that_guard_and_agent_use_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"none /srv/chroot/cgroup cgroup2 rw 0 0\nnone {cgroup.USUAL} cgroup2 rw 0 0\n")
    used = cgroup.mount(mounts)
    monkeypatch.setattr(cgroup, "mount", lambda: used)
    assert machine.cgroups().found.startswith(cgroup.USUAL)


def test_a_port_that_another_program_has_is_found(folders: Path) -> None:
    config = load(folders / "n1")
    with socket.create_server(("127.0.0.1", config.me.api_port)):
        finding = machine.ports(config)
    assert finding.state == BAD
    assert f"127.0.0.1:{config.me.api_port}" in finding.found
    assert machine.ports(config).state == GOOD


def test_an_address_of_another_machine_is_found(hasys: Run, tmp_path: Path) -> None:
    hasys("init", "--cluster", "c", "--node", "n1=192.0.2.77", "--out", tmp_path / "c")
    assert machine.addresses(load(tmp_path / "c" / "n1")).state == BAD


def test_settings_that_cannot_be_read_are_a_finding_not_an_accident(hasys: Run, folders: Path) -> None:
    (folders / "n1" / "node.key").chmod(0o644)
    result = hasys("doctor", "--config", folders / "n1")
    assert result.exit_code == 1
    assert "chmod 600" in result.stdout


@pytest.mark.parametrize(("release", "state"), [("6.1.0-13-amd64", GOOD), ("5.15.0", WARN), ("4.19.0", BAD)])
def test_kernels_without_the_hooks_are_told(release: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.release", lambda: release)
    assert machine.kernel().state == state


def test_a_slow_disk_is_told_with_its_figures(tmp_path: Path) -> None:
    assert machine.disk(tmp_path, bound=0.0).state == WARN
    assert "worst" in machine.disk(tmp_path, bound=60.0).found


def test_the_arbiters_disk_is_read_and_what_is_wrong_with_it_is_said(hasys: Run, tmp_path: Path) -> None:
    disk, out = tmp_path / "disk", tmp_path / "c"
    disk.write_bytes(bytes(arbiter.SIZE))
    made = hasys(
        "init", "--cluster", "c", "--node", "n1=127.0.0.1", "--node", "n2=127.0.0.2", "--policy", "arbiter",
        "--arbiter", disk, "--out", out,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    config = load(out / "n1")
    assert (config.policy, config.arbiter) == ("arbiter", disk)
    seat = arbiter.seat_of(config)
    assert seat is not None
    good = machine.arbiter(seat, 5.0)
    assert good.state in (GOOD, WARN)
    assert "n1 has not written yet, n2 has not written yet" in good.found
    disk.write_bytes(b"x" * arbiter.SIZE)
    bad = machine.arbiter(seat, 5.0)
    assert bad.state == BAD
    assert "holds something else" in bad.found
    listed = json.loads(hasys("doctor", "--config", out / "n1", "-o", "json").stdout)
    assert ("arbiter's disk", BAD) in [(finding["check"], finding["state"]) for finding in listed]


@pytest.mark.parametrize(
    ("line", "says"),
    [("", "arbiter: policy arbiter needs the disk"), ("arbiter: sdx", "arbiter: 'sdx': write the whole path")],
)
def test_an_arbiter_without_its_disk_is_refused_on_load(hasys: Run, tmp_path: Path, line: str, says: str) -> None:
    hasys("init", "--cluster", "c", "--node", "n1=127.0.0.1", "--node", "n2=127.0.0.2", "--out", tmp_path / "c")
    file = tmp_path / "c" / "n1" / "node.yaml"
    file.write_text(file.read_text().replace("policy: safe", "policy: arbiter\n" + line))
    with pytest.raises(ConfigRefused, match=says):
        load(file.parent)
