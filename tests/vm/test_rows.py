"""Rows of docs/matrix.md that namespaces cannot play: real boots, a watchdog that resets, power cuts, a paused machine.

``make vm-test``. One cluster for all of them, in this order; what a row leaves behind is the next one's to cope with.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from hasys.lab.shell import until
from hasys.model.timing import PROFILES
from tests.conformance.watchdog import CLAIMS
from tests.vm.guests import FIREWALL, MANIFEST, NODES, READY, ROOT, WATCHDOG, Stage, missing

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

TTL = PROFILES["wan"].ttl
SLACK = 3.0
"""Seconds that emulation may cost between an event in a guest and what is seen of it outside."""
_OURS = """for p in /proc/[0-9]*; do case "$(readlink $p/exe)" in */python3*)
  line=$(tr '\\0' ' ' <$p/cmdline); case "$line" in *guest-agent*) ;; *) {}; esac;; esac; done; true"""
FREEZE = _OURS.format("kill -STOP ${p#/proc/}")
"""Every process of hasys in a guest, and of no one else."""
GUARDLESS = _OURS.format(
    'case "$line" in *" node run "*) kill -STOP ${p#/proc/};; *" guard run "*) kill -9 ${p#/proc/};; esac'
)
"""Its supervisor frozen, its guard killed."""
STATUS = (
    "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX);"
    ' s.connect("/run/hasys/vm-{name}/guard.sock"); s.sendall(b"{{\\"id\\":1,\\"op\\":\\"status\\"}}\\n");'
    " print(s.makefile().readline())'"
)
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
SHOP = """apiVersion: hasys/v1
kind: Group
metadata: {{name: shop}}
spec:
  nodes: [{{name: {first}, priority: 100}}, {{name: {second}, priority: 50}}]
  failover: {{mode: Auto, rebootFailedNode: true}}
---
apiVersion: hasys/v1
kind: Application
metadata: {{name: shop-app, group: shop}}
spec:
  run: {{command: [sh, -c, "test ! -e /run/broken && exec sleep 4718"]}}
  restart: {{retries: 1, backoff: 100ms}}
"""
BOUND = WATCHDOG + 0.5 + 2 * TTL + 60
"""Seconds until the group runs elsewhere: watchdog, lease, and the start of everything by emulation."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    lack = missing()
    if lack:
        pytest.skip(lack)
    stage = Stage(tmp_path_factory.mktemp("vm"))
    try:
        stage.start_witness()
        stage.power_on(*NODES)
        until(lambda: '"Ready"' in _nodes(stage), READY, "a leader", every=1.0)
        manifest = stage.folder / "web.yaml"
        manifest.write_text(MANIFEST)
        stage.hasys("apply", "-f", str(manifest))
        yield stage
    finally:
        stage.close()


def _nodes(stage: Stage) -> str:
    try:
        return stage.hasys("status", "-o", "json")
    except Exception:
        return ""


def say(text: str) -> None:
    print(f"\n  {text}", file=sys.stderr, flush=True)


def test_a_real_watchdog_keeps_what_the_fake_of_the_guards_tests_keeps(stage: Stage) -> None:
    assert stage.conformed.split() == [claim.__name__ for claim in CLAIMS]


def test_row_19_a_frozen_node_is_muted_by_its_kernel_and_reset_by_its_watchdog(stage: Stage) -> None:
    active = stage.settle()
    other, began = stage.other(active), time.monotonic()
    guest, before = stage.guests[active], barks(stage, active)
    guest.sh(FREEZE)
    struck = time.monotonic()
    until(lambda: barks(stage, active) > before, WATCHDOG + 30, "the watchdog")
    barked = time.monotonic()
    silent = stage.answers.last(active, began)
    assert silent is not None
    assert silent - struck < TTL + SLACK, "muted at the end of the lease, by a kernel whose processes all sleep"
    assert barked - struck < WATCHDOG + SLACK
    stage.boot(active)
    stage.wait_active(other, BOUND)
    first = stage.answers.first(other, struck)
    assert first is not None
    assert stage.answers.overlaps(began) == []
    note = stage.told("NodeWentDown", active, "web (epoch", f"its watchdog (watchdog {WATCHDOG}s) was armed")
    say(f"row 19: silent after {silent - struck:.1f} s, reset after {barked - struck:.1f} s, other node answers after "
        f"{first - struck:.1f} s; {note}")  # fmt: skip
    assert stage.settle() == other, "the one that returns moves nothing"


def test_row_1_power_loss_of_the_active(stage: Stage) -> None:
    active = stage.settle()
    other, began = stage.other(active), time.monotonic()
    stage.guests[active].power_cut()
    struck = time.monotonic()
    stage.wait_active(other, BOUND)
    first = stage.answers.first(other, struck)
    assert first is not None
    stage.power_on(active)
    stage.told("NodeWentDown", active, "lost power")
    assert stage.settle() == other
    assert stage.answers.overlaps(began) == []
    say(f"row 1: the other node answers after {first - struck:.1f} s")


def test_row_38_a_flushed_ruleset_is_back_and_nobody_else_answers(stage: Stage) -> None:
    active = stage.settle()
    began = time.monotonic()
    for name in NODES:
        stage.guests[name].sh("nft flush ruleset")
        time.sleep(1.0)
        stage.guests[name].sh("nft -f -", stdin=FIREWALL)
    opened = {}
    for name in NODES:
        until(lambda: "netdev" in stage.guests[name].sh("nft list ruleset"), 10, "the gate", every=0.2)  # noqa: B023
        opened[name] = json.loads(stage.guests[name].sh(STATUS.format(name=name)))["gate"]["last_open_ms"]
    assert stage.answers.overlaps(began) == []
    assert stage.settle() == active
    assert stage.answers.last(stage.other(active), began) is None
    say(f"row 38: open for {opened} ms")


def test_row_25_power_loss_of_everything_in_the_middle_of_writes(stage: Stage) -> None:
    stage.settle()
    acknowledged = stage.folder / "acknowledged"
    with acknowledged.open("wb") as out:
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.matrix.writer", str(stage.client), *NODES], cwd=ROOT, stdout=out
        )
    try:
        until(lambda: len(acknowledged.read_text().split()) >= 20, 60, "twenty acknowledged writes")
        began = time.monotonic()
        for name in NODES:
            stage.guests[name].power_cut()
        stage.stop_witness()
    finally:
        writer.kill()
        writer.wait()
    last = int(acknowledged.read_text().split()[-1])
    stage.start_witness()
    stage.power_on(*NODES)
    stage.settle()
    found = json.loads(stage.hasys("get", "delay", "ledger", "-g", "g", "-o", "json"))
    assert int(found["metadata"]["labels"]["seq"]) >= last
    assert stage.answers.overlaps(began) == []
    say(f"row 25: {last} writes acknowledged, the store has {found['metadata']['labels']['seq']}")


def test_row_35_no_guard_no_network_nobody_who_starts_one(stage: Stage) -> None:
    """The supervisor is frozen, its guard killed, the cable pulled: only kernel and watchdog are left."""
    active = stage.settle()
    other, began = stage.other(active), time.monotonic()
    guest, before = stage.guests[active], barks(stage, active)
    guest.sh(GUARDLESS)
    guest.qmp("set_link", name="nic0", up=False)
    struck = time.monotonic()
    until(lambda: barks(stage, active) > before, WATCHDOG + 30, "the watchdog")
    barked = time.monotonic()
    assert barked - struck < WATCHDOG + SLACK
    stage.wait_active(other, BOUND)
    guest.qmp("set_link", name="nic0", up=True)
    stage.boot(active)
    assert stage.settle() == other
    assert stage.answers.overlaps(began) == []
    say(f"row 35: reset after {barked - struck:.1f} s")


def test_row_32_a_paused_machine_gives_up_when_it_goes_on(stage: Stage) -> None:
    active = stage.settle()
    other, began = stage.other(active), time.monotonic()
    guest = stage.guests[active]
    guest.qmp("stop")
    struck = time.monotonic()
    stage.wait_active(other, BOUND)
    time.sleep(max(0.0, struck + 30 - time.monotonic()))
    resumed = time.monotonic()
    guest.qmp("cont")
    assert stage.settle() == other
    last = stage.answers.last(active, resumed)
    answered = 0.0 if last is None else last - resumed
    assert answered < TTL + SLACK, "at most for the rest of its lease"
    say(f"row 32: after the pause the old address answered for {answered * 1000:.0f} ms; "
        f"overlaps: {stage.answers.overlaps(began) or 'none'}")  # fmt: skip


def test_a18_a_node_that_a_failing_application_left_reboots_once_and_takes_the_group_again(stage: Stage) -> None:
    active = stage.settle()
    other, began = stage.other(active), time.monotonic()
    manifest = stage.folder / "shop.yaml"
    manifest.write_text(SHOP.format(first=other, second=active))
    stage.hasys("apply", "-f", str(manifest))
    stage.wait_active(other, BOUND, "shop")
    guest, before = stage.guests[other], barks(stage, other)
    booted = guest.sh(BOOT_ID)
    guest.sh("touch /run/broken && pkill -f '[s]leep 4718'")  # the file is gone with the boot
    struck = time.monotonic()
    stage.wait_active(active, BOUND, "shop")
    stage.boot(other)
    assert guest.sh(BOOT_ID) != booted
    assert barks(stage, other) == before, "a reboot, not its watchdog"
    cause = stage.told("NodeRebooting", f"{other} is asked to reboot: shop failed over")
    assert stage.settle() == active, "the other group has not moved"
    again = guest.sh(BOOT_ID)
    stage.hasys("switchover", "shop", "--to", other)
    stage.wait_active(other, BOUND, "shop")
    assert guest.sh(BOOT_ID) == again, "the old request is not obeyed twice"
    assert stage.answers.overlaps(began) == []
    say(f"A18: {cause}; the node was ready again after {time.monotonic() - struck:.0f} s")


def barks(stage: Stage, name: str) -> int:
    """How often softdog has reset the guest since its power was switched on."""
    return (stage.folder / "run" / f"{name}.console").read_text(errors="replace").count("Initiating system reboot")
