"""``apply``, ``get``, ``describe``, ``delete``, ``events`` and ``history`` against a cluster in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hasys.api.errors import Fault, Invalid
from hasys.api.kinds import Ref
from hasys.model.errors import Unreached
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake import FakeCluster, contract_view, gone, now, web_group, web_ip

WEB = """\
apiVersion: hasys/v1
kind: Group
metadata: {name: web}
spec: {nodes: [{name: n1, priority: 100}, {name: n2, priority: 50}]}
---
apiVersion: hasys/v1
kind: VirtualIP
metadata: {name: web-ip, group: web}
spec: {address: 10.77.0.100/24, interface: eth0}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return path


# ---------------------------------------------------------------- apply


def test_apply_prints_each_object_with_what_happened_to_it(hasys: Run, cluster: FakeCluster, manifest: Path) -> None:
    cluster.put(web_group())
    result = hasys("apply", "-f", manifest)
    assert result.stdout == "Group/web configured\nVirtualIP/web-ip created\n"
    assert result.exit_code == 0


def test_apply_reads_standard_input_folders_and_several_files_as_one(
    hasys: Run, cluster: FakeCluster, tmp_path: Path
) -> None:
    group, address = WEB.split("---\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "b.yml").write_text(address)
    (tmp_path / "site" / "notes.txt").write_text("no manifest")
    assert hasys("apply", "-f", "-", "-f", tmp_path / "site", text=group).exit_code == 0
    assert cluster.applied == [(["Group/web", "VirtualIP/web-ip"], False, False)]


def test_a_dry_run_changes_nothing_and_shows_the_difference(hasys: Run, cluster: FakeCluster, manifest: Path) -> None:
    group = web_group()
    group.spec.nodes[0].priority = 10
    cluster.put(group, web_ip())
    result = hasys("apply", "-f", manifest, "--dry-run")
    assert cluster.applied == [(["Group/web", "VirtualIP/web-ip"], True, False)]
    assert "Group/web configured (dry run)" in result.stdout
    changed = [line.strip() for line in result.stdout.splitlines() if line.strip().startswith(("+ ", "- "))]
    assert [line for line in changed if "priority" in line] == ["-    priority: 10", "+    priority: 100"]


def test_prune_is_passed_on(hasys: Run, cluster: FakeCluster, manifest: Path) -> None:
    hasys("apply", "-f", manifest, "--prune")
    assert cluster.applied[0][2] is True


def test_wait_ends_when_it_runs(hasys: Run, cluster: FakeCluster, manifest: Path) -> None:
    cluster.changes = [now(web_group()), now(web_ip())]
    assert hasys("apply", "-f", manifest, "--wait").exit_code == 0


def test_wait_that_is_too_short_is_status_4_after_the_change_was_made(
    hasys: Run, cluster: FakeCluster, manifest: Path
) -> None:
    cluster.changes = [now(web_group("Starting"))]
    result = hasys("apply", "-f", manifest, "--wait", "--timeout", "30ms")
    assert result.exit_code == 4
    assert "Group/web created" in result.stdout
    assert "Group/web is Starting" in result.stderr


def test_a_wait_in_which_no_server_is_reached_is_status_4_after_the_change_was_made(
    hasys: Run, cluster: FakeCluster, manifest: Path
) -> None:
    cluster.watch_fails = Unreached("no server reached")
    result = hasys("apply", "-f", manifest, "--wait")
    assert "Group/web created" in result.stdout
    assert (result.exit_code, result.stderr) == (
        4,
        "hasys: applied; whether it runs cannot be seen: no server reached\n",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (WEB.replace("interface", "interfaces"), "spec.interfaces: unknown field"),
        (WEB.replace("priority: 50", "priority: low"), ":4: spec.nodes[1].priority"),
        (WEB.replace("kind: Group", "kind: Pod"), ":2: kind"),
        ("", "no object"),
        ("a: [", "web.yaml:"),
    ],
)
def test_a_wrong_manifest_is_refused_with_file_line_and_field_and_nothing_is_sent(
    hasys: Run, cluster: FakeCluster, manifest: Path, text: str, says: str
) -> None:
    manifest.write_text(text)
    result = hasys("apply", "-f", manifest)
    assert result.exit_code == 1
    assert says in result.stderr
    assert str(manifest) in result.stderr
    assert cluster.applied == []


def test_a_fault_that_the_server_finds_is_told_with_file_and_line_too(
    hasys: Run, cluster: FakeCluster, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> api.ApplyResponse:
        raise Invalid([Fault(Ref("Group", "", "web"), "spec.nodes[1].name", "no node n2: use n1 or n3")])

    monkeypatch.setattr(cluster, "apply", refuse)
    result = hasys("apply", "-f", manifest)
    assert result.exit_code == 1
    assert result.stderr == f"hasys: {manifest}:4: spec.nodes[1].name: no node n2: use n1 or n3\n"


def test_what_cannot_be_read_is_one_clear_line(hasys: Run, cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"kind: Group\nname: \xe9\n")
    for name, says in (("missing.yaml", "No such file"), ("empty", "no manifest"), ("latin.yaml", ":2: not UTF-8")):
        result = hasys("apply", "-f", tmp_path / name)
        assert result.exit_code == 1
        assert says in result.stderr
        assert result.stderr.count("\n") == 1


# ---------------------------------------------------------------- get and describe


def test_get_prints_plain_columns(hasys: Run, cluster: FakeCluster) -> None:
    cluster.put(web_group(), web_ip())
    heading, row = hasys("get", "vip").stdout.splitlines()
    assert heading.split() == ["GROUP", "NAME", "ADDRESS", "INTERFACE", "NODE", "STATE", "AGE"]
    assert row.split() == ["web", "web-ip", "10.77.0.100/24", "eth0", "n1", "Running", "-"]


@pytest.mark.parametrize("words", ["vip web-ip", "VirtualIP web-ip", "virtualips/web-ip", "vip/web-ip -g web"])
def test_kinds_and_names_may_be_spelled_as_kubectl_users_do(hasys: Run, cluster: FakeCluster, words: str) -> None:
    cluster.put(web_ip())
    assert "10.77.0.100/24" in hasys("get", *words.split()).stdout


def test_json_of_one_object_and_of_a_list(hasys: Run, cluster: FakeCluster) -> None:
    cluster.put(web_group(), web_ip())
    one = json.loads(hasys("get", "group", "web", "-o", "json").stdout)
    assert (one["apiVersion"], one["kind"], one["metadata"]["name"]) == ("hasys/v1", "Group", "web")
    assert [node["priority"] for node in one["spec"]["nodes"]] == [100, 50]
    many = json.loads(hasys("get", "all", "-o", "json").stdout)
    assert [item["kind"] for item in many["items"]] == ["Group", "VirtualIP"]


def test_yaml_can_be_applied_again(hasys: Run, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.put(web_group(), web_ip())
    path = tmp_path / "out.yaml"
    path.write_text(hasys("get", "all", "-o", "yaml").stdout)
    assert len(list(yaml.safe_load_all(path.read_text()))) == 2
    assert hasys("apply", "-f", path).exit_code == 0


def test_one_that_is_not_there_is_status_1_and_an_empty_list_is_not(hasys: Run, cluster: FakeCluster) -> None:
    missing = hasys("get", "group", "mail")
    assert missing.exit_code == 1
    assert "Group/mail" in missing.stderr
    empty = hasys("get", "groups")
    assert (empty.exit_code, empty.stdout) == (0, "")


def test_a_name_in_two_groups_must_be_told_apart(hasys: Run, cluster: FakeCluster) -> None:
    other = web_ip()
    other.metadata.group = "mail"
    cluster.put(web_ip(), other)
    result = hasys("get", "vip", "web-ip")
    assert result.exit_code == 1
    assert "groups mail, web: say which with -g" in result.stderr
    assert hasys("get", "vip", "web-ip", "-g", "mail").exit_code == 0


def test_watching_prints_what_there_is_once_and_then_changes(hasys: Run, cluster: FakeCluster) -> None:
    cluster.put(web_ip())
    failed = web_ip("Failed")
    failed.metadata.resource_version = 9
    cluster.changes, cluster.ends_watch = [now(failed), gone(failed)], True
    lines = hasys("get", "vip", "-w").stdout.splitlines()
    assert len(lines) == 4
    assert "Running" in lines[1]
    assert "Failed" in lines[2]
    assert "deleted" in lines[3]


def test_describe_shows_defaults_state_and_events(hasys: Run, cluster: FakeCluster) -> None:
    cluster.put(
        web_ip(), _event("DriftRepaired", Ref("VirtualIP", "web", "web-ip")), _event("Other", Ref("Group", "", "x"))
    )
    page = hasys("describe", "vip", "web-ip").stdout
    assert "address: 10.77.0.100/24" in page
    assert "state: Running" in page
    assert "DriftRepaired" in page
    assert "Other" not in page


def test_describe_of_a_node_shows_its_own_processes(hasys: Run, cluster: FakeCluster) -> None:
    node = pb.Node()
    node.metadata.name = "n1"
    cluster.put(node)
    cluster.view = contract_view()
    own = cluster.view.nodes[0].figures.own
    own.add(role="guard", pid=4711, restarts=2, memory=30 << 20).uptime.FromSeconds(75)
    own.add(role="store")
    page = [line.split() for line in hasys("describe", "node", "n1").stdout.splitlines()]
    assert ["PROCESS", "PID", "UPTIME", "RESTARTS", "MEMORY"] in page
    assert ["guard", "4711", "75s", "2", "30", "MiB"] in page
    assert ["store", "does", "not", "run", "-", "-", "-"] in page
    cluster.view.nodes[0].ClearField("figures")
    assert "PROCESS" not in hasys("describe", "node", "n1").stdout


def test_a_group_that_moves_is_listed_with_the_node_it_is_assigned_to_not_as_active_there(
    hasys: Run, cluster: FakeCluster
) -> None:
    cluster.put(web_group("Stopping"))
    heading, _ = hasys("get", "groups").stdout.splitlines()
    assert "ASSIGNED" in heading
    assert "ACTIVE" not in heading


def test_nodes_are_listed_without_what_only_status_knows(hasys: Run, cluster: FakeCluster) -> None:
    node = pb.Node()
    node.metadata.name = "n1"
    cluster.put(node)
    assert "VERSION" not in hasys("get", "nodes", "-o", "wide").stdout


def test_lines_of_a_watch_stand_below_the_columns_of_its_table(hasys: Run, cluster: FakeCluster) -> None:
    cluster.put(web_group())
    failed = web_group("Failed")
    failed.metadata.resource_version = 9
    cluster.changes = [now(failed), gone(failed)]
    cluster.ends_watch = True
    heading, first, changed, deleted = hasys("get", "groups", "-w").stdout.splitlines()
    for column in ("MODE", "PHASE", "EPOCH", "NODES", "AGE"):
        begin = heading.index(column)
        assert [line[begin - 1] for line in (first, changed, deleted)] == [" "] * 3
        assert " " not in {line[begin] for line in (first, changed, deleted)}


def test_a_watch_that_begins_with_nothing_gives_its_first_line_a_heading(hasys: Run, cluster: FakeCluster) -> None:
    cluster.changes = [now(web_group())]
    cluster.ends_watch = True
    heading, line = hasys("get", "groups", "-w").stdout.splitlines()
    assert heading.startswith("NAME")
    assert line.startswith("web")
    assert line.index("Mirror") == heading.index("MODE")


# ---------------------------------------------------------------- delete


def test_delete_waits_until_the_object_is_gone(hasys: Run, cluster: FakeCluster) -> None:
    cluster.put(web_ip())
    cluster.changes = [gone(web_ip())]
    result = hasys("delete", "vip/web-ip")
    assert (result.exit_code, result.stdout) == (0, "VirtualIP/web-ip deleted\n")
    assert cluster.deleted == [Ref("VirtualIP", "web", "web-ip")]


def test_delete_that_is_done_and_whose_end_nobody_tells_is_status_4(hasys: Run, cluster: FakeCluster) -> None:
    cluster.put(web_ip())
    cluster.watch_fails = Unreached("no server reached")
    result = hasys("delete", "vip/web-ip")
    assert (result.exit_code, result.stdout) == (4, "VirtualIP/web-ip deleted\n")
    assert "the deletion is stored; whether it is done cannot be seen: no server reached" in result.stderr


@pytest.mark.parametrize(("before", "status"), [(0, 3), (1, 4)])
def test_delete_of_several_is_status_3_only_when_none_is_deleted(
    hasys: Run, cluster: FakeCluster, manifest: Path, monkeypatch: pytest.MonkeyPatch, before: int, status: int
) -> None:
    more = manifest.parent / "more.yaml"
    more.write_text(WEB.split("---\n")[0].replace("web", "mail"))
    monkeypatch.setattr("hasys.api.client.load_context", lambda _: None)
    monkeypatch.setattr("hasys.cli.reach.explain", lambda _: "")
    answered: list[Ref] = []

    async def delete(ref: Ref) -> api.DeleteResponse:
        if len(answered) == before:
            raise Unreached("no server reached")
        answered.append(ref)
        return api.DeleteResponse()

    monkeypatch.setattr(cluster, "delete", delete)
    result = hasys("delete", "-f", manifest, "-f", more)
    assert result.exit_code == status, result.output
    assert len(result.stdout.splitlines()) == before
    assert ("the same command again deletes the rest" in result.stderr) == (before > 0)


def test_delete_of_a_manifest_deletes_the_group_and_with_it_its_resources(
    hasys: Run, cluster: FakeCluster, manifest: Path
) -> None:
    cluster.put(web_group(), web_ip())
    result = hasys("delete", "-f", manifest, "--no-wait")
    assert result.stdout == "Group/web deleted\nVirtualIP/web-ip deleted\n"
    assert cluster.deleted == [Ref("Group", "", "web")]


def test_delete_says_deleted_only_of_what_was_there(hasys: Run, cluster: FakeCluster, manifest: Path) -> None:
    cluster.put(web_group())
    first = hasys("delete", "-f", manifest, "--no-wait")
    assert (first.exit_code, first.stdout) == (1, "Group/web deleted\n")
    assert first.stderr == "hasys: VirtualIP/web-ip: no such object in group web\n"
    cluster.objects.clear()
    again = hasys("delete", "-f", manifest, "--no-wait")
    assert (again.exit_code, again.stdout) == (1, "")
    assert len(again.stderr.splitlines()) == 2


def test_what_others_come_after_is_deleted_after_them(
    hasys: Run, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "part.yaml"
    spec = "spec: {duration: 1s, after: [web-ip]}\n"
    delay = "---\napiVersion: hasys/v1\nkind: Delay\nmetadata: {name: settle, group: web}\n" + spec
    path.write_text(WEB.split("---\n")[1] + delay)
    order: list[str] = []

    async def delete(ref: Ref) -> api.DeleteResponse:
        if ref.name == "web-ip" and "settle" not in order:
            raise Invalid([Fault(ref, "", "settle comes after it: change or delete that first")])
        order.append(ref.name)
        return api.DeleteResponse()

    monkeypatch.setattr(cluster, "delete", delete)
    assert hasys("delete", "-f", path, "--no-wait").exit_code == 0
    assert order == ["settle", "web-ip"]


def test_delete_wants_to_know_what(hasys: Run, cluster: FakeCluster, manifest: Path) -> None:
    for words in (["delete"], ["delete", "vip"], ["delete", "vip", "x", "-f", str(manifest)]):
        assert hasys(*words).exit_code == 2


# ---------------------------------------------------------------- events and history


def test_events_are_oldest_first_and_json_carries_cause_epoch_and_duration(hasys: Run, cluster: FakeCluster) -> None:
    late, early = (
        _event("GroupRunning", Ref("Group", "", "web"), 8),
        _event("FailoverStarted", Ref("Group", "", "web"), 3),
    )
    late.duration.FromMilliseconds(1100)
    late.epoch = 4
    cluster.put(late, early)
    rows = json.loads(hasys("events", "-g", "web", "-o", "json").stdout)
    assert [row["reason"] for row in rows] == ["FailoverStarted", "GroupRunning"]
    assert (rows[1]["duration"], rows[1]["epoch"]) == ("1.1s", 4)
    assert rows[0]["regarding"] == {"kind": "Group", "group": "", "name": "web"}


@pytest.mark.parametrize("command", [("events", "-g"), ("history",)])
def test_a_group_that_never_was_is_refused_in_one_line(
    hasys: Run, cluster: FakeCluster, command: tuple[str, ...]
) -> None:
    result = hasys(*command, "wbe")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Group/wbe: no such group" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("events", "-g"), ("history",)])
def test_a_new_group_has_no_past_and_a_deleted_one_has(
    hasys: Run, cluster: FakeCluster, command: tuple[str, ...]
) -> None:
    cluster.put(web_group())
    assert hasys(*command, "web").exit_code == 0
    past = pb.Event(reason="GroupAssigned", regarding=pb.Key(kind="Group", name="old"))
    past.metadata.name = "e1"
    cluster.put(past)
    assert "GroupAssigned" in hasys(*command, "old").stdout


def test_history_joins_operations_with_changes_of_the_node_in_time(hasys: Run, cluster: FakeCluster) -> None:
    operation = pb.Operation()
    operation.metadata.name = "switchover-1"
    operation.spec.type, operation.spec.group, operation.spec.actor = pb.OperationSpec.Switchover, "web", "admin"
    operation.status.state = "Succeeded"
    operation.status.started.FromSeconds(1_000_000)
    moved, other = (
        _event("MoveStarted", Ref("Group", "", "web"), 3),
        _event("DriftRepaired", Ref("Group", "", "web"), 4),
    )
    moved.time.FromSeconds(1_000_001)
    cluster.put(operation, moved, other)
    rows = json.loads(hasys("history", "web", "-o", "json").stdout)
    assert [(row["what"], row["actor"]) for row in rows] == [("Switchover", "admin"), ("MoveStarted", "")]
    assert "Switchover" in hasys("history").stdout


def _event(reason: str, about: Ref, version: int = 1) -> pb.Event:
    event = pb.Event(type="Normal", reason=reason, message=f"{about.name}: {reason}", node="n1")
    event.metadata.name, event.metadata.resource_version = f"e{version}{reason}", version
    event.regarding.CopyFrom(about.key())
    return event
