"""A20: files as commands: what each means for this node, and that each counts once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hasys.cli import commandfiles
from hasys.cli.commandfiles import COMMANDS, carry_out, check, operations, taken, write_result
from hasys.model.errors import Refused, Unreached
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb
from tests.unit.cli.fake import FakeCluster


def status() -> api.StatusResponse:
    """n1 has web and is a candidate for db, which n2 has; mail is none of its business."""
    answer = api.StatusResponse()
    answer.groups.add(name="web", mode="Mirror", active="n1", nodes={"n1": "Active", "n2": "Down", "n3": "Standby"})
    answer.groups.add(name="db", mode="Mirror", active="n2", nodes={"n1": "Standby", "n2": "Active"})
    answer.groups.add(name="mail", mode="Mirror", active="n2", nodes={"n2": "Active", "n3": "Standby"})
    answer.groups.add(name="farm", mode="Farm", nodes={"n1": "Active"})
    return answer


def told(name: str, *groups: str) -> list[tuple[str, str, str, str]]:
    specs = operations(name, groups, "n1", status())
    assert all(spec.reason == f"command file {name}" for spec in specs)
    return [(pb.OperationSpec.Type.Name(s.type), s.group, s.node, s.role) for s in specs]


def test_a_manual_failover_swaps_active_and_standby_of_every_group_of_this_node() -> None:
    assert told("HA_MANUAL_FAILOVER.DAT") == [("Switchover", "web", "", ""), ("Switchover", "db", "n1", "")]
    assert told("HA_MANUAL_FAILOVER.DAT", "web") == [("Switchover", "web", "", "")]


def test_a_forced_failover_goes_to_a_standby_or_comes_here() -> None:
    assert told("HA_FORCE_FAILOVER_BACKUP.DAT") == [("Failover", "web", "n3", "")]
    assert told("HA_FORCE_FAILOVER_ONLINE.DAT") == [("Failover", "db", "n1", "")]
    assert all(spec.force for spec in operations("HA_FORCE_FAILOVER_ONLINE.DAT", (), "n1", status()))


def test_a_strong_failover_resolves_a_partition_for_this_node() -> None:
    assert told("HA_STRONG_FAILOVER_BACKUP.DAT") == [("Resolve", "web", "n1", "standby")]
    assert told("HA_STRONG_FAILOVER_ONLINE.DAT") == [("Resolve", "db", "n1", "active")]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_group_that_the_file_names_is_asked_for_though_it_is_unknown(name: str) -> None:
    assert [group for _, group, _, _ in told(name, "nope")] == ["nope"]


def test_a_file_counts_once_and_names_groups(tmp_path: Path) -> None:
    (tmp_path / "HA_MANUAL_FAILOVER.DAT").write_text("web\n db \n")
    (tmp_path / "HA_STRONG_FAILOVER_ONLINE.DAT").touch()
    (tmp_path / "notes.txt").touch()
    assert taken(tmp_path) == [("HA_MANUAL_FAILOVER.DAT", ("web", "db")), ("HA_STRONG_FAILOVER_ONLINE.DAT", ())]
    assert taken(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_link_is_no_command_file(tmp_path: Path) -> None:
    (tmp_path / "HA_MANUAL_FAILOVER.DAT").symlink_to("/etc/hostname")
    with pytest.raises(Refused, match="remove it"):
        taken(tmp_path)


def test_a_directory_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    check(tmp_path)
    tmp_path.chmod(0o777)
    with pytest.raises(Refused, match="chmod o-w"):
        check(tmp_path)
    with pytest.raises(Refused, match="make it"):
        check(tmp_path / "none")


def test_how_it_ended_stands_beside_it_and_a_lost_cluster_ends_nothing(tmp_path: Path) -> None:
    def unreached(work: object) -> None:
        raise Unreached("no server reached")

    lines = carry_out("HA_MANUAL_FAILOVER.DAT", (), "n1", unreached)
    write_result(tmp_path, "HA_MANUAL_FAILOVER.DAT", lines)
    write_result(tmp_path, "HA_MANUAL_FAILOVER.DAT", lines)
    assert (tmp_path / "HA_MANUAL_FAILOVER.DAT.result").read_text() == "failed: no server reached\n"
    assert commandfiles.taken(tmp_path) == []


def test_what_a_file_names_begins_no_line_and_moves_no_cursor_where_the_outcome_is_shown() -> None:
    def ask(work: object) -> None:
        raise Refused("group 'a\x1b[2J\nweb moved' is unknown")

    (line,) = carry_out("HA_MANUAL_FAILOVER.DAT", ("a\x1b[2J",), "n1", ask)
    assert line.startswith("failed: group 'a")
    assert line.isprintable()


def test_an_operation_that_is_stored_and_whose_end_cannot_be_seen_did_not_fail() -> None:
    cluster = FakeCluster(watch_fails=Unreached("no server reached"))
    lines = carry_out("HA_MANUAL_FAILOVER.DAT", ("web",), "n1", lambda work: asyncio.run(work(cluster)))
    (line,) = lines
    assert line.startswith("switchover of web to n1 unknown: ")
    assert "is stored as op-1, Pending; its end cannot be seen: no server reached" in line
