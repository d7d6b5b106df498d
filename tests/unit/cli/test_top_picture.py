"""``hasys top`` apart from its widgets: which lines, which words, which questions."""

from __future__ import annotations

import pytest

from hasys.api.kinds import wrap
from hasys.cli.top.details import details
from hasys.cli.top.offers import COMMANDS, Offer, offer
from hasys.cli.top.picture import EVENTS_KEPT, Picture, Subject, headline, rows
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb
from tests.unit.cli.fake import web_group, web_ip
from tests.unit.cli.topped import cluster, event, view, web_app

T = pb.OperationSpec
WEB = Subject("groups", "web")


def _told(*messages: pb.Group | pb.VirtualIP | pb.Application | pb.Event, gone: bool = False) -> list[api.Change]:
    kind = api.WatchResponse.DELETED if gone else api.WatchResponse.ADDED
    return [api.Change(type=kind, object=wrap(message)) for message in messages]


def picture() -> Picture:
    """What a watch of the example tells."""
    added = [api.Change(type=api.WatchResponse.ADDED, object=obj) for obj in cluster().objects.values()]
    return Picture().with_status(view()).with_changes(added)


def test_each_table_has_its_lines() -> None:
    seen = picture()
    assert [row.cells for row in rows(seen, "groups")] == [
        ("web", "Running", "n1", "n2", "Auto", "web-app Failed"),
    ]
    assert [row.cells[:4] for row in rows(seen, "nodes")] == [
        ("n1", "Voter", "Ready", "epoch 3"), ("n2", "Voter", "Ready", "none"), ("w", "Witness", "Ready", "-"),
    ]  # fmt: skip
    assert [row.cells for row in rows(seen, "monitors")] == [("web/page", "Ok", "http", "n1", "200")]
    assert [row.cells[1] for row in rows(seen, "events")] == ["GroupRunning", "GroupAssigned"]


def test_a_failing_monitor_and_lost_redundancy_stand_in_the_line_of_the_group() -> None:
    status = view()
    status.groups[0].monitors[0].state = "Failed"
    status.groups[0].redundant = False
    status.groups[0].reason = "n2 is lost"
    [row] = rows(Picture(status), "groups")
    assert row.cells[-1] == "n2 is lost; web-app Failed; page Failed; not redundant"


def test_a_guard_that_is_not_heard_is_said_when_a_leader_could_hear_it() -> None:
    status = view()
    status.nodes[1].guard.armed = False
    assert rows(Picture(status), "nodes")[1].cells[-1] == "guard must run"
    status.cluster.leader = ""
    assert rows(Picture(status), "nodes")[1].cells[-1] == ""


@pytest.mark.parametrize(
    ("words", "names"), [("", ["n1", "n2", "w"]), ("n2", ["n2"]), ("voter READY", ["n1", "n2"]), ("voter lost", [])]
)
def test_the_filter_wants_every_word_whatever_the_case(words: str, names: list[str]) -> None:
    assert [row.key for row in rows(picture(), "nodes", words)] == names


def test_what_is_deleted_is_gone_and_old_events_are_forgotten() -> None:
    seen = picture().with_changes(_told(web_app(), event(1, "GroupAssigned", ""), gone=True))
    assert {ref.name for ref in seen.objects} == {"web", "web-ip"}
    assert [e.metadata.name for e in seen.events] == ["e2"]
    many = seen.with_changes(_told(*(event(n, "GroupRunning", "") for n in range(10, 10 + 2 * EVENTS_KEPT))))
    assert len(many.events) == EVENTS_KEPT
    assert many.events[-1].metadata.name == f"e{9 + 2 * EVENTS_KEPT}"


def test_the_headline_says_who_leads_what_is_missing_and_since_when_nobody_answers() -> None:
    seen = picture()
    assert headline(seen, 1.0) == "demo  leader n1 (term 4)  quorum  3 voters  profile default"
    assert headline(seen, 10.0).startswith("demo: no server has answered for 10 s; trying on")
    status = view()
    status.cluster.quorum = False
    assert headline(Picture(status), 1.0) == "demo: no quorum: nothing can be changed, leases are not renewed"
    status.cluster.policy = "safe"
    assert headline(Picture(status), 1.0) == "demo: no quorum: nothing can be changed, nodes keep what they hold"


def test_the_page_of_a_group_has_flow_exit_codes_output_and_why_it_waits() -> None:
    status = view()
    status.groups[0].phase, status.groups[0].reason = "Degraded", "web-app failed"
    page = details(picture().with_status(status), WEB).splitlines()
    assert page[0] == "group web: Degraded on n1 (epoch 2)"
    assert "why: web-app failed" in page
    assert any(line.startswith("last move: preferred node") for line in page)
    assert "  VirtualIP/web-ip     Running  n1    -       -" in page
    assert "  Application/web-app  Failed   n1    web-ip  3     it ended" in page
    assert page[page.index("  Application/web-app  Failed   n1    web-ip  3     it ended") + 2] == "    | no such page"
    assert "  page  Ok  http  n1  200" in page
    assert page[-1] == "  08:00:01  GroupAssigned  n1  web goes to n1: preferred node"


def test_the_page_of_a_group_names_the_nodes_that_could_not_run_it() -> None:
    group = web_group()
    group.status.failures["n2"].count, group.status.failures["n2"].message = 2, "web-app failed: no such file"
    group.status.failures["n2"].time.seconds = 1_800_000_000
    page = details(picture().with_changes(_told(group)), WEB)
    assert "  n2 could not run it (2x, 2027-01-15T08:00:00.000Z): web-app failed: no such file" in page


def test_a_flow_that_is_half_told_is_shown_all_the_same() -> None:
    address = web_ip()
    address.spec.after.append("web-app")
    assert "VirtualIP/web-ip" in details(picture().with_changes(_told(address)), WEB)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (
            Subject("nodes", "n1"),
            ["node n1: Voter, Ready", "lease valid, epoch 3; guard", "groups: web (Active)"],
        ),
        (Subject("monitors", "web/page"), ["monitor web/page: Ok on n1", "when it fails: Failover", "says: 200"]),
        (Subject("events", "e2"), ["GroupRunning (Normal) at 2027-01-15T08:00:02.000Z", "web runs on n1"]),
        (Subject("groups", "mail"), ["group mail is gone"]),
        (Subject("nodes", "n9"), ["node n9 is gone"]),
        (Subject("monitors", "web/none"), ["monitor web/none is gone"]),
        (Subject("events", "e9"), ["no longer kept"]),
    ],
)
def test_every_line_has_a_page(subject: Subject, words: list[str]) -> None:
    page = details(picture(), subject)
    assert [word for word in words if word not in page] == []


@pytest.mark.parametrize(
    ("key", "subject", "specs"),
    [
        ("s", WEB, [T(type=T.Switchover, group="web"), T(type=T.Switchover, group="web", node="n2")]),
        ("f", WEB, [T(type=T.Failover, group="web", node="n2", force=True)]),
        ("p", WEB, [T(type=T.Pause, group="web")]),
        ("r", WEB, [T(type=T.Retry, group="web"), T(type=T.Retry, group="web", step="web-app")]),
        ("d", Subject("nodes", "n1"), [T(type=T.Drain, node="n1")]),
        ("c", Subject("nodes", "n1"), [T(type=T.FenceConfirm, node="n1")]),
    ],
)
def test_each_key_asks_for_its_operation(key: str, subject: Subject, specs: list[pb.OperationSpec]) -> None:
    made = offer(picture(), key, subject)
    assert isinstance(made, Offer)
    assert [choice.spec for choice in made.choices] == specs


def test_a_key_undoes_what_it_did() -> None:
    status = view()
    status.groups[0].paused, status.nodes[0].state = True, "Drained"
    seen = Picture(status)
    resumed, undrained = offer(seen, "p", WEB), offer(seen, "d", Subject("nodes", "n1"))
    assert isinstance(resumed, Offer)
    assert isinstance(undrained, Offer)
    assert [resumed.choices[0].spec, undrained.choices[0].spec] == [
        T(type=T.Resume, group="web"), T(type=T.Undrain, node="n1"),
    ]  # fmt: skip


def test_the_processes_of_a_node_are_shown_and_can_be_restarted() -> None:
    status = view()
    own = status.nodes[0].figures.own
    own.add(role="supervisor", pid=1)
    own.add(role="guard", pid=4711, restarts=2, memory=30 << 20).uptime.FromSeconds(75)
    seen = picture().with_status(status)
    page = details(seen, Subject("nodes", "n1")).splitlines()
    assert "  guard       4711  75s     2         30 MiB" in page
    made = offer(seen, "k", Subject("nodes", "n1"))
    assert isinstance(made, Offer)
    assert [choice.spec for choice in made.choices] == [T(type=T.RestartProcess, node="n1", role="guard")]
    assert isinstance(offer(seen, "k", Subject("nodes", "w")), str)


def test_what_could_destroy_data_is_warned_of_and_confirmed_by_a_typed_name() -> None:
    forced, sworn = offer(picture(), "f", WEB), offer(picture(), "c", Subject("nodes", "n2"))
    assert isinstance(forced, Offer)
    assert isinstance(sworn, Offer)
    assert (forced.typed, sworn.typed) == ("web", "n2")
    assert "conditions are skipped" in forced.warning
    assert "two nodes serve the same address" in sworn.warning


def test_a_node_that_is_not_ready_is_the_last_choice() -> None:
    status = view()
    status.groups[0].nodes["n3"] = "Standby"
    status.nodes[1].state = "Lost"
    status.nodes.add(name="n3", role="Voter", state="Ready")
    made = offer(Picture(status), "f", WEB)
    assert isinstance(made, Offer)
    assert [choice.label for choice in made.choices] == ["n3", "n2"]


@pytest.mark.parametrize(
    ("key", "subject"),
    [(c.key, None) for c in COMMANDS]
    + [("s", Subject("nodes", "n1")), ("d", WEB), ("d", Subject("nodes", "w")), ("s", Subject("groups", "mail"))],
)
def test_a_key_that_makes_no_sense_there_says_so(key: str, subject: Subject | None) -> None:
    assert isinstance(offer(picture(), key, subject), str)
