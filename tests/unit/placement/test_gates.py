"""A15: what a closed gate holds up, and what not."""

from __future__ import annotations

from dataclasses import replace

from hasys.model.timing import PROFILES
from hasys.model.view import Assignment, Candidate, GroupInfo, NodeInfo, View
from hasys.placement import choice
from hasys.placement.redundancy import why_alone

NOW = 100.0
WEB = GroupInfo(
    "web", (Candidate("n1", 100), Candidate("n2", 50)), assignment=Assignment("n1", 3), closed={"n2": "gate replica: 3"}
)


def view(group: GroupInfo) -> View:
    nodes = [NodeInfo(n, heard=NOW, confirmed=NOW, armed=True, agent_alive=True, boot_id="b") for n in ("n1", "n2")]
    whole = View(PROFILES["default"], leader_since=0.0, silent_since=0.0, groups={group.name: group})
    return replace(whole, nodes={n.name: n for n in nodes})


def test_a_node_behind_a_closed_gate_is_not_taken_and_the_group_not_redundant() -> None:
    seen = view(WEB)
    assert choice.able(WEB, seen, NOW) == ["n1"]
    assert choice.obstacles(WEB, seen, NOW, without=["n1"]) == "n2: gate replica: 3"
    assert why_alone(WEB, seen, NOW, quorum_without=True)


def test_a_group_that_never_ran_starts_though_no_gate_is_open() -> None:
    new = replace(WEB, assignment=Assignment(), closed={"n1": "gate replica: 0", "n2": "gate replica: 0"})
    assert choice.able(new, view(new), NOW) == ["n1", "n2"]


def test_a_stopped_group_remembers_where_it_was_until_it_is_somewhere_else() -> None:
    stopped = WEB.assignment.moved("", "it was shut down", revoke=False).let_go(frozenset())
    assert (stopped.node, stopped.last) == ("", "n1")
    again = stopped.moved("", "deleted", revoke=True)
    assert again.last == "n1"
    group = replace(WEB, assignment=stopped, closed={"n1": "gate replica: idle", "n2": "gate replica: 3"})
    assert choice.able(group, view(group), NOW) == ["n1"]
    assert stopped.moved("n2", "forced", revoke=True).last == "n2"
