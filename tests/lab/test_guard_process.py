"""The guard process on a real kernel: fencing, release, restart, several groups, bad input."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.guard_rig import ENTRIES, KILL, NODE4, TTL, VIP4, VIP6, Rig, Talk, pinging, until

pytestmark = [pytest.mark.lab, pytest.mark.slow]

HICCUP = 0.1
"""Seconds. The longest silence of an address that a restart of the guard may cause."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as made:
        yield made


def addresses(rig: Rig) -> str:
    return rig.node.run("ip -br addr show eth0")


def with_process(rig: Rig, group: str = "web") -> tuple[list[dict[str, Any]], Path]:
    """Entries of a group that has a process too, and its cgroup."""
    path = rig.cgroups / "groups" / group / f"{group}-app"
    return [*ENTRIES, {"kind": "cgroup", "path": str(path), "resource": f"{group}-app"}], path


def serve_with_process(rig: Rig, talk: Talk) -> Path:
    """Group web permitted, with both addresses on the interface and a process."""
    entries, path = with_process(rig)
    rig.leader.grant({"web": (1, 1)})
    reply = talk.ask("plan", group="web", epoch=1, version=1, entries=entries)
    if reply["state"] == "pending":
        talk.wait_event(event="permitted", group="web", epoch=1)
    rig.add_addresses()
    rig.process_in(path)
    return path


def test_a_revoked_group_is_fenced_agent_first_and_its_release_is_told(rig: Rig) -> None:
    talk = rig.start_guard()
    serve_with_process(rig, talk)
    helper, app = rig.process_in(rig.cgroups / "agent"), rig.processes[0]
    rig.leader.grant({})
    assert talk.wait_event(event="revoked", group="web", epoch=1)["reason"].startswith("revoked by n2")
    rig.leader.wait_released("web", 1)
    assert helper.wait(1) == -KILL
    assert app.wait(1) == -KILL
    assert VIP4 not in addresses(rig)
    assert VIP6 not in addresses(rig)
    (fence,) = talk.ask("status")["fences"]
    assert set(fence["ms"]) == {"agent", "muted", "addresses", "processes", "mounts"}
    assert fence["ms"]["muted"] < 50


def test_a_stopped_process_is_fenced_too(rig: Rig) -> None:
    talk = rig.start_guard()
    path = serve_with_process(rig, talk)
    (path / "cgroup.freeze").write_text("1")
    rig.leader.grant({})
    assert rig.processes[0].wait(2) == -KILL


def test_a_lease_that_ends_fences_everything_before_its_end(rig: Rig) -> None:
    talk = rig.start_guard()
    serve_with_process(rig, talk)
    rig.leader.granting = False
    cut = time.monotonic()
    assert "lease ended" in talk.wait_event(event="revoked", group="web")["reason"]
    assert time.monotonic() - cut < TTL
    assert rig.processes[0].wait(1) == -KILL
    assert VIP4 not in addresses(rig)


def test_one_revoked_group_leaves_the_others_alone(rig: Rig) -> None:
    talk = rig.start_guard()
    rig.leader.grant({"web": (1, 1), "db": (1, 1)})
    path = rig.cgroups / "groups" / "db" / "db-app"
    entry = {"kind": "cgroup", "path": str(path), "resource": "db-app"}
    assert talk.ask("plan", group="db", epoch=1, version=1, entries=[entry])["ok"]
    talk.ask("plan", group="web", epoch=1, version=1, entries=ENTRIES)
    rig.add_addresses()
    app = rig.process_in(path)
    with pinging(rig.peer, VIP4) as (pinger,):
        pinger.wait_answer()
        rig.leader.grant({"web": (1, 1)})
        rig.leader.wait_released("db", 1)
        assert app.wait(1) == -KILL
        pinger.wait_answer()
        assert pinger.longest_loss() < HICCUP


def test_an_orderly_release_is_refused_until_nothing_is_left(rig: Rig) -> None:
    talk = rig.start_guard()
    path = serve_with_process(rig, talk)
    reply = talk.ask("release", group="web", epoch=1)
    assert reply["code"] == "blocked"
    assert "address 10.77.0.100 is still on eth0" in reply["error"]
    assert "web-app: processes are still in" in reply["error"]
    rig.node.run(f"ip addr del {VIP4}/24 dev eth0; ip -6 addr del {VIP6}/64 dev eth0")
    (path / "cgroup.kill").write_text("1")
    rig.processes[0].wait(1)
    assert talk.ask("release", group="web", epoch=1)["ok"]
    rig.leader.wait_released("web", 1)
    assert talk.ask("permit", group="web", epoch=1)["code"] == "stale"
    assert talk.ask("plan", group="web", epoch=1, version=9, entries=[])["code"] == "stale"
    assert not talk.ask("status")["fences"]


def test_a_released_epoch_is_never_permitted_again_but_the_next_one_is(rig: Rig) -> None:
    talk = rig.start_guard()
    rig.leader.grant({"web": (1, 1)})
    talk.ask("plan", group="web", epoch=1, version=1, entries=ENTRIES)
    assert talk.ask("release", group="web", epoch=1)["ok"]
    assert talk.ask("plan", group="web", epoch=1, version=1, entries=ENTRIES)["code"] == "stale"
    rig.leader.grant({"web": (2, 1)})
    talk.ask("plan", group="web", epoch=2, version=1, entries=ENTRIES)
    until(lambda: talk.ask("permit", group="web", epoch=2)["state"] == "permitted", "permission")


def test_a_plan_of_another_version_than_the_grant_names_stays_pending(rig: Rig) -> None:
    talk = rig.start_guard()
    rig.leader.grant({"web": (1, 7)})
    assert talk.ask("plan", group="web", epoch=1, version=6, entries=ENTRIES)["state"] == "pending"
    assert talk.ask("permit", group="web", epoch=1)["state"] == "pending"
    talk.ask("plan", group="web", epoch=1, version=7, entries=ENTRIES)
    until(lambda: talk.ask("permit", group="web", epoch=1)["state"] == "permitted", "permission")


def test_a_guard_that_is_killed_and_restarted_loses_no_probe_and_no_process(rig: Rig) -> None:
    talk = rig.start_guard()
    serve_with_process(rig, talk)
    with pinging(rig.peer, VIP4, VIP6) as pingers:
        for p in pingers:
            p.wait_answer()
        rig.signal(KILL)
        assert rig.guard is not None
        rig.guard.wait()
        talk = rig.start_guard()
        time.sleep(2 * TTL)  # longer than what the kernel had left
        for p in pingers:
            p.wait_answer()
            assert p.longest_loss() < HICCUP
    assert rig.processes[0].poll() is None
    assert talk.ask("permit", group="web", epoch=1)["state"] == "permitted"
    assert not talk.ask("status")["fences"]


def test_a_guard_that_returns_after_the_lease_fences_before_anything_else(rig: Rig) -> None:
    talk = rig.start_guard()
    assert talk.ask("gate", addresses=[{"interface": "eth0", "address": a} for a in (VIP4, VIP6)])["ok"]
    serve_with_process(rig, talk)
    rig.signal(KILL)
    assert rig.guard is not None
    rig.guard.wait()
    time.sleep(TTL)
    with pinging(rig.peer, VIP4, VIP6) as pingers:
        talk = rig.start_guard()
        assert rig.processes[0].wait(1) == -KILL
        assert VIP4 not in addresses(rig)
        rig.add_addresses()  # by hand: the leader still grants epoch 1, the guard has given it up for ever
        assert all(p.quiet_for(0.3) for p in pingers)
    assert talk.ask("status")["released"] == {"web": 1}


def test_a_damaged_plan_means_that_everything_of_the_node_is_undone(rig: Rig) -> None:
    talk = rig.start_guard()
    serve_with_process(rig, talk)
    rig.signal(KILL)
    assert rig.guard is not None
    rig.guard.wait()
    (rig.tmp / "run" / "plan.json").write_text('{"plans": [')
    rig.start_guard()
    assert rig.processes[0].wait(1) == -KILL
    assert VIP4 not in addresses(rig)
    assert VIP6 not in addresses(rig)


def test_a_removed_plan_means_the_same_while_something_of_it_is_left(rig: Rig) -> None:
    talk = rig.start_guard()
    serve_with_process(rig, talk)
    rig.signal(KILL)
    assert rig.guard is not None
    rig.guard.wait()
    shutil.rmtree(rig.tmp / "run")
    rig.leader.granting = False
    again = rig.start_guard()
    assert VIP4 not in addresses(rig)
    assert VIP6 not in addresses(rig)
    assert rig.processes[0].wait(1) == -KILL
    assert again.ask("status")["groups"] == []


def test_a_dropped_address_is_muted_at_once_and_fenced_if_it_stays(rig: Rig) -> None:
    talk = rig.start_guard()
    rig.serve(talk)
    with pinging(rig.peer, VIP4, VIP6) as (p4, p6):
        p4.wait_answer()
        p6.wait_answer()
        rig.leader.grant({"web": (1, 2)})
        talk.ask("plan", group="web", epoch=1, version=2, entries=ENTRIES[:1])
        assert p6.quiet_for(0.3)
        p4.wait_answer()
        rig.leader.grant({})
        rig.leader.wait_released("web", 1)
        assert VIP6 not in addresses(rig)


def test_garbage_on_every_door_is_answered_or_counted_and_nothing_else(rig: Rig) -> None:
    talk = rig.start_guard()
    rig.serve(talk)
    for line, why in [
        (b"GET / HTTP/1.0\n", "not a line of JSON"),
        (b'{"id":1,"op":"explode"}\n', "is unknown"),
        (b'{"id":1,"op":"plan","group":"../x","epoch":1,"version":1,"entries":[]}\n', "is no DNS label"),
        (b"x" * 70_000, "line longer than 65536 bytes"),
    ]:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(rig.tmp / "run" / "guard.sock"))
            s.settimeout(2)
            s.sendall(line)
            assert why in s.recv(4096).decode()
    _, port = rig.leader.guard_address
    with rig.peer.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp:
        for size in (0, 1, 60, 1400):
            udp.sendto(os.urandom(size), (NODE4, port))
    until(lambda: talk.ask("status")["counts"].get("not-ours", 0) >= 3, "count")
    assert talk.ask("permit", group="web", epoch=1)["state"] == "permitted"


def test_a_cgroup_outside_of_the_node_is_never_taken_into_a_plan(rig: Rig) -> None:
    talk = rig.start_guard()
    for path in ("/sys/fs/cgroup", str(rig.cgroups), str(rig.cgroups / "groups" / "other" / "x")):
        entry = {"kind": "cgroup", "path": path, "resource": "x"}
        reply = talk.ask("plan", group="web", epoch=1, version=1, entries=[entry])
        assert "is not below" in reply["error"]


def test_only_one_guard_of_a_node_runs(rig: Rig) -> None:
    rig.start_guard()
    first = rig.guard
    assert first is not None
    second = rig.spawn_guard()
    assert second.wait(10) != 0
    assert first.poll() is None


def test_the_socket_is_for_its_owner_alone(rig: Rig) -> None:
    rig.start_guard()
    assert (rig.tmp / "run" / "guard.sock").stat().st_mode & 0o777 == 0o600
