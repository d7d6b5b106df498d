"""What the guard must be able to undo survives it, and never gets older."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasys.guard.plan import Agent, Book, Damaged, PlanFile, StaleEpoch, Stored
from hasys.guard.protocol import Address, AddressEntry, CgroupEntry, Plan

WEB_IP = AddressEntry("eth0", "10.77.0.100", "web-ip")
WEB_IP6 = AddressEntry("eth0", "fd77::100", "web-ip6")
WEB_APP = CgroupEntry("/cg/hasys.x/groups/web/web-app", "web-app")

small = st.integers(0, 5)
plans = st.builds(
    Plan, st.sampled_from(["web", "db"]), small, small, st.sets(st.sampled_from([WEB_IP, WEB_IP6, WEB_APP])).map(tuple)
)


@settings(max_examples=40)
@given(st.lists(plans, max_size=8), st.lists(st.tuples(st.sampled_from(["web", "db"]), small), max_size=4))
def test_the_book_comes_back_from_disk_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, planned: list[Plan], gone: list[tuple[str, int]]
) -> None:
    book = Book(gate=frozenset({Address("eth0", "10.77.0.9")}), agent=Agent(7, 99, "/cg/agent"))
    for plan in planned:
        try:
            book = book.with_plan(plan)
        except StaleEpoch:
            continue
    for group, epoch in gone:
        book = book.without(group, epoch)
    file = PlanFile(tmp_path_factory.mktemp("run"))
    file.save(book)
    assert file.load() == book


def test_no_book_is_an_empty_one(tmp_path: Path) -> None:
    assert PlanFile(tmp_path).load() == Book()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"plans":[{}]}', b"\xff\xfe", b'{"plans":1,"floors":{},"gate":[],"agent":null}']
)
def test_a_damaged_book_is_said_to_be_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(Damaged, match=r"plan\.json"):
        PlanFile(tmp_path).load()


def test_a_crash_while_saving_leaves_the_old_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = PlanFile(tmp_path)
    old = Book().with_plan(Plan("web", 1, 1, (WEB_IP,)))
    file.save(old)

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="No space left"):
        file.save(old.with_plan(Plan("web", 2, 2, ())))
    monkeypatch.undo()
    assert file.load() == old


def test_a_removed_folder_does_not_keep_the_book_from_being_stored(tmp_path: Path) -> None:
    file = PlanFile(tmp_path / "run" / "demo-n1")
    file.save(Book())
    shutil.rmtree(tmp_path / "run")
    book = Book().with_plan(Plan("web", 1, 1, (WEB_IP,)))
    file.save(book)
    assert file.load() == book


def test_nobody_else_may_read_the_book(tmp_path: Path) -> None:
    PlanFile(tmp_path).save(Book())
    assert (tmp_path / "plan.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("older", [Plan("web", 2, 9, ()), Plan("web", 3, 6, ())])
def test_an_older_plan_is_refused(older: Plan) -> None:
    book = Book().with_plan(Plan("web", 3, 7, (WEB_IP,)))
    with pytest.raises(StaleEpoch, match="is older than epoch 3, version 7"):
        book.with_plan(older)


def test_a_plan_of_an_epoch_that_was_given_up_is_refused_for_ever() -> None:
    book = Book().with_plan(Plan("web", 3, 7, ())).without("web", 3)
    assert "web" not in book.plans
    with pytest.raises(StaleEpoch, match="was given up here"):
        book.with_plan(Plan("web", 3, 8, ()))
    assert book.with_plan(Plan("web", 4, 8, ())).plans["web"].plan.epoch == 4


def test_giving_up_an_old_epoch_keeps_the_plan_of_a_newer_one() -> None:
    book = Book().with_plan(Plan("web", 4, 7, (WEB_IP,))).without("web", 3)
    assert book.plans["web"].plan.epoch == 4
    assert book.floors == {"web": 3}


def test_what_a_new_plan_drops_is_still_to_be_undone_until_it_is_gone() -> None:
    book = Book().with_plan(Plan("web", 1, 1, (WEB_IP, WEB_IP6, WEB_APP))).with_permitted("web")
    book = book.with_plan(Plan("web", 1, 2, (WEB_IP,)), gone=[WEB_IP6])
    assert book.plans["web"] == Stored(Plan("web", 1, 2, (WEB_IP,)), (WEB_APP,), permitted=True)
    assert book.plans["web"].cgroups == (WEB_APP.path,)
    book = book.with_plan(Plan("web", 1, 3, (WEB_IP,)), gone=[WEB_APP])
    assert book.plans["web"].leftovers == ()


def test_a_new_epoch_has_not_begun_anything() -> None:
    book = Book().with_plan(Plan("web", 1, 1, (WEB_IP,))).with_permitted("web")
    assert not book.with_plan(Plan("web", 2, 1, (WEB_IP,))).plans["web"].permitted


def test_addresses_of_plans_are_gated_beside_those_asked_for() -> None:
    book = Book(gate=frozenset({Address("eth1", "10.0.0.1")})).with_plan(Plan("web", 1, 1, (WEB_IP, WEB_APP)))
    assert book.gated == {Address("eth1", "10.0.0.1"), WEB_IP.key}
