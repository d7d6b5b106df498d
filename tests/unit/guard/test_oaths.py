"""A guard under an operator's oath: what is durable, what is said, and what ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasys.guard.main import keeper_state
from hasys.guard.parts import Refused
from hasys.guard.plan import Agent, Book, PlanFile, Report, Sworn
from hasys.guard.protocol import AddressEntry, CgroupEntry, Plan
from hasys.lease.keeping import Oath, Planned
from hasys.model import errors
from hasys.model.timing import over
from tests.unit.guard.fakes import TIMING, Bench

IP = AddressEntry("eth0", "10.77.0.100", "web-ip")
APP = CgroupEntry("/cg/groups/web/web-app", "web-app")
PLAN = Plan("web", 5, 7, (IP, APP))
BEGIN = over(TIMING.ttl) + TIMING.keepalive
"""Seconds after which an oath is permitted."""


@pytest.fixture
def bench() -> Bench:
    made = Bench(Book(agent=Agent(7, 99, "/cg/agent"), floors={"web": 4}))
    made.guard.start()
    made.guard.agent_here = True
    return made


def silence(bench: Bench, seconds: float) -> None:
    """Time passes, the agent lives, no leader answers."""
    end = bench.loop.time + seconds
    while bench.loop.time < end:
        bench.guard.agent_seen = bench.loop.time
        bench.loop.advance(min(0.5, end - bench.loop.time))


def serve(bench: Bench) -> None:
    assert bench.guard.oaths.swear("web", 1, "by root: fire") == 5
    assert bench.guard.plan(PLAN) == "pending"
    silence(bench, BEGIN)
    assert bench.gate.held == {"web": {IP.address}}
    bench.machine.there |= {IP.address, APP.path}


def ends(bench: Bench) -> list[str]:
    return [r.cause for r in bench.store.saved.reports if not r.begun]


def test_an_oath_is_durable_told_to_the_agent_and_to_every_store(bench: Bench) -> None:
    bench.guard.oaths.swear("web", 1, "by root: fire")
    assert bench.store.saved.oaths["web"].epoch == 5
    assert bench.events("oath") == [
        {"event": "oath", "group": "web", "epoch": 5, "leaving": False, "free": True, "byPolicy": False}
    ]
    assert bench.network.sent[-1].sworn == (("web", 5, True),)


def test_an_oath_opens_the_gate_and_keeps_it_open_without_any_leader(bench: Bench) -> None:
    serve(bench)
    silence(bench, 60.0)
    assert bench.gate.held == {"web": {IP.address}}
    assert bench.loop.time < bench.gate.until["web"] <= bench.loop.time + TIMING.ttl


def test_an_oath_that_cannot_be_stored_holds_nothing(bench: Bench) -> None:
    bench.store.full = True
    with pytest.raises(Refused, match="No space left"):
        bench.guard.oaths.swear("web", 1, "by root")
    bench.store.full = False
    silence(bench, 5.0)
    assert bench.keeper.oaths() == {}
    assert bench.store.saved.oaths == {}


def test_an_oath_is_refused_while_a_leader_answers(bench: Bench) -> None:
    bench.grant()
    with pytest.raises(errors.Refused, match="there is a majority"):
        bench.guard.oaths.swear("web", 1, "by root")
    assert bench.store.saved.oaths == {}


def test_a_leader_that_does_not_keep_the_oath_fences_the_group_at_once(bench: Bench) -> None:
    serve(bench)
    bench.grant()
    assert bench.gate.held == {}
    assert bench.machine.there == set()
    assert bench.store.saved.oaths == {}
    assert bench.store.saved.floors == {"web": 5}
    assert ends(bench) == ["revoked by n2 in term 1"]


def test_the_leaders_own_epoch_replaces_the_oath_without_a_moment_of_silence(bench: Bench) -> None:
    serve(bench)
    bench.grant(web=(6, 7))
    assert bench.gate.held == {"web": {IP.address}}
    assert bench.guard.plan(Plan("web", 6, 7, (IP, APP))) == "permitted"
    assert bench.machine.there == {IP.address, APP.path}
    assert bench.machine.agents_killed == 0
    assert bench.store.saved.oaths == {}
    assert bench.store.saved.plans["web"].permitted
    assert ends(bench) == ["the leader took it over as epoch 6"]
    assert bench.events("oath-ended") == [{"event": "oath-ended", "group": "web", "epoch": 5}]


def test_a_group_that_is_fenced_between_two_plans_costs_the_agent_its_life(bench: Bench) -> None:
    """The plan of the leader's epoch is stored, but what runs was permitted under the oath."""
    serve(bench)
    assert bench.guard.plan(Plan("web", 6, 7, (IP, APP))) == "pending"
    bench.grant()
    assert bench.machine.agents_killed == 1
    assert bench.machine.there == set()


def test_an_oath_that_is_given_up_is_stopped_by_the_agent_and_then_over(bench: Bench) -> None:
    serve(bench)
    bench.guard.oaths.forswear("web", "by root")
    assert bench.events("oath")[-1]["leaving"]
    assert bench.gate.held == {"web": {IP.address}}
    bench.machine.there.clear()
    assert bench.guard.release("web", 5) == []
    assert bench.store.saved.oaths == {}
    assert ends(bench) == ["it was stopped in order"]


def test_an_oath_that_is_given_up_without_an_agent_is_fenced(bench: Bench) -> None:
    serve(bench)
    bench.guard.agent_here = False
    bench.guard.oaths.forswear("web", "by root")
    assert bench.machine.there == set()
    assert ends(bench) == ["by root"]


def test_what_is_not_sworn_cannot_be_given_up(bench: Bench) -> None:
    with pytest.raises(Refused, match="not held here by an operator's oath"):
        bench.guard.oaths.forswear("web", "by root")


def test_reports_stay_until_the_store_knows_them(bench: Bench) -> None:
    serve(bench)
    (sworn,) = bench.store.saved.reports
    assert (sworn.group, sworn.epoch, sworn.begun, sworn.cause) == ("web", 5, True, "by root: fire")
    bench.grant()
    bench.guard.oaths.told(sworn.serial)
    assert [r.begun for r in bench.store.saved.reports] == [False]


def test_a_restarted_guard_ends_an_oath_that_the_kernel_does_not_carry() -> None:
    bench = Bench(Book(oaths={"web": Sworn(5, 90.0)}))
    bench.guard.start()
    assert bench.store.saved.oaths == {}
    assert bench.store.saved.floors == {"web": 5}
    assert ends(bench) == ["the guard was away for too long"]


def test_under_an_oath_a_restarted_keeper_holds_the_oaths_epoch_and_no_other() -> None:
    """The agent may have planned the leader's epoch already; no grant has named it yet."""
    book = Book().with_oath("web", Sworn(5, 90.0), "by root", 1.0).with_plan(PLAN).with_permitted("web")
    book = book.with_plan(Plan("web", 6, 8, (IP, APP)))
    state = keeper_state(book)
    assert state.plans == {"web": Planned(5, 8)}
    assert state.oaths == {"web": Oath(5, 90.0)}


def test_oaths_and_reports_survive_on_disk(tmp_path: Path) -> None:
    file = PlanFile(tmp_path)
    book = Book(oaths={"web": Sworn(5, 1.5, False, True)}, reports=(Report(1, 2.5, "web", 5, True, "by root"),))
    file.save(book)
    assert file.load() == book
