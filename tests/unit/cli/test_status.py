"""``hasys status``: JSON exactly as the contract shows it, and pages that people can read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from hasys.cli.output import taken
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake import FakeCluster, contract_view

CONTRACT = """
{"cluster": {"name": "demo", "leader": "n1", "term": 4, "quorum": true, "voters": 3, "profile": "default",
             "failoverBound": "1.4s"},
 "nodes": [{"name": "n1", "role": "Voter", "state": "Ready", "lease": {"valid": true, "epoch": 3}, "version": "0.1.0",
            "guard": {"armed": true, "watchdog": "none"}}],
 "groups": [{"name": "web", "mode": "Mirror", "failoverMode": "Auto", "active": "n1", "epoch": 2, "phase": "Running",
             "failoverBound": "1.4s", "redundant": true, "reason": "", "nodes": {"n1": "Active", "n2": "Standby"},
             "resources": [{"kind": "VirtualIP", "name": "web-ip", "node": "n1", "state": "Running", "message": ""}]}]}
"""


def _contains(whole: Any, part: Any) -> bool:
    """Every field of the contract is there with its value; additions are free."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and _contains(whole[k], v) for k, v in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(_contains, whole, part))
    return type(whole) is type(part) and bool(whole == part)


def test_json_is_as_the_contract_shows_it(hasys: Run, cluster: FakeCluster) -> None:
    cluster.view = contract_view()
    result = hasys("status", "-o", "json")
    assert result.exit_code == 0
    assert _contains(json.loads(result.stdout), json.loads(CONTRACT)), result.stdout


def test_the_page_names_what_matters_and_has_no_control_characters_in_a_pipe(hasys: Run, cluster: FakeCluster) -> None:
    cluster.view = contract_view()
    page = hasys("status").stdout
    for text in ("cluster demo", "leader n1 (term 4)", "quorum", "failover within 1.4s", "n1", "Ready", "armed",
                 "web", "Running", "VirtualIP/web-ip"):  # fmt: skip
        assert text in page
    assert "\x1b" not in page
    assert all(line == line.rstrip() for line in page.splitlines())


def test_the_policy_of_two_nodes_is_shown(hasys: Run, cluster: FakeCluster) -> None:
    cluster.view = contract_view()
    cluster.view.cluster.policy = "safe"
    assert json.loads(hasys("status", "-o", "json").stdout)["cluster"]["policy"] == "safe"
    assert "policy safe" in hasys("status").stdout
    cluster.view.cluster.quorum = False
    assert "nodes keep what they hold" in hasys("status").stdout


def test_lost_safety_and_redundancy_are_said_in_words(hasys: Run, cluster: FakeCluster) -> None:
    cluster.view = contract_view()
    cluster.view.cluster.quorum = False
    cluster.view.nodes[0].guard.armed = False
    cluster.view.groups[0].redundant = False
    cluster.view.groups[0].reason = "n2 is lost"
    page = hasys("status").stdout
    for text in ("no quorum", "guard must run", "not redundant", "n2 is lost"):
        assert text in page


def test_one_group_that_does_not_exist_is_refused(hasys: Run, cluster: FakeCluster) -> None:
    cluster.view = contract_view()
    result = hasys("status", "mail")
    assert result.exit_code == 1
    assert result.stderr == "hasys: Group/mail: no such group\n"


def test_an_empty_cluster_says_what_to_do_next(hasys: Run, cluster: FakeCluster) -> None:
    assert "hasys apply -f FILE" in hasys("status").stdout


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, ""), (420, "0s"), (35_081_170, "35ms"), (1_499_600_000, "1.5s"), (250_400, "0.25ms"), (61 * 10**9, "61s")],
)
def test_times_taken_are_rounded_for_people(nanoseconds: int, text: str) -> None:
    span = Duration()
    span.FromNanoseconds(nanoseconds)
    assert taken(span) == text


def test_watching_json_is_one_object_per_line(hasys: Run, cluster: FakeCluster) -> None:
    cluster.view = contract_view()
    lines = hasys("status", "-w", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["cluster"]["name"] for line in lines] == ["demo"]


def test_watching_json_is_silent_while_only_time_passes(hasys: Run, cluster: FakeCluster) -> None:
    later, changed = contract_view(), contract_view()
    later.cluster.time.seconds = 1
    later.nodes[0].figures.cpu = 50.0  # lives; it is shown with the next change
    changed.groups[0].phase = "Degraded"
    cluster.view, cluster.later = contract_view(), [later, changed]
    lines = hasys("status", "-w", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["groups"][0]["phase"] for line in lines] == ["Running", "Degraded"]


def test_monitors_stand_below_their_group_and_figures_beside_their_node(hasys: Run, cluster: FakeCluster) -> None:
    cluster.view = contract_view()
    cluster.view.groups[0].monitors.add(name="page", watches="http", node="n1", state="Failed", message="status 404")
    cluster.view.nodes[0].figures.cpu = 51.26
    cluster.view.nodes[0].figures.own.add(role="guard", pid=7, restarts=1, memory=4096)
    page = hasys("status").stdout
    assert "Monitor/page" in page
    assert "status 404" in page
    told = json.loads(hasys("status", "-o", "json").stdout)
    assert told["nodes"][0]["figures"]["cpu"] == 51.3
    assert told["nodes"][0]["figures"]["own"] == [
        {"role": "guard", "pid": 7, "uptime": "0s", "restarts": 1, "memory": 4096}
    ]
    assert told["groups"][0]["monitors"] == [
        {"name": "page", "watches": "http", "node": "n1", "state": "Failed", "message": "status 404", "action": ""}
    ]


def test_watching_in_a_pipe_is_one_line_per_change(hasys: Run, cluster: FakeCluster) -> None:
    cluster.view = contract_view()
    assert hasys("status", "-w").stdout == "leader=n1 n1=Ready web=Running@n1\n"


def test_a_program_may_ask_for_a_sign_of_life_and_nobody_else(cluster: FakeCluster, hasys: Run) -> None:
    cluster.view, cluster.later = contract_view(), [contract_view()]
    assert len(hasys("status", "-w", "-o", "json", "--repeat").stdout.splitlines()) == 2
    refused = hasys("status", "--repeat")
    assert (refused.exit_code, "--repeat is for -w -o json" in refused.stderr) == (2, True)


def test_without_a_leader_nothing_is_said_that_this_member_cannot_know(hasys: Run, cluster: FakeCluster) -> None:
    cluster.view = contract_view()
    cluster.view.cluster.quorum = False
    cluster.view.cluster.leader = ""
    cluster.view.cluster.ClearField("failover_bound")
    cluster.view.groups[0].ClearField("failover_bound")
    cluster.view.nodes[0].guard.armed = False
    page = hasys("status").stdout
    assert "no quorum" in page
    assert "guard must run" not in page
    assert "0s" not in page
    shown = json.loads(hasys("status", "-o", "json").stdout)
    assert (shown["cluster"]["failoverBound"], shown["groups"][0]["failoverBound"]) == ("", "")
