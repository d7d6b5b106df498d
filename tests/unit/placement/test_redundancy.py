"""A17, A30: when a node counts as lost, and when a group would not survive that."""

from __future__ import annotations

import pytest

from hasys.model.timing import PROFILES
from hasys.model.view import Assignment, Candidate, GroupInfo, NodeInfo, View
from hasys.placement.roles import redundant
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
    assert redundant(WEB, seen, 100.0, quorum_without=quorum) is survives
