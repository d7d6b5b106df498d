"""What is decided about a group that a node holds by an operator's oath when the majority is back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from hasys.model.timing import PROFILES
from hasys.model.view import (
    Assignment,
    Candidate,
    GroupInfo,
    NodeInfo,
    OperationInfo,
    OperationType,
    Phase,
    ResourceInfo,
    View,
)
from hasys.placement.decide import decide
from hasys.placement.effects import FinishOperation, Record, SetAssignment, SetPhase
from hasys.placement.redundancy import why_alone
from hasys.placement.standing import first_look

TIMING = PROFILES["default"]
NOW = 100.0
IP = ResourceInfo("VirtualIP", "ip")


def view(claims: Mapping[str, int], assignment: Assignment, since: float = 0.0, deleting: bool = False) -> View:
    nodes = {
        name: NodeInfo(name, heard=NOW, confirmed=NOW, armed=True, agent_alive=True, boot_id="b")
        for name in ("n1", "n2")
    }
    web = GroupInfo(
        "web", (Candidate("n1", 100), Candidate("n2", 50)), assignment=assignment, phase=Phase.RUNNING, claims=claims,
        may_hold=frozenset(claims), deleting=deleting,
    )  # fmt: skip
    return View(TIMING, leader_since=since, silent_since=since, nodes=nodes, groups={"web": web})


def given(found: View, now: float = NOW) -> list[Assignment]:
    """What is written at last: later effects of a decision build on earlier ones."""
    return [e.assignment for e in decide(found, now).effects if isinstance(e, SetAssignment)][-1:]


def test_who_serves_on_an_oath_keeps_the_group_above_the_oaths_epoch() -> None:
    found = view({"n2": 7}, Assignment("n1", 3))
    (assignment,) = given(found)
    assert (assignment.node, assignment.epoch) == ("n2", 8)
    assert (assignment.previous_node, assignment.previous_epoch, assignment.revoked) == ("n1", 3, True)
    assert "OathAdopted" in [e.reason for e in decide(found, NOW).effects if isinstance(e, Record)]


def test_the_assigned_node_itself_gets_a_new_epoch_too() -> None:
    (assignment,) = given(view({"n1": 4}, Assignment("n1", 3)))
    assert (assignment.node, assignment.epoch) == ("n1", 5)


def test_an_oath_that_was_taken_over_already_changes_nothing() -> None:
    assert given(view({"n2": 7}, Assignment("n2", 8))) == []


def test_of_two_oaths_the_assigned_nodes_counts() -> None:
    (assignment,) = given(view({"n1": 4, "n2": 4}, Assignment("n2", 3)))
    assert assignment.node == "n2"


def shutting_down(found: View, node: str) -> View:
    """Its hand-over was begun."""
    drain = OperationInfo("drain-1", OperationType.DRAIN, node=node, reason="shutdown", running=True)
    nodes = {**found.nodes, node: replace(found.nodes[node], shutdown_boot_id="b")}
    return replace(found, nodes=nodes, operations=(drain,))


def ended(found: View, now: float = NOW) -> list[bool]:
    return [e.succeeded for e in decide(found, now).effects if isinstance(e, FinishOperation)]


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_node_that_shuts_down_meanwhile_waits_for_the_oath_to_be_taken_over_and_then_hands_the_group_over(
    node: str,
) -> None:
    before = shutting_down(view({"n2": 4}, Assignment("n1", 3), since=NOW), node)
    assert (given(before), ended(before)) == ([], [])
    heard = shutting_down(view({"n2": 4}, Assignment("n1", 3)), node)
    (adopted,) = given(heard)
    assert (adopted.node, ended(heard)) == ("n2", [])
    taking = shutting_down(view({"n2": 4}, adopted), node)
    assert all(a.node == "n2" for a in given(taking))
    assert ended(taking) == ([True] if node == "n1" else [])
    web = replace(taking.groups["web"], assignment=adopted, claims={})
    assert ("n1" in [a.node for a in given(replace(taking, groups={"web": web}))]) is (node == "n2")


def test_a_group_is_not_called_redundant_before_the_oath_is_taken_over() -> None:
    found = view({"n2": 4}, Assignment("n1", 3), since=NOW)
    assert why_alone(found.groups["web"], found, NOW, quorum_without=True)
    found = view({"n2": 4}, Assignment("n2", 5))
    assert not why_alone(found.groups["web"], found, NOW, quorum_without=True)


def test_nothing_is_decided_before_everybody_could_be_heard() -> None:
    found = view({"n2": 7}, Assignment("n1", 3), since=NOW)
    assert given(found) == []
    assert decide(found, NOW).next_look == pytest.approx(first_look(found))


@pytest.mark.parametrize("node", ["n3", "n1"])
def test_an_oath_of_a_stranger_or_for_a_deleted_group_is_not_taken_over(node: str) -> None:
    found = view({node: 7}, Assignment("n1", 3), deleting=node == "n1")
    assert all(assignment.epoch != 8 for assignment in given(found))


def test_a_silent_node_that_may_hold_it_on_an_oath_is_named_as_the_blocker() -> None:
    found = view({}, Assignment("n1", 3))
    silent = replace(found.nodes["n2"], heard=NOW - 50, confirmed=NOW - 50)
    web = replace(found.groups["web"], phase=Phase.STARTING, unheard=frozenset({"n2"}), resources=(IP,))
    found = replace(found, nodes={**found.nodes, "n2": silent}, groups={"web": web})
    (phase,) = (e for e in decide(found, NOW).effects if isinstance(e, SetPhase))
    assert phase.phase is Phase.BLOCKED
    assert "hasys fence-confirm n2" in phase.reason
    confirmed = replace(found, nodes={**found.nodes, "n2": replace(silent, fence_confirmed=True)})
    assert all(e.phase is not Phase.BLOCKED for e in decide(confirmed, NOW).effects if isinstance(e, SetPhase))
