"""What an assignment asks of a node."""

from __future__ import annotations

import pytest

from hasys.reconciler.duty import Duty, Wish, wish
from hasys.v1 import objects_pb2 as pb
from tests.unit.reconciler.fakes import group


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (None, Wish(Duty.NONE, force=True)),
        (group("", 0), Wish(Duty.NONE, version=0, force=True)),
        (group("n1", 3, version=9), Wish(Duty.HOLD, 3, 3, 9)),
        (group("n1", 3, version=9, stopped=True), Wish(Duty.HOLD, 3, 3, 9, run=False)),
        (group("n2", 3), Wish(Duty.NONE, newest=3, force=True)),
        (
            group("n2", 3, version=9, previous_node="n1", previous_epoch=2),
            Wish(Duty.LEAVE, 2, 3, 9, run=False),
        ),
        (
            group("n2", 3, version=9, previous_node="n1", previous_epoch=2, revoked=True),
            Wish(Duty.LEAVE, 2, 3, 9, run=False, force=True),
        ),
        (
            group("", 3, version=9, previous_node="n1", previous_epoch=2),
            Wish(Duty.LEAVE, 2, 3, 9, run=False),
        ),
        (group("n1", 3, version=9, previous_node="n1", previous_epoch=2), Wish(Duty.HOLD, 3, 3, 9)),
    ],
)
def test_the_duty_of_a_node(stored: pb.Group | None, wanted: Wish) -> None:
    assert wish(stored, "n1") == wanted


def test_a_group_that_is_being_deleted_is_held_without_running() -> None:
    stored = group("n1", 3)
    stored.metadata.deleting.GetCurrentTime()
    assert wish(stored, "n1") == Wish(Duty.HOLD, 3, 3, 1, run=False)


def test_a_farm_is_no_business_of_this_reconciler() -> None:
    stored = group("n1", 3)
    stored.spec.mode = pb.GroupSpec.Farm
    assert wish(stored, "n1").duty is Duty.NONE
