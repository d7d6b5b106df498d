"""What monitors that have failed do to a group."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hasys.model.timing import PROFILES
from hasys.model.view import (
    Assignment,
    Candidate,
    Failure,
    Finding,
    GroupInfo,
    MonitorAction,
    NodeInfo,
    Phase,
    ResourceInfo,
    ResourceState,
    View,
)
from hasys.placement import choice
from hasys.placement.decide import decide
from hasys.placement.effects import Decision, SetAssignment, SetFailure, SetPaused, SetPhase
from hasys.placement.redundancy import why_alone

NOW = 100.0
APP = ResourceInfo("Application", "app", "n1", 3, ResourceState.RUNNING)
BUSY = Finding("busy", "n1", MonitorAction.FAILOVER, "processor use is at or over 90 %", epoch=3, since=NOW)
GATEWAY = Finding("gateway", "n1", MonitorAction.FAILOVER, "no answer", since=NOW - 1, patience=8.0)


def view(*findings: Finding, **changes: object) -> View:
    """Group web runs on n1; n2 could take it."""
    nodes = [
        NodeInfo(n, heard=NOW, confirmed=NOW, armed=True, agent_alive=True, boot_id="b") for n in ("n1", "n2")
    ]  # fmt: skip
    web = GroupInfo(
        "web",
        (Candidate("n1", 100), Candidate("n2", 50)),
        assignment=Assignment("n1", 3),
        phase=Phase.RUNNING,
        resources=(APP,),
        may_hold=frozenset({"n1"}),
        findings=findings,
    )
    web = replace(web, **changes)  # type: ignore[arg-type]
    whole = View(PROFILES["default"], leader_since=0.0, silent_since=0.0, groups={"web": web})
    return replace(whole, nodes={n.name: n for n in nodes})


def moved(decision: Decision) -> list[str]:
    return [e.assignment.node for e in decision.effects if isinstance(e, SetAssignment)]


def phases(decision: Decision) -> list[tuple[Phase, str]]:
    return [(e.phase, e.reason) for e in decision.effects if isinstance(e, SetPhase)]


def test_a_failover_monitor_of_the_active_moves_the_group_in_order_and_counts_against_the_node() -> None:
    decision = decide(view(BUSY), NOW)
    (assigned,) = [e.assignment for e in decision.effects if isinstance(e, SetAssignment)]
    assert (assigned.node, assigned.revoked) == ("n2", False)
    assert assigned.cause == "monitor busy: processor use is at or over 90 %"
    assert [e.node for e in decision.effects if isinstance(e, SetFailure)] == ["n1"]


@pytest.mark.parametrize("finding", [replace(BUSY, epoch=2), replace(BUSY, node="n2"), replace(GATEWAY, node="n2")])
def test_what_was_found_under_another_epoch_or_on_another_node_moves_nothing(finding: Finding) -> None:
    assert moved(decide(view(finding), NOW)) == []


def test_each_node_is_tried_once_and_then_the_group_stays_degraded_with_the_reason() -> None:
    decision = decide(view(BUSY, failures={"n2": Failure(2, "the same")}), NOW)
    assert moved(decision) == []
    reason = "monitor busy: processor use is at or over 90 %; no other node is better"
    assert phases(decision) == [(Phase.DEGRADED, reason)]


def test_others_get_time_to_find_the_same_and_what_all_have_lost_moves_nothing() -> None:
    waiting = decide(view(GATEWAY), NOW)
    assert moved(waiting) == []
    assert waiting.next_look is not None
    assert NOW < waiting.next_look <= NOW + 7.0
    assert phases(waiting) == [(Phase.DEGRADED, "monitor gateway: no answer")]
    late = replace(GATEWAY, since=NOW - 8.0)
    assert moved(decide(view(late), NOW)) == ["n2"]
    assert moved(decide(view(late, replace(late, node="n2")), NOW)) == []


@pytest.mark.parametrize(
    ("changes", "hint"), [({"manual": True}, "failover is Manual"), ({"paused": True}, "it is paused")]
)
def test_without_automatic_failover_it_stays_and_says_so(changes: dict[str, object], hint: str) -> None:
    decision = decide(view(BUSY, **changes), NOW)
    assert moved(decision) == []
    ((phase, reason),) = phases(decision)
    assert phase is Phase.DEGRADED
    assert hint in reason


def test_a_stop_monitor_stops_the_group_and_pauses_it() -> None:
    decision = decide(view(replace(BUSY, action=MonitorAction.STOP)), NOW)
    assert moved(decision) == [""]
    assert [e.paused for e in decision.effects if isinstance(e, SetPaused)] == [True]


def test_a_stopped_group_says_which_monitor_stopped_it() -> None:
    stopped = view(
        assignment=Assignment("", 4, cause="monitor halt: no"), paused=True, may_hold=frozenset(), resources=()
    )
    ((phase, reason),) = phases(decide(stopped, NOW))
    assert phase is Phase.STOPPED
    assert reason.endswith("; monitor halt: no")


def test_an_alert_moves_nothing_and_changes_no_phase() -> None:
    decision = decide(view(replace(BUSY, action=MonitorAction.ALERT)), NOW)
    assert moved(decision) == []
    assert phases(decision) == []


def test_a_node_against_which_a_monitor_speaks_is_taken_last_and_is_no_redundancy() -> None:
    against = replace(GATEWAY, node="n2", patience=0.0)
    picture = view(against)
    group = picture.groups["web"]
    assert choice.best(group, picture, NOW, without=["n1"]) == "n2"  # better than nothing
    assert why_alone(group, picture, NOW, quorum_without=True)
    assert not why_alone(view().groups["web"], view(), NOW, quorum_without=True)
    free = view(replace(GATEWAY, patience=0.0), assignment=Assignment(), may_hold=frozenset())
    assert choice.best(free.groups["web"], free, NOW) == "n2"


def test_a_resource_that_failed_counts_before_a_monitor() -> None:
    failed = replace(APP, state=ResourceState.FAILED, message="exit status 1")
    decision = decide(view(BUSY, resources=(failed,)), NOW)
    (assigned,) = [e.assignment for e in decision.effects if isinstance(e, SetAssignment)]
    assert assigned.cause == "app failed on n1: exit status 1"
