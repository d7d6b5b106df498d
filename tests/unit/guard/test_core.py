"""What the guard does with grants, plans, failures of the kernel and of the disk."""

from __future__ import annotations

import pytest

from hasys.guard.gate import GateChanged, LeaseOver
from hasys.guard.parts import Refused
from hasys.guard.plan import Agent, Book, StaleEpoch
from hasys.guard.protocol import Address, AddressEntry, CgroupEntry, Plan, StoreAt
from hasys.lease.keeping import Stale
from hasys.lease.wire import DISK_NOTE
from hasys.model import level
from tests.unit.guard.fakes import TIMING, Bench

IP = AddressEntry("eth0", "10.77.0.100", "web-ip")
APP = CgroupEntry("/cg/groups/web/web-app", "web-app")
PLAN = Plan("web", 1, 7, (IP, APP))
AGENT = Agent(7, 99, "/cg/agent")


@pytest.fixture
def bench() -> Bench:
    made = Bench(Book(agent=AGENT))
    made.guard.start()
    return made


def hold(bench: Bench) -> None:
    """Group web planned, permitted, and there."""
    bench.grant(web=(1, 7))
    assert bench.guard.plan(PLAN) == "permitted"
    bench.machine.there |= {IP.address, APP.path}


def test_keep_alives_go_to_the_stores_of_today(bench: Bench) -> None:
    """node.yaml names n1, n2 and w; w was replaced, and the leader is a store that node.yaml does not know."""
    hold(bench)
    bench.guard.set_stores([StoreAt("n1", ("10.0.0.1",), 7413), StoreAt("w2", ("10.0.0.9",), 7413)], 1)
    assert [store.name for store in bench.network.stores] == ["n1", "w2"]
    bench.network.to.clear()
    bench.loop.advance(0.25)
    assert set(bench.network.to) == {("n1", "w2")}, "no answer is there, so all are asked"
    assert bench.keeper.holdings(), "a change of the members ends nothing"
    assert bench.gate.held == {"web": {IP.address}}


def test_keep_alives_take_one_network_while_they_are_answered_and_all_when_an_answer_is_missing(bench: Bench) -> None:
    assert bench.network.everywhere == [True], "nobody has answered yet"
    hold(bench)
    bench.network.everywhere.clear()
    bench.advance(1.0, web=(1, 7))
    assert set(bench.network.everywhere) == {False}
    bench.network.everywhere.clear()
    bench.loop.advance(2 * TIMING.keepalive)
    first, *retries = bench.network.everywhere
    assert not first
    assert set(retries) == {True}


def test_a_plan_is_durable_and_gated_before_anything_is_permitted(bench: Bench) -> None:
    assert bench.guard.plan(PLAN) == "pending"
    assert bench.store.saved.plans["web"].plan == PLAN
    assert IP.address in bench.gate.gated
    assert bench.gate.held == {}


def test_a_push_of_the_leader_lets_the_address_speak_and_tells_the_agent(bench: Bench) -> None:
    bench.guard.plan(PLAN)
    bench.grant(web=(1, 7))
    assert bench.gate.held == {"web": {IP.address}}
    assert bench.events("permitted") == [{"event": "permitted", "group": "web", "epoch": 1}]
    assert bench.store.saved.plans["web"].permitted


def test_the_answer_to_a_plan_is_not_repeated_as_an_event(bench: Bench) -> None:
    hold(bench)
    assert bench.events("permitted") == []


@pytest.mark.parametrize("named", [(1, 6), (1, 8), (2, 7)])
def test_a_grant_of_another_version_or_epoch_permits_nothing(bench: Bench, named: tuple[int, int]) -> None:
    bench.guard.plan(PLAN)
    bench.grant(web=named)
    assert bench.gate.held == {}


def test_the_kernel_gets_each_extension_and_never_more_than_the_grant(bench: Bench) -> None:
    hold(bench)
    bench.advance(3.0, web=(1, 7))
    assert bench.gate.until["web"] <= bench.loop.time + TIMING.ttl
    assert bench.gate.until["web"] > bench.loop.time + TIMING.ttl / 2


def test_a_lease_that_ends_fences_within_its_budget_and_tells_every_store(bench: Bench) -> None:
    hold(bench)
    cut = bench.loop.time
    bench.loop.advance(TIMING.ttl - TIMING.fence_budget + 0.001)
    assert bench.gate.held == {}
    assert bench.machine.there == set()
    assert bench.machine.agents_killed == 1
    assert bench.store.saved.floors == {"web": 1}
    assert bench.network.sent[-1].released == (("web", 1),)
    assert bench.loop.time < cut + TIMING.ttl


def test_a_revoked_group_that_only_was_pending_does_not_cost_the_agent_its_life(bench: Bench) -> None:
    bench.guard.plan(PLAN)
    bench.machine.there.add(IP.address)  # put there early, muted
    bench.grant(web=(1, 6))
    bench.grant()
    assert bench.machine.agents_killed == 0
    assert bench.machine.there == set()
    assert bench.store.saved.floors == {"web": 1}


def test_what_does_not_die_is_never_reported_as_released(bench: Bench) -> None:
    hold(bench)
    bench.machine.immortal.add(APP.path)
    bench.grant()
    bench.advance(5.0)
    assert bench.guard.blockers("web") == [f"processes in {APP.path} do not die"]
    assert not bench.guard.health().armed
    assert not bench.network.sent[-1].released
    with pytest.raises(Refused, match="is being fenced"):
        bench.guard.plan(Plan("web", 2, 8, (IP,)))
    bench.machine.immortal.clear()
    bench.advance(0.2)
    assert bench.network.sent[-1].released == (("web", 1),)
    assert bench.guard.health().armed


def test_a_release_names_what_is_left_and_keeps_it_silent(bench: Bench) -> None:
    hold(bench)
    left = bench.guard.release("web", 1)
    assert left == ["web-ip: address 10.77.0.100 is still on eth0", f"web-app: processes are still in {APP.path}"]
    bench.advance(0.5, web=(1, 7))
    assert bench.gate.held == {}
    assert bench.guard.permitted("web", 1) == "pending"
    bench.machine.there.clear()
    assert bench.guard.release("web", 1) == []
    assert bench.network.sent[-1].released == (("web", 1),)
    with pytest.raises(Stale, match="was released"):
        bench.guard.permitted("web", 1)


def test_a_release_is_not_told_before_it_is_durable(bench: Bench) -> None:
    hold(bench)
    bench.machine.there.clear()
    bench.store.full = True
    with pytest.raises(Refused, match="No space left"):
        bench.guard.release("web", 1)
    assert not bench.network.sent[-1].released
    assert not bench.guard.health().armed


def test_a_fence_is_not_told_before_it_is_durable(bench: Bench) -> None:
    hold(bench)
    bench.store.full = True
    bench.grant()
    bench.advance(1.0)
    assert bench.machine.there == set()
    assert not bench.network.sent[-1].released
    bench.store.full = False
    bench.advance(0.2)
    assert bench.network.sent[-1].released == (("web", 1),)


def test_a_plan_that_cannot_be_stored_is_refused_and_changes_nothing(bench: Bench) -> None:
    bench.store.full = True
    with pytest.raises(Refused, match="cannot be stored: No space left"):
        bench.guard.plan(PLAN)
    assert bench.guard.book.plans == {}
    assert bench.gate.gated == frozenset()


def test_a_plan_whose_addresses_cannot_be_gated_is_refused_and_forgotten(bench: Bench) -> None:
    bench.gate.broken = True
    with pytest.raises(Refused, match="no memory"):
        bench.guard.plan(PLAN)
    assert bench.store.saved.plans == {}
    assert not bench.guard.health().armed
    bench.gate.broken = False
    assert bench.guard.plan(PLAN) == "pending"
    assert bench.guard.health().armed


def test_a_machine_without_a_gate_takes_no_addresses_but_may_run_processes() -> None:
    bench = Bench()
    bench.guard.parts.gate = None
    bench.guard.parts.gateless = "no nftables here"
    with pytest.raises(Refused, match="no nftables here"):
        bench.guard.plan(PLAN)
    assert bench.guard.plan(Plan("web", 1, 7, (APP,))) == "pending"


def test_an_older_plan_is_refused(bench: Bench) -> None:
    bench.guard.plan(Plan("web", 2, 7, ()))
    with pytest.raises(StaleEpoch):
        bench.guard.plan(PLAN)


def test_an_address_that_cannot_be_made_live_in_time_fences_its_group_alone(bench: Bench) -> None:
    bench.grant(web=(1, 7), db=(1, 7))
    bench.guard.plan(Plan("db", 1, 7, ()))
    bench.gate.fails = LeaseOver("gate: too late")
    with pytest.raises(Stale):
        bench.guard.plan(PLAN)
    assert bench.store.saved.floors == {"web": 1}
    assert bench.guard.permitted("db", 1) == "permitted"


def test_a_gate_that_somebody_removed_is_repaired_and_nothing_is_fenced(bench: Bench) -> None:
    hold(bench)
    bench.gate.fails = GateChanged("gate: gone")
    bench.advance(0.1, web=(1, 7))
    assert bench.gate.counts.reinstalled == 1
    assert bench.gate.held == {"web": {IP.address}}
    assert bench.store.saved.floors == {}


def test_a_gate_that_cannot_be_repaired_fences_what_it_held(bench: Bench) -> None:
    hold(bench)
    bench.gate.unchanged, bench.gate.broken = False, True
    bench.guard.nft_changed()
    assert bench.store.saved.floors == {"web": 1}
    assert bench.machine.there == set()


def test_an_agent_that_is_connected_but_answers_nothing_is_not_said_to_be_alive(bench: Bench) -> None:
    bench.guard.agent_here, bench.guard.agent_seen = True, bench.loop.time
    bench.guard.networks_are(())
    bench.loop.advance(TIMING.agent_grace / 2 - 0.1)
    assert bench.guard.health().agent
    bench.loop.advance(0.2)
    assert not bench.guard.health().agent


def test_an_agent_that_stays_away_costs_the_lease_after_the_grace_time(bench: Bench) -> None:
    hold(bench)
    gone = bench.loop.time
    while bench.loop.time < gone + TIMING.agent_grace - 0.1:
        bench.loop.advance(0.02)
        bench.grant(web=(1, 7))
    assert bench.gate.held == {"web": {IP.address}}
    while bench.loop.time < gone + TIMING.agent_grace + 1.1:
        bench.loop.advance(0.02)
        bench.grant(web=(1, 7))
    assert bench.store.saved.floors == {"web": 1}
    assert "the agent has not been heard for" in bench.events("revoked")[0]["reason"]


def test_an_address_stays_gated_until_it_is_off_its_interface(bench: Bench) -> None:
    bench.guard.set_gate(frozenset({Address("eth0", "10.77.0.9")}))
    bench.machine.there.add("10.77.0.9")
    bench.guard.set_gate(frozenset())
    assert bench.gate.gated == {"10.77.0.9"}
    bench.machine.there.clear()
    bench.guard.links_changed()
    assert bench.gate.gated == frozenset()


def test_every_interface_is_gated_but_ports_of_a_bridge(bench: Bench) -> None:
    bench.guard.plan(PLAN)
    assert bench.gate.named == {"eth0"}
    assert bench.gate.others == {"eth1"}


def test_a_guard_that_returns_in_time_goes_on(bench: Bench) -> None:
    book = Book(agent=AGENT).with_plan(PLAN).with_permitted("web")
    again = Bench(book, remaining={"web": 0.8})
    again.machine.there |= {IP.address, APP.path}
    again.gate.held["web"] = frozenset({IP.address})
    again.guard.start()
    assert again.network.sent[-1].held == (("web", 1),)
    again.advance(2.0, web=(1, 7))
    assert again.gate.held == {"web": {IP.address}}
    assert again.store.saved.floors == {}


def test_a_guard_that_returns_too_late_fences_before_its_first_keepalive() -> None:
    again = Bench(Book(agent=AGENT).with_plan(PLAN).with_permitted("web"))
    again.machine.there |= {IP.address, APP.path}
    again.guard.start()
    assert again.network.sent[0].released == (("web", 1),)
    assert again.network.sent[0].held == ()
    assert again.machine.there == set()


def test_a_plan_that_was_pending_at_a_restart_still_is() -> None:
    again = Bench(Book(agent=AGENT).with_plan(PLAN))
    again.guard.start()
    assert again.store.saved.floors == {}
    again.grant(web=(1, 7))
    assert again.guard.permitted("web", 1) == "permitted"


def test_foreign_and_repeated_datagrams_are_counted_or_dropped(bench: Bench) -> None:
    bench.guard.datagram(b"garbage" * 20)
    assert bench.guard.counts == {"not-ours": 1}


def test_what_another_process_of_the_node_notes_is_said_and_disarms_nothing(bench: Bench) -> None:
    notes = ["store: no space left"]
    bench.guard.parts.note = lambda: notes[-1]
    bench.advance(2.0)
    assert bench.network.sent[-1].health.armed
    assert bench.network.sent[-1].health.message == "store: no space left"
    notes.append("")
    bench.advance(2.0)
    assert bench.network.sent[-1].health.message == ""


def test_stores_hear_that_the_disk_is_full_once_all_of_them_understand_it(bench: Bench) -> None:
    """A leader of the version before would refuse the whole keep-alive, and take the node for lost."""
    stores = [StoreAt("n1", ("10.0.0.1",), 7413)]
    bench.guard.parts.note = lambda: f"{DISK_NOTE}No space left on device"
    bench.advance(2.0)
    assert not bench.network.sent[-1].health.disk_failed
    assert "No space left" in bench.network.sent[-1].health.message
    bench.guard.set_stores(stores, level.DISK_FAILED)
    bench.advance(2.0)
    assert bench.network.sent[-1].health.disk_failed
