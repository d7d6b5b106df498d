"""The rows of docs/two-nodes.md that are the same for the policies safe and arbiter."""

from __future__ import annotations

import pytest

from tests.sim.grants.rows import ArbiterRow, Row
from tests.sim.grants.state import Assign


@pytest.fixture(params=[Row, ArbiterRow], ids=["safe", "arbiter"])
def kind(request: pytest.FixtureRequest) -> type[Row]:
    found: type[Row] = request.param
    return found


@pytest.fixture(params=range(5))
def row(kind: type[Row], request: pytest.FixtureRequest) -> Row:
    made = kind(request.param)
    made.begin()
    return made


def test_a_lost_standby_moves_nothing(row: Row) -> None:
    row.power("n2", on=False)
    row.always("n1", 20.0)
    row.power("n2", on=True)
    row.always("n1", 5.0)


def test_after_a_cold_start_the_last_active_starts_alone_and_the_other_does_not(row: Row) -> None:
    for node in row.nodes:
        row.power(node, on=False)
    row.world.run(row.world.now + 1.0)
    row.power("n2", on=True)
    row.always(None, 20.0)
    row.power("n2", on=False)
    row.power("n1", on=True)
    assert row.wait(5.0) == "n1"
    row.power("n2", on=True)
    row.always("n1", 5.0)


def test_both_that_boot_end_in_the_last_active(row: Row) -> None:
    for node in row.nodes:
        row.power(node, on=False)
    row.world.run(row.world.now + 1.0)
    for node in row.nodes:
        row.power(node, on=True)
    assert row.wait(3.0) == "n1"


def test_a_move_goes_through_while_both_see_each_other_and_the_right_to_serve_goes_with_it(row: Row) -> None:
    leader = row.leaders()[0]
    leader.propose(Assign("web", leader.state.groups["web"].epoch, "n2", False))
    assert row.wait(3.0) == "n2"
    row.cut_link()
    row.always("n2", 5.0)
