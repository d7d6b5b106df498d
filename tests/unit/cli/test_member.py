"""``hasys member``, ``backup``, ``restore`` against real stores on loopback: killed, wiped, added, removed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.zygote import Zygote
from tests.unit.cli.conftest import Run
from tests.unit.cli.members import RealCluster

pytestmark = pytest.mark.slow

GROUP = """\
apiVersion: hasys/v1
kind: Group
metadata: {{name: {name}}}
spec: {{nodes: [{{name: {node}}}], failover: {{mode: Manual}}}}
"""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def cluster(hasys: Run, tmp_path: Path, zygote: Zygote) -> Iterator[RealCluster]:
    made = RealCluster(hasys, tmp_path / "c", zygote)
    made.init()
    yield made
    made.close()


def groups(cluster: RealCluster) -> set[str]:
    return {line.split()[0] for line in cluster.ok("get", "groups").splitlines()[1:]}


def store(cluster: RealCluster, name: str, node: str = "n1") -> None:
    cluster.ok("apply", "-f", "-", text=GROUP.format(name=name, node=node))


def test_a_dead_voter_is_replaced_by_one_command_and_the_next_may_die(cluster: RealCluster) -> None:
    store(cluster, "before")
    cluster.kill("n2")
    words = ["member", "replace", "n2", "n4", *cluster.where("n4"), "--timeout", "30s"]
    argv = [sys.executable, "-P", "-m", "hasys", "--context", cluster.folder / "client" / "client.yaml", *words]
    with subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, text=True) as replacing:
        cluster.until((cluster.folder / "n4" / "node.yaml").exists, "the newcomer's folder")
        cluster.until(lambda: cluster.states().get("n4") == "Joining", "n4 is expected")
        cluster.start(["n4"])
        said, _ = replacing.communicate(timeout=40)
    assert replacing.returncode == 0
    assert "n2 is replaced by n4" in said
    assert cluster.states().keys() == {"n1", "n4", "w"}
    cluster.kill("w")  # two of the three of today are left, one of the three of yesterday
    store(cluster, "after")
    assert groups(cluster) == {"before", "after"}


def test_a_replacement_that_does_not_come_removes_nobody_and_the_same_command_goes_on(cluster: RealCluster) -> None:
    words = ("member", "replace", "n2", "n4", *cluster.where("n4"), "--timeout", "100ms")
    result = cluster.run(*words)
    assert result.exit_code == 4
    assert "n4 does not vote yet (Joining); nothing was removed" in result.stderr
    assert cluster.states().keys() == {"n1", "n2", "n4", "w"}
    cluster.start(["n4"])
    cluster.until_votes("n4")
    assert "n2 is replaced by n4" in cluster.ok(*words)


def test_voters_are_added_one_at_a_time_and_a_removed_one_says_so_and_ceases_to_dial(cluster: RealCluster) -> None:
    said = cluster.ok(*cluster.add("n4"))
    assert "hasys node run --config n4/node.yaml" in said
    assert cluster.states()["n4"] == "Joining"
    assert "n4 has not caught up yet: one change at a time" in cluster.refused(*cluster.add("n5"))
    assert not (cluster.folder / "n5").exists(), "a refused change leaves no folder"
    cluster.start(["n4"])
    cluster.until_votes("n4")
    said = cluster.ok("member", "remove", "n4")
    assert "n4 is no member any more: stop hasys there" in said
    for name in ("n1", "n2", "w"):
        cluster.until(lambda name=name: f"{name} says that n4 is no member" in cluster.log("n4"), "n4 knows")  # type: ignore[misc]
    assert cluster.states().keys() == {"n1", "n2", "w"}


def test_a_leader_that_is_removed_hands_over_first(cluster: RealCluster) -> None:
    cluster.ok(*cluster.add("n4"))
    cluster.start(["n4"])
    cluster.until_votes("n4")
    leader = cluster.leader()
    cluster.ok("member", "remove", leader)
    assert leader not in cluster.states()
    store(cluster, "after", "n1" if leader != "n1" else "n2")


def test_observers_come_and_go_without_a_word_in_elections(cluster: RealCluster) -> None:
    cluster.ok(*cluster.add("eye", "--role", "Observer"))
    assert cluster.states()["eye"] == "Observer"
    assert not (cluster.folder / "eye" / "lease.secret").exists(), "it grants nothing"
    cluster.ok(*cluster.add("ear", "--role", "Observer"))
    cluster.ok("member", "remove", "eye")
    assert cluster.states().keys() == {"n1", "n2", "w", "ear"}


def test_what_is_unsafe_is_refused_with_the_reason(cluster: RealCluster, hasys: Run, tmp_path: Path) -> None:
    store(cluster, "web", "n2")
    assert "group 'web' can run on n2" in cluster.refused("member", "remove", "n2")
    assert "'n9' is no member of this cluster" in cluster.refused("member", "remove", "n9")
    assert "no DNS label" in cluster.refused(*cluster.add("N4"))
    assert "n2 is a Voter: remove it before it returns as a Witness" in cluster.refused(
        *cluster.add("n2", "--role", "Witness")
    )
    taken = ("member", "add", "n4", "--address", cluster.address("n2"), *cluster.where("n4")[2:])
    assert f"n2 uses {cluster.address('n2')} with one of these ports already" in cluster.refused(*taken)
    assert hasys("init", "--cluster", "other", "--node", "n1=127.0.0.1", "--out", tmp_path / "o").exit_code == 0
    foreign = ("member", "add", "n4", "--address", cluster.address("n4"), "--ca", tmp_path / "o" / "ca")
    assert "the authority of another cluster" in cluster.refused(*foreign, "--out", cluster.folder)
    cluster.kill("n2")
    cluster.until(lambda: cluster.states().get("n2") == "Silent", "n2 is missed")
    for living in ("n1", "w"):  # one of them leads
        said = cluster.refused("member", "remove", living)
        assert f"cannot remove {living}" in said
        assert "a majority of 2 is needed" in said
    assert cluster.states().keys() == {"n1", "n2", "w"}, "nothing of all that changed anything"


def test_the_last_voter_stays(hasys: Run, tmp_path: Path, zygote: Zygote) -> None:
    cluster = RealCluster(hasys, tmp_path / "c", zygote)
    try:
        cluster.init(["n1"])
        assert "cannot remove n1: it is the only voter" in cluster.refused("member", "remove", "n1")
    finally:
        cluster.close()


def test_a_wiped_voter_returns_as_a_new_incarnation_with_everything_that_was_acknowledged(
    cluster: RealCluster,
) -> None:
    store(cluster, "before")
    lost = next(name for name, state in cluster.states().items() if state == "Follower")
    cluster.kill(lost)
    cluster.wipe(lost)
    store(cluster, "meanwhile")
    cluster.start([lost])
    cluster.until_votes(lost)
    other = next(name for name in ("n1", "n2", "w") if name not in (lost, cluster.leader()))
    cluster.kill(other)
    store(cluster, "with-its-vote")
    assert groups(cluster) == {"before", "meanwhile", "with-its-vote"}


def test_a_wiped_voter_counts_for_nothing_while_another_one_is_down(cluster: RealCluster) -> None:
    """Two that would agree, one of which has forgotten everything: no majority."""
    store(cluster, "before")
    states = cluster.states()
    lost = next(name for name, state in states.items() if state == "Follower")
    leader = next(name for name, state in states.items() if state == "Leader")
    cluster.kill(lost, leader)
    cluster.wipe(lost)
    cluster.start([lost])
    cluster.until(lambda: "term" in cluster.log(lost), "it runs")
    result = cluster.run("apply", "-f", "-", text=GROUP.format(name="lost", node="n1"))
    assert result.exit_code != 0
    cluster.start([leader])
    cluster.until_votes(lost)
    assert groups(cluster) == {"before"}


def test_a_backup_is_restored_on_one_member_and_the_others_copy_it(cluster: RealCluster) -> None:
    store(cluster, "kept")
    file = cluster.folder / "backup"
    assert "cluster real at version" in cluster.ok("backup", file)
    assert file.stat().st_mode & 0o777 == 0o600
    store(cluster, "lost")
    restore = ("restore", file, "--config", cluster.folder / "n1" / "node.yaml")
    assert "still runs: stop hasys on every member first" in cluster.refused(*restore)
    cluster.kill("n1", "n2", "w")
    assert "is not empty" in cluster.refused(*restore)
    for name in ("n1", "n2", "w"):
        cluster.wipe(name)
    assert "start n1 first: alone it leads" in cluster.ok(*restore)
    cluster.start(["n1"])
    cluster.until(lambda: cluster.states().get("n1") == "Leader", "the restored one leads alone")
    assert groups(cluster) == {"kept"}
    cluster.start(["n2", "w"])
    cluster.until_votes("n2")
    cluster.until_votes("w")
    cluster.kill("n1")
    cluster.until(cluster.states, "a leader")
    assert groups(cluster) == {"kept"}
