"""The guard of two nodes, policy alone-allowed: when it takes a group over by itself, and everything that holds it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.guard.plan import Book, PlanFile, Sworn
from hasys.guard.protocol import Address, AddressEntry, Plan, Standby, StoodBy, parse_request, request_to_json
from hasys.lease.tokens import ALONE_AFTER, TokenKeeper
from hasys.lease.wire import Hint, encode
from hasys.model.networks import Fault, Trouble
from tests.unit.guard.fakes import KEY, TIMING
from tests.unit.guard.test_tokens import TokenBench

LONG = ALONE_AFTER * TIMING.ttl
PUBLIC = Address("eth0", "10.77.0.100")


@pytest.fixture
def standby() -> TokenBench:
    """It saw its peer, would take ``web`` over above epoch 4, and hears nothing from now on."""
    bench = TokenBench({}, policy="alone-allowed")
    bench.guard.set_gate(frozenset({PUBLIC}))
    bench.guard.networks = ()
    bench.guard.alone.standbys = {"web": StoodBy(5)}
    bench.advance(1.0)
    return bench


def sworn(bench: TokenBench) -> dict[str, Sworn]:
    return dict(bench.guard.book.oaths)


def test_a_group_is_taken_over_when_nothing_was_heard_for_ten_ttls_and_that_outlives_the_power(
    standby: TokenBench,
) -> None:
    standby.silence(LONG - 1.0)
    assert not sworn(standby)
    standby.silence(2.0)
    assert sworn(standby)["web"].by_policy
    assert "policy alone-allowed" in standby.guard.book.reports[-1].cause
    epoch = sworn(standby)["web"].epoch
    assert epoch >= 5
    standby.guard.plan(Plan("web", epoch, 1, (AddressEntry("eth0", "10.77.0.100", "web-ip"),)))
    standby.silence(2 * TIMING.ttl)
    assert standby.guard.permitted("web", epoch) == "permitted"
    assert standby.guard.book.tokens == {"web": epoch}
    standby.disk.write()
    assert standby.disk.content == {"web": epoch}


def test_an_operators_oath_leaves_no_token() -> None:
    bench = TokenBench({}, policy="alone-allowed")
    epoch = bench.guard.oaths.swear("web", 5, "by root")
    bench.guard.plan(Plan("web", epoch, 1, (AddressEntry("eth0", "10.77.0.100", "web-ip"),)))
    bench.silence(2 * TIMING.ttl)
    assert bench.guard.permitted("web", epoch) == "permitted"
    assert not bench.guard.book.tokens


def test_the_policy_safe_takes_nothing_over() -> None:
    bench = TokenBench({})
    bench.guard.alone.standbys = {"web": StoodBy(5)}
    bench.advance(1.0)
    bench.silence(3 * LONG)
    assert not sworn(bench)


def test_what_has_not_seen_its_peer_since_the_machine_started_stays_out_but_for_what_ran_there_last() -> None:
    bench = TokenBench({"db": 3}, policy="alone-allowed")
    bench.guard.networks = ()
    bench.guard.alone.standbys = {"web": StoodBy(5), "db": StoodBy(4)}
    bench.silence(2 * LONG)
    assert set(sworn(bench)) == {"db"}


def test_a_guard_that_is_restarted_remembers_that_it_saw_its_peer(standby: TokenBench, tmp_path: Path) -> None:
    assert standby.guard.book.met
    file = PlanFile(tmp_path)
    file.save(standby.guard.book)
    again = TokenBench({}, file.load(), policy="alone-allowed")
    again.guard.networks = ()
    again.guard.alone.standbys = {"web": StoodBy(5)}
    again.silence(LONG + 1.0)
    assert "web" in sworn(again)


def test_what_may_live_on_at_the_other_node_is_waited_for_and_a_guard_that_starts_counts_from_its_start(
    standby: TokenBench, tmp_path: Path
) -> None:
    standby.guard.alone.standbys = {"web": StoodBy(5, 5 * LONG)}
    standby.silence(4 * LONG)
    assert not sworn(standby)
    file = PlanFile(tmp_path)
    file.save(standby.guard.book)
    again = TokenBench({}, file.load(), policy="alone-allowed")
    again.guard.networks = ()
    again.guard.alone.standbys = {"web": StoodBy(5, 5 * LONG)}
    again.silence(4 * LONG)
    assert not sworn(again), "it does not know when the other node was heard last"
    again.silence(2 * LONG)
    assert "web" in sworn(again)


def test_while_the_own_store_leads_its_grants_say_that_the_other_node_was_there(standby: TokenBench) -> None:
    standby.guard.alone.standbys = {"web": StoodBy(5, 3 * LONG)}
    standby.advance(4 * LONG)
    standby.silence(2 * LONG)
    assert not sworn(standby)
    standby.silence(LONG + 1.0)
    assert "web" in sworn(standby)


def test_what_ran_here_last_waits_for_nothing_that_the_other_node_had_before() -> None:
    bench = TokenBench({"db": 3}, policy="alone-allowed")
    bench.guard.networks = ()
    bench.guard.alone.standbys = {"db": StoodBy(4, 5 * LONG)}
    bench.silence(LONG + 1.0)
    assert "db" in sworn(bench)


def test_another_store_that_answers_is_a_peer_that_is_there(standby: TokenBench) -> None:
    for _ in range(30):
        standby.silence(LONG / 10)
        last = standby.network.sent[-1]
        standby.guard.datagram(encode(Hint("demo", "n1", last.seq, last.nonce, ""), KEY), foreign=True)
    assert not sworn(standby)
    standby.silence(LONG + 1.0)
    assert "web" in sworn(standby)


def test_the_own_store_proves_nothing_about_the_peer(standby: TokenBench) -> None:
    for _ in range(15):
        standby.silence(LONG / 10)
        last = standby.network.sent[-1]
        standby.guard.datagram(encode(Hint("demo", "n1", last.seq, last.nonce, ""), KEY))
    assert "web" in sworn(standby)


@pytest.mark.parametrize(
    ("trouble", "out"),
    [
        (Trouble("eth0", Fault.LINK, "eth0 has no carrier"), True),
        (Trouble("eth0", Fault.GATEWAY, "the gateway is not reached"), True),
        (Trouble("eth0", Fault.SILENT, "nobody answers", ("n2",), gateway=True), True),
        (Trouble("eth0", Fault.SILENT, "n2 does not answer", ("n2",)), False),
        (Trouble("eth1", Fault.LINK, "eth1 has no carrier"), False),
    ],
)
def test_a_network_that_serves_nobody_keeps_the_node_out_and_never_lets_it_in(
    standby: TokenBench, trouble: Trouble, out: bool
) -> None:
    standby.guard.networks = (trouble,)
    standby.silence(2 * LONG)
    assert bool(sworn(standby)) is not out


def test_without_an_agent_nothing_is_taken_over(standby: TokenBench) -> None:
    standby.guard.agent_here = False
    standby.silence(2 * LONG)
    assert not sworn(standby)


def test_what_an_operator_takes_away_is_not_taken_again_before_a_leader_was_heard(standby: TokenBench) -> None:
    standby.silence(LONG + 1.0)
    epoch = sworn(standby)["web"].epoch
    standby.guard.oaths.forswear("web", "by root: not here")
    assert standby.guard.release("web", epoch) == []
    standby.silence(3 * LONG)
    assert not sworn(standby)
    standby.advance(1.0)
    standby.silence(LONG + 1.0)
    assert sworn(standby)["web"].epoch > epoch


def test_what_slept_listens_again_before_it_serves_again(standby: TokenBench) -> None:
    standby.silence(LONG + 1.0)
    epoch = sworn(standby)["web"].epoch
    standby.guard.plan(Plan("web", epoch, 1, (AddressEntry("eth0", "10.77.0.100", "web-ip"),)))
    standby.silence(2 * TIMING.ttl)
    standby.loop.time += 5.0
    standby.silence(LONG / 2)
    assert not sworn(standby)
    standby.silence(LONG)
    assert sworn(standby)["web"].epoch > epoch


def test_the_agents_word_about_what_it_stands_by_for_is_read_as_it_was_written() -> None:
    said = Standby({"web": StoodBy(5, 5.5), "db": StoodBy(1)})
    assert parse_request(json.dumps({"id": 1, **request_to_json(said)}).encode()) == (1, said)


def test_an_oath_that_an_earlier_version_kept_is_an_operators(tmp_path: Path) -> None:
    file = PlanFile(tmp_path)
    file.save(Book(oaths={"web": Sworn(5, 1.0)}))
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace('true,false,false,0.0,""]', "true,false]"))
    assert "[5,1.0,true,false]" in (tmp_path / "plan.json").read_text()
    assert file.load().oaths == {"web": Sworn(5, 1.0)}


def test_the_end_of_an_oath_tells_when_and_why_it_had_begun_also_after_a_restart(tmp_path: Path) -> None:
    file = PlanFile(tmp_path)
    file.save(Book().with_oath("web", Sworn(5, 1.0), "policy x: silence", 100.0))
    kept = file.load()
    kept = kept.with_oath("web", replace(kept.oaths["web"], free=False))
    ended = kept.with_oath("web", None, "revoked", 160.0).reports[-1]
    assert (ended.begun, ended.time, ended.since, ended.cause, ended.why) == (
        False, 160.0, 100.0, "revoked", "policy x: silence",
    )  # fmt: skip
    file.save(kept.with_oath("web", None, "revoked", 160.0))
    assert file.load().reports[-1] == ended


def test_the_keeper_says_its_policy_and_safe_has_no_name(standby: TokenBench) -> None:
    assert standby.network.sent[-1].policy == "alone-allowed"
    assert TokenBench({}).network.sent[-1].policy == ""
    assert isinstance(standby.keeper, TokenKeeper)
