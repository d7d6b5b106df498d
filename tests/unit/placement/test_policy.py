"""The role table, cell by cell, against the sentences of the failure matrix."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hasys.model.networks import Fault, LostNetworks, Trouble
from hasys.model.timing import PROFILES
from hasys.model.view import Assignment, Candidate, GroupInfo, Limit, NodeInfo, ResourceInfo, ResourceState, View
from hasys.placement.policy import TABLE, Outcome, Policy, Situation, policy_of, situation_of

TIMING = PROFILES["default"]
NOW = 100.0


def node(name: str, **changes: object) -> NodeInfo:
    ready = NodeInfo(name, heard=NOW, confirmed=NOW, armed=True, agent_alive=True, boot_id="b")
    return replace(ready, **changes)  # type: ignore[arg-type]


def view(*nodes: NodeInfo, **changes: object) -> View:
    whole = View(TIMING, leader_since=0.0, silent_since=0.0, nodes={n.name: n for n in nodes})
    return replace(whole, **changes)  # type: ignore[arg-type]


def group(**changes: object) -> GroupInfo:
    web = GroupInfo("web", (Candidate("n1", 100), Candidate("n2", 50)), assignment=Assignment("n1", 3))
    return replace(web, **changes)  # type: ignore[arg-type]


def test_every_situation_has_an_outcome_under_every_policy() -> None:
    assert set(TABLE) == {(situation, policy) for situation in Situation for policy in Policy}


@pytest.mark.parametrize("situation", Situation)
def test_a_pause_moves_nothing_by_itself(situation: Situation) -> None:
    """Draining, shutting down and deleting are commands of the operator, not automatic."""
    commanded = {Situation.LEAVING: Outcome.MOVE, Situation.DELETING: Outcome.STOP}
    passive = (Outcome.STAY, Outcome.STAY_UNFIT, Outcome.BLOCK)
    outcome = TABLE[situation, Policy.PAUSED]
    assert outcome is commanded[situation] if situation in commanded else outcome in passive


def test_manual_never_changes_the_node_after_a_fault() -> None:
    for fault in (Situation.LOST, Situation.GAVE_UP, Situation.CUT_OFF, Situation.NO_GATEWAY, Situation.FAILED):
        assert TABLE[fault, Policy.MANUAL] in (Outcome.BLOCK, Outcome.RESTART_HERE)


def test_a_group_that_serves_stays_under_every_policy() -> None:
    assert {TABLE[Situation.SERVING, policy] for policy in Policy} == {Outcome.STAY}


def test_a_pause_is_stronger_than_the_failover_mode() -> None:
    assert policy_of(group(paused=True, manual=True), view(), NOW) is Policy.PAUSED
    assert policy_of(group(manual=True), view(), NOW) is Policy.MANUAL
    assert policy_of(group(), view(), NOW) is Policy.AUTO


LIMIT = Limit(failovers=2, within=60.0, quiet=300.0)


@pytest.mark.parametrize(
    ("failovers", "now", "policy"),
    [
        ({2: 90.0}, NOW, Policy.AUTO),
        ({2: 90.0, 3: 95.0}, NOW, Policy.LIMITED),
        ({2: 90.0, 3: 95.0}, 394.9, Policy.LIMITED),
        ({2: 90.0, 3: 95.0}, 395.0, Policy.AUTO),
        # before this leader's authority, which began at 0: counted from there
        ({2: None, 3: None}, 299.9, Policy.LIMITED),
        ({2: None, 3: None}, 300.0, Policy.AUTO),
    ],
)
def test_a14_a_group_that_reached_its_limit_is_let_go_on_after_the_quiet_time(
    failovers: dict[int, float | None], now: float, policy: Policy
) -> None:
    assert policy_of(group(limit=LIMIT, failovers=failovers), view(), now) is policy


def test_a14_a_group_at_its_limit_is_treated_like_a_manual_one() -> None:
    assert all(TABLE[situation, Policy.LIMITED] is TABLE[situation, Policy.MANUAL] for situation in Situation)


FAILED = ResourceInfo("Application", "app", "n1", 3, ResourceState.FAILED, "exit code 1", version=7)

LINK = Trouble("eth0", Fault.LINK, "eth0 is down")
NO_GATEWAY = Trouble("eth0", Fault.GATEWAY, "no gateway on eth0")
ON_ETH0 = {"n1": frozenset({"eth0"}), "n2": frozenset({"eth0"})}


def troubled(name: str, trouble: Trouble, since: float = NOW - 5) -> NodeInfo:
    return node(name, networks=(trouble,), networks_since=since)


NET = group(interfaces=ON_ETH0)
TWO = group(interfaces={n: frozenset({"eth0", "eth2"}) for n in ("n1", "n2")}, lost_networks=LostNetworks.ALL)

SITUATIONS = {
    "link lost, the other node has one": (NET, [troubled("n1", LINK), node("n2")], Situation.CUT_OFF),
    "link lost a moment ago": (NET, [troubled("n1", LINK, NOW - 0.01), node("n2")], Situation.SERVING),
    "link lost on both nodes": (NET, [troubled("n1", LINK), troubled("n2", LINK)], Situation.SERVING),
    "link lost, the other node lacks a gateway": (
        NET, [troubled("n1", LINK), troubled("n2", NO_GATEWAY)], Situation.CUT_OFF,
    ),
    "link lost, the other node is unsteady": (
        NET, [troubled("n1", LINK), troubled("n2", Trouble("eth0", Fault.UNSTEADY, ""))], Situation.SERVING,
    ),
    "link lost that no address uses": (group(), [troubled("n1", LINK), node("n2")], Situation.SERVING),
    "link lost, which moves nothing here": (
        replace(NET, lost_networks=LostNetworks.NEVER), [troubled("n1", LINK), node("n2")], Situation.SERVING,
    ),
    "one of two links lost, all must be": (TWO, [troubled("n1", LINK), node("n2")], Situation.SERVING),
    "both links lost, all must be": (
        TWO, [replace(troubled("n1", LINK), networks=(LINK, replace(LINK, interface="eth2"))), node("n2")],
        Situation.CUT_OFF,
    ),
    "gateway lost": (NET, [troubled("n1", NO_GATEWAY), node("n2")], Situation.NO_GATEWAY),
    "gateway lost that is not needed": (
        replace(NET, needs_gateway=False), [troubled("n1", NO_GATEWAY), node("n2")], Situation.SERVING,
    ),
    "unsteady": (NET, [troubled("n1", Trouble("eth0", Fault.UNSTEADY, "")), node("n2")], Situation.SERVING),
    "lost counts before cut off": (NET, [replace(troubled("n1", LINK), confirmed=None), node("n2")], Situation.LOST),
    "serving": (group(), [node("n1")], Situation.SERVING),
    "nobody": (group(assignment=Assignment()), [node("n1")], Situation.NOBODY),
    "silent": (group(), [node("n1", heard=NOW - 2, confirmed=NOW - 2)], Situation.LOST),
    "deaf": (group(), [node("n1", confirmed=NOW - 2)], Situation.LOST),
    "released": (group(), [node("n1", released={"web": 3})], Situation.GAVE_UP),
    "released an older epoch": (group(), [node("n1", released={"web": 2})], Situation.SERVING),
    "drained": (group(), [node("n1", drained=True)], Situation.LEAVING),
    "shutting down": (group(), [node("n1", shutdown_boot_id="b")], Situation.LEAVING),
    "no candidate any more": (group(candidates=(Candidate("n2"),)), [node("n1")], Situation.LEAVING),
    "no member any more": (group(), [node("n2")], Situation.LEAVING),
    "failed": (group(resources=(FAILED,)), [node("n1")], Situation.FAILED),
    "failed at an older epoch": (group(resources=(replace(FAILED, epoch=2),)), [node("n1")], Situation.SERVING),
    "failed in an older attempt": (group(resources=(FAILED,), attempt_version=8), [node("n1")], Situation.SERVING),
    "an optional resource failed": (group(resources=(replace(FAILED, vital=False),)), [node("n1")], Situation.SERVING),
    "failed while being deleted": (group(resources=(replace(FAILED, deleting=True),)), [node("n1")], Situation.SERVING),
    "disk full, the other node is well": (
        group(), [node("n1", disk_failed=True), node("n2")], Situation.NO_DISK,
    ),
    "disk full everywhere": (group(), [node("n1", disk_failed=True), node("n2", disk_failed=True)], Situation.SERVING),
    "disk full, the other node waits for a gate": (
        group(closed={"n2": "gate replica: 3"}), [node("n1", disk_failed=True), node("n2")], Situation.SERVING,
    ),
    "lost counts before drained": (group(), [node("n1", drained=True, confirmed=None, heard=None)], Situation.LOST),
    "deleting counts before lost": (group(deleting=True), [node("n1", confirmed=None)], Situation.DELETING),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_situation_is_recognised(name: str) -> None:
    seen, nodes, expected = SITUATIONS[name]
    assert situation_of(seen, view(*nodes), NOW)[0] is expected
