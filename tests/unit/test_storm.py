"""The generator of faults (``make chaos``): a seed is one schedule; what is expected of a broken cluster is right."""

from __future__ import annotations

import pytest

from tests.lab.storm.damage import Damage
from tests.lab.storm.schedule import draw


def test_a_seed_is_one_schedule_and_seeds_differ() -> None:
    assert [draw(n) for n in range(50)] == [draw(n) for n in range(50)]
    assert len({tuple(draw(n)) for n in range(200)}) > 150


def test_faults_come_alone_in_twos_and_in_threes_and_every_kind_comes() -> None:
    rounds = [draw(n) for n in range(500)]
    assert {len(r) for r in rounds} == {1, 2, 3}
    assert len({s.fault for r in rounds for s in r}) == 14


@pytest.fixture
def damage() -> Damage:
    return Damage(("n1", "n2", "w"), ("n1", "n2"))


def test_a_whole_cluster_must_serve(damage: Damage) -> None:
    assert damage.must_serve()


@pytest.mark.parametrize("lost", ["n1", "n2", "w"])
def test_two_of_three_must_serve_and_one_need_not(damage: Damage, lost: str) -> None:
    damage.off = {lost}
    assert damage.must_serve()
    damage.doubtful = {"n2"} - {lost} or {"n1"}
    assert not damage.must_serve()


def test_two_nodes_cut_from_each_other_serve_through_the_witness(damage: Damage) -> None:
    damage.cut = {frozenset(("n1", "n2"))}
    assert damage.must_serve()
    damage.cut.add(frozenset(("n1", "w")))
    assert damage.must_serve()
    damage.cut.add(frozenset(("n2", "w")))
    assert not damage.must_serve()


def test_a_majority_that_no_client_reaches_need_not_serve(damage: Damage) -> None:
    damage.unplugged = {("n1", "public"), ("n2", "public")}
    assert not damage.must_serve()
    damage.unplugged.remove(("n2", "public"))
    assert damage.must_serve()


def test_machines_that_share_no_network_do_not_reach_each_other(damage: Damage) -> None:
    damage.unplugged = {("n1", "public"), ("n2", "heartbeat")}
    assert not damage.reaches("n1", "n2")
    assert damage.reaches("n1", "w")
