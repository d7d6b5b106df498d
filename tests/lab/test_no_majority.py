"""The day without a majority, on real nodes: what still works, on whose word, and how it ends."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime

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
from hasys.lab.instruments import Probe, Watch
from hasys.lab.lab import Lab
from hasys.lab.shell import until
from hasys.reconciler import lastknown
from tests.lab.stage import GROUP, PORT, VIP, WEB_SERVER, lab_or_skip, pause

pytestmark = pytest.mark.lab

MANIFEST = group_manifest(GROUP) + address_manifest(f"{VIP}/24") + application_manifest(WEB_SERVER)
LEASE_OVER = 2.0
"""Seconds after which what a node held without a majority must have ended (TTL 1 s, and the fence)."""
NOBODY_ANSWERED = 1.3
"""Seconds after the loss of the majority from which a guard takes an operator's word (TTL 1 s)."""


class House:
    """Two nodes and a witness, for all tests of this file."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cluster = Cluster(lab)
        self.cluster.start()
        self.cluster.wait_ready()
        self.cluster.apply(MANIFEST)
        self.cluster.wait_running(GROUP)
        self.watch: Watch = lab.watch([VIP], self.cluster.nodes)
        self.web: Probe = lab.http_probe(VIP, PORT)


class Day:
    """Everything runs and is redundant; then only ``alone``, the Standby, is left."""

    def __init__(self, house: House) -> None:
        self.lab, self.cluster, self.watch, self.web = house.lab, house.cluster, house.watch, house.web
        self.cluster.settle(GROUP)
        until(self._has_settled, 10, "the Standby to keep what it knows of the group as it is")
        self.web.wait_answer(10)
        self.began, self.clock = time.monotonic(), datetime.now(UTC)

    def _has_settled(self) -> bool:
        """What the Standby would run on its operator's word is the group as it is: the day before may still move it."""
        status = self.cluster.wait(lambda s: runs(s, GROUP) and group_of(s, GROUP)["redundant"], 30, "redundancy")
        self.lost, self.epoch = group_of(status, GROUP)["active"], group_of(status, GROUP)["epoch"]
        self.alone = next(name for name in self.cluster.nodes if name != self.lost)
        kept = lastknown.read(self.cluster.folder / self.alone / "data" / "last-known")
        groups = [obj.group for obj, _ in (kept.changes if kept else ()) if obj.WhichOneof("kind") == "group"]
        return any(g.metadata.name == GROUP and g.status.assignment.epoch == self.epoch for g in groups)

    def on_node(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command typed on the node that is left."""
        return self.cluster.on_node(self.alone, *argv)

    def lose_the_others(self) -> None:
        """The witness first: with it the Standby, once the Active is off, would still be given the group."""
        for name in reversed(self.cluster.members):
            if name != self.alone:
                self.lab.power_off(name)
        until(lambda: not self.watch.holders(VIP), 10, "the address to be silent")
        pause(NOBODY_ANSWERED)

    def events(self) -> list[dict[str, str]]:
        """What was recorded since the day began."""
        found = json.loads(self.cluster.hasys("events", "--limit", "500", "-o", "json"))
        return [e for e in found if datetime.fromisoformat(e["time"]) >= self.clock]

    def reasons(self) -> set[str]:
        return {e["reason"] for e in self.events()}

    def wait_told(self, reason: str, by: str) -> None:
        """Wait for an event. Raises :class:`TimeoutError` with the day's events and the end of the log of ``by``."""
        try:
            until(lambda: reason in self.reasons(), 10, f"{reason} to be recorded")
        except TimeoutError as e:
            raise TimeoutError(f"{e}\n{self.account(by)}") from None

    def account(self, node: str) -> str:
        """The day's events and the end of the log of a node."""
        events = "\n".join(f"{e['time']} {e['reason']}: {e['message']}" for e in self.events())
        return f"{events}\n--- log of {node}\n{self.lab.machines[node].tail(40)}"

    def swear(self) -> None:
        self.swear_alone()
        until(lambda: self.watch.holders(VIP) == [self.alone], 5, f"{self.alone} to hold the address")
        self.web.wait_answer(10, since=time.monotonic())

    def swear_alone(self) -> None:
        done = self.on_node("failover", GROUP, "--force", "--to", self.alone, "--yes", "--reason", "fire")
        assert done.returncode == 0, done.stderr
        assert "WARNING" in done.stderr


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with lab_or_skip() as made:
        yield House(made)


@pytest.fixture
def settled(house: House) -> Day:
    """A day on which two may serve: that is what the test is about."""
    return Day(house)


@pytest.fixture
def day(settled: Day) -> Iterator[Day]:
    yield settled
    settled.watch.assert_never_two(settled.began)


def test_status_is_answered_from_what_the_member_knows_and_changes_are_refused_at_once(day: Day) -> None:
    day.lose_the_others()
    asked = day.on_node("status", "-o", "json")
    assert asked.returncode == 0, asked.stderr
    assert "no majority" in asked.stderr
    status = json.loads(asked.stdout)
    assert status["cluster"]["quorum"] is False
    assert {n["name"]: n["state"] for n in status["nodes"]} == {day.lost: "Lost", day.alone: "NotReady", "w": "Lost"}
    group = group_of(status, GROUP)
    assert (group["epoch"], group["active"], group["phase"]) == (day.epoch, "", "Blocked")
    assert group["reason"].endswith(f"on {day.lost}")
    assert "no quorum" in day.on_node("status").stdout
    begun = time.monotonic()
    refused = day.on_node("pause", GROUP)
    assert time.monotonic() - begun < 4.0
    assert refused.returncode == 1, refused.stderr
    assert refused.stderr.startswith("hasys: no majority: ")


def test_an_operators_word_holds_the_group_and_the_returning_majority_keeps_it_there_without_a_stop(day: Day) -> None:
    day.lose_the_others()
    day.swear()
    node = day.lab.machines[day.alone]
    server = node.processes("http.server")
    back = time.monotonic()
    day.lab.power_on("w")
    day.cluster.wait_running(GROUP, active=day.alone)
    pause(2)
    assert node.processes("http.server") == server, f"the program was started again\n{day.account(day.alone)}"
    assert day.web.outage(back).felt < 0.3
    for reason in ("OathSworn", "OathAdopted"):
        day.wait_told(reason, by=day.alone)
    assert any("fire" in e["message"] for e in day.events())
    day.lab.power_on(day.lost)
    day.cluster.wait_redundant(GROUP)
    assert day.watch.holders(VIP) == [day.alone]


def test_the_word_is_refused_while_a_leader_answers(day: Day) -> None:
    with pytest.raises(CommandFailed) as refused:
        day.cluster.hasys("resolve", GROUP, "--node", "n9", "--role", "active", "--yes")
    assert refused.value.status == 1
    done = day.on_node("resolve", GROUP, "--node", day.alone, "--role", "active", "--yes")
    assert done.returncode == 0, done.stderr  # an operation of the cluster, as always
    assert "WARNING" not in done.stderr


def test_without_a_yes_and_away_from_the_node_nothing_is_done(day: Day) -> None:
    day.lose_the_others()
    unconfirmed = day.on_node("resolve", GROUP, "--node", day.alone, "--role", "active")
    assert unconfirmed.returncode == 1
    assert "--yes" in unconfirmed.stderr
    elsewhere = day.on_node("resolve", GROUP, "--node", day.lost, "--role", "active", "--yes")
    assert elsewhere.returncode == 1
    assert f"on {day.lost} itself" in elsewhere.stderr
    pause(1)
    assert day.watch.holders(VIP) == []


def test_status_on_the_node_shows_what_it_holds_on_its_operators_word(day: Day) -> None:
    day.lose_the_others()
    day.swear()
    group = group_of(json.loads(day.on_node("status", "-o", "json").stdout), GROUP)
    assert (group["active"], group["epoch"], group["phase"]) == (day.alone, day.epoch + 1, "Degraded")
    assert "on its operator's word" in group["reason"]


def test_the_former_active_that_returns_first_does_not_take_the_group_back(day: Day) -> None:
    """The store still names it; what serves goes on, under an epoch above the oath's."""
    day.lose_the_others()
    day.swear()
    back = time.monotonic()
    day.lab.power_on(day.lost)
    day.cluster.wait_running(GROUP, active=day.alone)
    pause(3)
    assert day.watch.holders(VIP) == [day.alone]
    assert day.web.outage(back).felt < 0.3
    assert group_of(day.cluster.status(), GROUP)["epoch"] > day.epoch + 1


def test_when_the_word_was_wrong_the_majority_wins_at_once(settled: Day) -> None:
    """The others were alive behind a cut cable. Two served: that is what the warning says."""
    day, lost = settled, settled.lost
    day.lab.partition([day.alone], [lost, "w"])
    pause(LEASE_OVER)
    day.swear_alone()
    until(lambda: day.watch.holders(VIP) == list(day.cluster.nodes), 10, "both to hold the address")
    server = day.lab.machines[lost].processes("http.server")
    day.lab.heal()
    until(lambda: day.watch.holders(VIP) == [lost], 5, "the majority's node to be the only one")
    until(lambda: not day.lab.machines[day.alone].processes("http.server"), 5, "the other program to be gone")
    assert day.lab.machines[lost].processes("http.server") == server
    day.cluster.wait_redundant(GROUP)
    until(lambda: {"OathSworn", "OathEnded"} <= day.reasons(), 10, "the store to know of it")


def test_standby_lets_go_in_order(day: Day) -> None:
    day.lose_the_others()
    day.swear()
    done = day.on_node("resolve", GROUP, "--node", day.alone, "--role", "standby")
    assert done.returncode == 0, done.stderr
    ended = time.monotonic()
    assert not day.lab.machines[day.alone].processes("http.server")
    pause(1)
    assert day.watch.last_answer(VIP, day.alone, since=ended) is None


def test_a_frozen_node_loses_its_operators_word(day: Day) -> None:
    """Its kernel mutes it, and when it wakes it does not go on: nobody knows what happened meanwhile."""
    day.lose_the_others()
    day.swear()
    node = day.lab.machines[day.alone]
    frozen = node.freeze()
    pause(LEASE_OVER)
    assert day.watch.holders(VIP) == []
    node.thaw(frozen)
    until(lambda: not node.processes("http.server"), 10, "the program to be gone")
    pause(2)
    assert day.watch.holders(VIP) == []


@pytest.mark.parametrize("role", ["agent", "store"])
def test_a_killed_agent_or_store_is_not_felt_under_an_oath(day: Day, role: str) -> None:
    day.lose_the_others()
    day.swear()
    node = day.lab.machines[day.alone]
    server = node.processes("http.server")
    struck = time.monotonic()
    gone = set(node.kill(role))
    until(lambda: set(node.processes(role)) - gone, 10, f"{role} to be started again")
    pause(4)
    assert node.processes("http.server") == server
    assert day.web.outage(struck).felt < 0.3
    assert day.watch.holders(VIP) == [day.alone]


def test_a_killed_guard_is_back_in_time_or_gives_the_word_up(day: Day) -> None:
    day.lose_the_others()
    day.swear()
    day.lab.machines[day.alone].kill("guard")
    pause(4)
    serves = day.watch.holders(VIP) == [day.alone]
    runs = bool(day.lab.machines[day.alone].processes("http.server"))
    assert serves == runs


def test_a_node_that_booted_without_a_majority_runs_what_it_last_knew(day: Day) -> None:
    day.lose_the_others()
    day.lab.power_off(day.alone)
    day.lab.power_on(day.alone)
    until(lambda: day.on_node("status").returncode == 0, 20, "the node to answer")
    day.swear()


def test_an_orderly_shutdown_is_no_warning(day: Day) -> None:
    day.lab.shutdown(day.lost, "node")
    day.wait_told("NodeStopped", by=day.lost)
    assert "NodeLost" not in day.reasons()
