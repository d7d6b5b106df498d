"""A17, A30: when a node counts as lost, and when a group would not survive that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hasys.model.timing import PROFILES
from hasys.model.view import Assignment, Candidate, GroupInfo, NodeInfo, NodeState, Phase, Role, View
from hasys.placement.decide import decide
from hasys.placement.effects import Decision, Record, SetAlone
from hasys.placement.redundancy import STEADY, why_alone
from hasys.placement.standing import standing

WEB = GroupInfo("web", (Candidate("n1", 100), Candidate("n2", 50)), assignment=Assignment("n1", 3))


def view(profile: str, *nodes: NodeInfo) -> View:
    return View(PROFILES[profile], leader_since=0.0, silent_since=0.0, nodes={n.name: n for n in nodes})


def node(name: str, heard: float) -> NodeInfo:
    return NodeInfo(name, heard=heard, confirmed=heard, armed=True, agent_alive=True, boot_id="b")


@pytest.mark.parametrize("profile", PROFILES)
def test_a17_a_node_is_lost_after_the_suspicion_time_of_the_profile_and_not_before(profile: str) -> None:
    suspicion = PROFILES[profile].suspicion
    seen = view(profile, node("n1", 100.0))
    assert standing(seen.nodes["n1"], 100.0 + suspicion - 0.001, seen).ready
    assert standing(seen.nodes["n1"], 100.0 + suspicion, seen).lost


def test_a17_profiles_differ_in_how_soon_a_node_is_lost() -> None:
    assert PROFILES["fast"].suspicion < PROFILES["default"].suspicion < PROFILES["wan"].suspicion


@pytest.mark.parametrize(
    ("other", "quorum", "survives"),
    [(node("n2", 100.0), True, True), (node("n2", 50.0), True, False), (node("n2", 100.0), False, False)],
)
def test_a30_a_group_is_redundant_while_another_node_could_take_it_with_a_majority(
    other: NodeInfo, quorum: bool, survives: bool
) -> None:
    seen = view("default", node("n1", 100.0), other)
    assert (why_alone(WEB, seen, 100.0, quorum_without=quorum) == "") is survives


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (node("n2", 100.0), ""),
        (replace(node("n2", 100.0), message="the arbiter's disk cannot be read"), "the arbiter's disk cannot be read"),
        (replace(node("n2", 100.0), agent_alive=False), "NotReady, its agent does not run"),
    ],
)
def test_a30_of_two_nodes_the_other_is_a_spare_where_it_takes_over_by_itself(other: NodeInfo, why: str) -> None:
    safe = replace(view("default", node("n1", 100.0), other), by_tokens=True)
    assert why_alone(WEB, safe, 100.0, quorum_without=False)
    seen = replace(safe, taking_over=True)
    assert why_alone(WEB, seen, 100.0, quorum_without=False) == (f"n2: {why}" if why else "")


def test_a30_a_group_that_serves_alone_is_told_of_with_the_reason_once_that_has_lasted() -> None:
    soon, then = SINCE + STEADY - 0.01, SINCE + STEADY
    assert told(decide(serving(soon, without_agent(soon)), soon)) == []
    assert decide(serving(soon, without_agent(soon)), soon).next_look == pytest.approx(then)
    decision = decide(serving(then, without_agent(then)), then)
    assert told(decision) == ["web runs on n1 alone: n2: NotReady, its agent does not run"]
    assert SetAlone("web", "n2: NotReady, its agent does not run") in decision.effects


def test_a30_a_store_that_is_away_for_a_moment_is_not_told_of() -> None:
    soon, then = SINCE + STEADY - 0.01, SINCE + STEADY
    witness = NodeInfo("w", Role.WITNESS, connected=False, connected_since=SINCE, last_state=NodeState.LOST)
    assert told(decide(serving(soon, well("n2", soon), witness), soon)) == []
    why = "without n1 there would be no majority: w not reached"
    assert told(decide(serving(then, well("n2", then), witness), then)) == [f"web runs on n1 alone: {why}"]


def test_a30_an_observer_that_comes_and_goes_holds_back_the_alert_of_no_other_group() -> None:
    then = SINCE + STEADY
    restless = NodeInfo("o", Role.OBSERVER, last_state=NodeState.LOST, state_since=then - 0.5, connected_since=then)
    assert told(decide(serving(then, without_agent(then), restless), then)) != []


@pytest.mark.parametrize(
    "change",
    [
        {"by_tokens": True},
        {"groups": {"web": replace(WEB, phase=Phase.FAILING_OVER)}},
        {"groups": {"web": replace(WEB, candidates=WEB.candidates[:1], phase=Phase.RUNNING)}},
        {"groups": {"web": replace(WEB, phase=Phase.RUNNING, alone="told")}},
    ],
    ids=["two nodes alone", "does not serve", "never had another node", "told"],
)
def test_a30_no_alert_where_no_redundancy_was_lost_or_all_is_told(change: dict[str, object]) -> None:
    seen = serving(200.0, without_agent(200.0))
    assert told(decide(seen, 200.0)) != []
    assert told(decide(replace(seen, **change), 200.0)) == []  # type: ignore[arg-type]


SINCE = 97.0


def well(name: str, heard: float) -> NodeInfo:
    return replace(node(name, heard), last_state=NodeState.READY)


def without_agent(heard: float) -> NodeInfo:
    return replace(node("n2", heard), agent_alive=False, last_state=NodeState.NOT_READY, state_since=SINCE)


def serving(now: float, *others: NodeInfo) -> View:
    """Group web runs on n1 since long ago."""
    seen = view("default", well("n1", now), *others)
    return replace(seen, groups={"web": replace(WEB, phase=Phase.RUNNING)})


def told(decision: Decision) -> list[str]:
    return [e.message for e in decision.effects if isinstance(e, Record) and e.reason.startswith("Redundancy")]
