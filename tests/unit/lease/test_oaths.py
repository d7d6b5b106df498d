"""An operator's oath, rule by rule, on both sides (docs/decisions/0005). Times are seconds of the clock in question."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest

from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.lease.granting import Granter
from hasys.lease.keeping import Extend, Keeper, KeeperState, Oath, OathTaken, Permit, Planned, Revoke, Stale
from hasys.lease.wire import Grant, KeepAlive, decode, encode
from hasys.model.errors import Refused
from hasys.model.timing import BY_NAME, over
from hasys.store.port import Authority

TIMING = BY_NAME["default"]
"""Round figures that never change: what is computed by hand here stays true."""

BEGIN = 10.0 + over(TIMING.ttl)
"""When what was sworn at 10.0 is permitted."""


def keeper(restored: KeeperState | None = None, remaining: Mapping[str, float] | None = None) -> Keeper:
    nonces = itertools.count(100)
    return Keeper("c", "n1", ("n1", "n2", "w"), TIMING, "boot", lambda: next(nonces), restored, remaining)


def beat(k: Keeper, now: float) -> KeepAlive:
    """What the guard's shell does when a keep-alive is due; the effects are in ``k.done``."""
    effects = k.expire(now)
    message, _ = k.keepalive(now)
    k.done = [*effects, *k.renew(now)]  # type: ignore[attr-defined]
    return message


def live(k: Keeper, since: float, until: float) -> KeepAlive:
    """Keep-alives at their interval; returns the last."""
    message = beat(k, since)
    while since + TIMING.keepalive <= until:
        since += TIMING.keepalive
        message = beat(k, since)
    return message


def sworn(until: float = BEGIN) -> Keeper:
    """Web sworn at 10.0 as epoch 5, planned at version 7; alive until then."""
    k = keeper()
    k.swear("web", 5, 10.0)
    k.plan("web", 5, 7, 10.0)
    live(k, 10.0, until - TIMING.keepalive / 2)
    beat(k, until)
    return k


def answer(to: KeepAlive, *groups: tuple[str, int, int], **more: object) -> Grant:
    made = Grant("c", "n2", 1, "n1", to.seq, to.nonce, 1, 0.0, TIMING.ttl, groups)
    return replace(made, **more)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the guard


def test_an_oath_begins_only_when_every_earlier_lease_has_ended() -> None:
    k = keeper()
    k.swear("web", 5, 10.0)
    k.plan("web", 5, 7, 10.0)
    live(k, 10.0, BEGIN - 0.09)
    assert k.permitted("web", 5, BEGIN - 0.09) == "pending"
    beat(k, BEGIN)
    assert Permit("web", 5, 7, BEGIN + TIMING.ttl) in k.done  # type: ignore[attr-defined]
    assert k.permitted("web", 5, BEGIN) == "permitted"


def test_each_keepalive_says_what_is_sworn_and_then_renews_it_by_one_ttl() -> None:
    k = sworn()
    message = beat(k, 11.2)
    assert message.sworn == (("web", 5, True),)
    assert message.held == ()
    assert k.done == [Extend({"web": 11.2 + TIMING.ttl})]  # type: ignore[attr-defined]


def test_an_oath_is_renewed_by_the_ttl_of_the_newest_grant_where_that_is_shorter() -> None:
    """The next leader counts that one."""
    k = keeper()
    k.received(answer(beat(k, 1.0), ttl=0.5), 1.0)
    k.swear("web", 5, 10.0)
    k.plan("web", 5, 7, 10.0)
    live(k, 10.0, BEGIN)
    beat(k, BEGIN + 0.1)
    beat(k, BEGIN + 0.2)
    assert k.done == [Extend({"web": BEGIN + 0.2 + 0.5})]  # type: ignore[attr-defined]


def test_an_oath_is_refused_while_a_leader_answers() -> None:
    k = keeper()
    k.received(answer(beat(k, 10.0)), 10.0)
    with pytest.raises(Refused, match="there is a majority"):
        k.swear("web", 5, 10.5)
    k.expire(12.0)
    k.swear("web", 5, 12.0)


def test_an_oath_is_refused_at_an_epoch_that_was_released_here() -> None:
    k = keeper(KeeperState({"web": 5}, {}))
    with pytest.raises(Stale):
        k.swear("web", 5, 10.0)


def test_a_node_that_overslept_has_broken_its_oath() -> None:
    k = sworn(until=12.0)
    effects = k.expire(14.0)
    assert [(e.group, e.epoch) for e in effects if isinstance(e, Revoke)] == [("web", 5)]
    assert k.oaths() == {}
    assert beat(k, 14.0).sworn == ()
    with pytest.raises(Stale):
        k.permitted("web", 5, 14.0)


def test_an_oath_that_has_not_begun_does_not_survive_a_sleep_either() -> None:
    k = keeper()
    k.swear("web", 5, 10.0)
    k.plan("web", 5, 7, 10.0)
    k.expire(20.0)
    beat(k, 20.0)
    assert k.oaths() == {}
    assert not [e for e in k.done if isinstance(e, Permit)]  # type: ignore[attr-defined]


def test_the_first_answer_of_a_leader_ends_the_renewal() -> None:
    k = sworn()
    asked = beat(k, 11.2)
    effects = k.received(answer(asked, kept=(("web", 5),), probe=True), 11.25)
    assert OathTaken("web", 5) in effects
    assert not [e for e in effects if isinstance(e, Revoke)]
    live(k, 11.3, 12.0)
    assert k.holdings()["web"].until == 11.2 + TIMING.ttl
    assert [e for e in k.expire(11.2 + TIMING.ttl - TIMING.fence_budget) if isinstance(e, Revoke)]


def test_a_kept_oath_lives_by_the_leaders_grants() -> None:
    k = sworn()
    k.received(answer(beat(k, 11.2), kept=(("web", 5),), probe=True), 11.2)
    effects = k.received(answer(beat(k, 11.5), kept=(("web", 5),), version=2), 11.5)
    assert effects == [Extend({"web": 11.5 + TIMING.ttl})]


@pytest.mark.parametrize("more", [{}, {"probe": True}, {"withheld": (("web", 6),)}], ids=["grant", "probe", "withheld"])
def test_an_answer_that_does_not_keep_the_oath_revokes_it_at_once(more: dict[str, object]) -> None:
    k = sworn()
    effects = k.received(answer(beat(k, 11.2), **more), 11.2)
    assert [(e.group, e.epoch) for e in effects if isinstance(e, Revoke)] == [("web", 5)]


def test_a_leader_that_gives_the_group_to_this_node_replaces_the_oath_without_a_gap() -> None:
    k = sworn()
    k.received(answer(beat(k, 11.2), kept=(("web", 5),), probe=True), 11.2)
    effects = k.received(answer(beat(k, 11.3), ("web", 6, 7), version=2), 11.3)
    assert Extend({"web": 11.3 + TIMING.ttl}) in effects
    assert not [e for e in effects if isinstance(e, Revoke)]
    assert k.permitted("web", 6, 11.3) == "pending"
    state, effects = k.plan("web", 6, 7, 11.35)
    assert (state, effects) == ("permitted", [Permit("web", 6, 7, 11.3 + TIMING.ttl)])
    assert beat(k, 11.4).held == (("web", 6),)


def test_a_plan_for_the_leaders_epoch_that_comes_before_its_grant_stops_nothing() -> None:
    k = sworn()
    k.received(answer(beat(k, 11.2), kept=(("web", 5),), probe=True), 11.2)
    assert k.plan("web", 6, 7, 11.25) == ("pending", [])
    assert beat(k, 11.26).held == ()
    effects = k.received(answer(beat(k, 11.3), ("web", 6, 7), version=2), 11.3)
    assert Permit("web", 6, 7, 11.3 + TIMING.ttl) in effects


@pytest.mark.parametrize("late_probe", [False, True])
def test_an_answer_that_kept_the_oath_and_comes_behind_the_grant_that_replaces_it_stops_nothing(
    *, late_probe: bool
) -> None:
    k = sworn()
    k.received(answer(beat(k, 11.2), kept=(("web", 5),), probe=True), 11.2)
    asked = beat(k, 11.3)
    k.plan("web", 6, 7, 11.3)
    k.received(answer(asked, ("web", 6, 7), version=2), 11.31)
    before = answer(asked, kept=(("web", 5),), withheld=(("web", 6),), version=2, probe=late_probe)
    assert k.received(before, 11.32) == []
    assert k.permitted("web", 6, 11.32) == "permitted"


def test_a_restarted_guard_goes_on_only_with_what_the_kernel_still_carries() -> None:
    state = KeeperState({}, {"web": Planned(5, 7)}, {"web": Oath(5, 9.0)})
    k = keeper(state, {"web": 10.5})
    assert beat(k, 10.2).sworn == (("web", 5, True),)
    assert k.holdings()["web"].until == 10.2 + TIMING.ttl
    late = keeper(state, {})
    assert [e for e in late.expire(10.2) if isinstance(e, Revoke)]
    assert beat(late, 10.2).sworn == ()


def test_a_release_ends_the_oath() -> None:
    k = sworn()
    k.released("web", 5, 11.2)
    assert k.oaths() == {}
    assert beat(k, 11.2).released == (("web", 5),)


def test_oaths_travel_in_datagrams() -> None:
    message = KeepAlive("c", "n1", "b", 1, 2, None, None, sworn=(("web", 5, True),))
    assert decode(encode(message, bytes(32)), "c", lambda _: bytes(32)) == message
    grant = Grant("c", "n2", 1, "n1", 1, 2, 3, 0.0, 1.0, kept=(("web", 5),))
    assert decode(encode(grant, bytes(32)), "c", lambda _: bytes(32)) == grant


# ---------------------------------------------------------------------- the leader

LATE = 100.0
"""Long after every earlier leader."""
WEB = GroupAssignment("n2", 4, 7, candidates=frozenset({"n1", "n2", "n3"}))


class Leader:
    def __init__(self, web: GroupAssignment = WEB, silent_since: float = 0.0) -> None:
        self.granter = Granter("c", "n3", ("n1", "n2", "n3"), TIMING)
        self.assignments = Assignments({"web": web})
        self.silent_since = silent_since
        self.seq = itertools.count(1)

    def assign(self, web: GroupAssignment, fenced: Mapping[str, str] | None = None) -> None:
        self.assignments = Assignments({"web": web}, fenced or {})

    def authority(self, now: float) -> Authority:
        return Authority(5, 42, now, self.silent_since)

    def hear(
        self, node: str, now: float, *, sworn: int = 0, held: int = 0, term: int | None = 5, **more: object
    ) -> Grant:
        seq = next(self.seq)
        message = KeepAlive(
            "c", node, "b", seq, seq, None if term is None else (term, 1), None if term is None else 0.0,
            (("web", held),) if held else (), sworn=(("web", sworn, term is None),) if sworn else (),
        )  # fmt: skip
        message = replace(message, **more)  # type: ignore[arg-type]
        grant = self.granter.heard(message, now, self.authority(now), self.assignments)
        assert grant is not None
        return grant


def test_an_oath_is_kept_when_nobody_else_runs_the_group() -> None:
    one = Leader()
    assert one.hear("n1", LATE, sworn=5, term=None).kept == (("web", 5),)
    assert one.hear("n1", LATE + 0.1, sworn=5).kept == (("web", 5),)
    assert one.granter.facts(LATE + 0.1)["n1"].claims == {"web": 5}


@pytest.mark.parametrize("web", [replace(WEB, candidates=frozenset({"n2"})), replace(WEB, candidates=frozenset())])
def test_an_oath_of_no_candidate_or_for_a_deleted_group_is_not_kept(web: GroupAssignment) -> None:
    assert Leader(web).hear("n1", LATE, sworn=5).kept == ()


def test_an_oath_is_not_kept_against_a_node_that_runs_the_group_by_a_grant() -> None:
    one = Leader()
    one.hear("n2", LATE, held=4)
    assert one.hear("n1", LATE + 0.1, sworn=5).kept == ()


def test_of_two_oaths_the_assigned_nodes_is_kept() -> None:
    one = Leader()
    one.hear("n2", LATE, sworn=5)
    assert one.hear("n1", LATE + 0.1, sworn=5).kept == ()
    assert one.hear("n2", LATE + 0.2, sworn=5).kept == (("web", 5),)


def test_nobody_else_is_named_while_an_oath_that_nothing_limits_is_known() -> None:
    one = Leader()
    one.hear("n1", LATE, sworn=5, term=None)
    assert one.hear("n2", LATE + 50.0).groups == ()
    assert "n1" in one.granter.may_hold("web", LATE + 50.0)


@pytest.mark.parametrize("seed_ttl", [0.0, 3.0])
def test_an_oath_counts_for_as_long_as_a_guard_that_never_heard_a_leader_renews_it(seed_ttl: float) -> None:
    one = Leader()
    one.granter.seed_ttl = seed_ttl
    one.hear("n1", LATE, sworn=5, term=None)
    one.assign(replace(WEB, candidates=frozenset({"n2"})))
    one.hear("n1", LATE + 0.1, sworn=5)
    ends = LATE + 0.1 + over(max(TIMING.ttl, seed_ttl))
    assert one.hear("n2", ends - 0.01).groups == ()
    assert one.hear("n2", ends + 0.01).groups == (("web", 4, 7),)


def test_an_oath_that_this_leader_kept_ends_with_its_last_grant() -> None:
    one = Leader()
    one.hear("n1", LATE, sworn=5, term=None)
    one.hear("n1", LATE + 0.1, sworn=5)
    over_at = LATE + 0.1 + over(TIMING.ttl)
    assert one.hear("n2", over_at - 0.01).groups == ()
    assert one.hear("n2", over_at + 0.01).groups == (("web", 4, 7),)


@pytest.mark.parametrize("candidates", [{"n1", "n2"}, {"n2"}], ids=["kept", "only-counted"])
def test_what_may_live_on_where_an_oath_ends_is_waited_for(candidates: set[str]) -> None:
    one = Leader(replace(WEB, lingers={"n1": 10.5}, candidates=frozenset(candidates)))
    one.hear("n1", LATE, sworn=5, term=None)
    one.hear("n1", LATE + 0.1, sworn=5)
    over_at = LATE + 0.1 + over(10.5)
    assert one.hear("n2", over_at - 0.01).groups == ()
    assert one.hear("n2", over_at + 0.01).groups == (("web", 4, 7),)


def test_a_confirmed_fence_ends_an_oath_that_nothing_limits() -> None:
    one = Leader()
    one.hear("n1", LATE, sworn=5, term=None)
    one.assign(WEB, {"n1": "b"})
    assert one.hear("n2", LATE + 2.0).groups == (("web", 4, 7),)


def test_a_release_of_the_oath_frees_the_group_at_once() -> None:
    one = Leader()
    one.hear("n1", LATE, sworn=5, term=None)
    one.hear("n1", LATE + 0.1, sworn=5)
    one.hear("n1", LATE + 0.2, released=(("web", 5),))
    assert one.hear("n2", LATE + 0.3).groups == (("web", 4, 7),)


def test_the_adopted_epoch_is_named_beside_no_oath() -> None:
    one = Leader()
    one.hear("n1", LATE, sworn=5, term=None)
    one.assign(replace(WEB, node="n1", epoch=6, previous_node="n2", previous_epoch=4, revoked=True))
    grant = one.hear("n1", LATE + 0.1, sworn=5)
    assert grant.groups == (("web", 6, 7),)
    assert grant.kept == ()
    assert one.granter.facts(LATE + 0.1)["n1"].claims == {"web": 5}, "nothing says yet that the grant arrived"
    one.hear("n1", LATE + 0.2, held=6)
    assert one.granter.facts(LATE + 0.2)["n1"].claims == {}


def test_until_the_adopted_epoch_may_be_named_the_oath_is_kept() -> None:
    one = Leader(silent_since=LATE - 0.5)
    one.hear("n1", LATE, sworn=5, term=None)
    one.assign(replace(WEB, node="n1", epoch=6, previous_node="n2", previous_epoch=4, revoked=True))
    grant = one.hear("n1", LATE + 0.1, sworn=5)
    assert (grant.groups, grant.kept) == ((), (("web", 5),))
    assert one.hear("n1", LATE + 0.6, sworn=5).groups == (("web", 6, 7),)


def test_an_oath_whose_node_is_no_candidate_any_more_is_revoked_by_a_push() -> None:
    one = Leader()
    one.hear("n1", LATE, sworn=5, term=None)
    one.hear("n1", LATE + 0.1, sworn=5)
    one.assign(replace(WEB, candidates=frozenset({"n2"})))
    (push,) = one.granter.due(LATE + 0.15, one.authority(LATE + 0.15), one.assignments)
    assert (push.node, push.kept) == ("n1", ())


def test_an_oath_that_was_heard_before_this_store_led_counts() -> None:
    one = Leader()
    early = KeepAlive("c", "n1", "b", 1, 1, None, None, sworn=(("web", 5, True),))
    assert one.granter.heard(early, LATE, None, one.assignments) is None
    assert one.hear("n2", LATE + 2.0).groups == ()


def test_a_node_under_oath_is_not_named_at_an_older_epoch_of_its_own() -> None:
    """After a reboot it remembers no floor; the leader still has it as the holder."""
    one = Leader(replace(WEB, node="n1"))
    grant = one.hear("n1", LATE, sworn=5)
    assert (grant.groups, grant.kept) == ((), (("web", 5),))


def test_a_node_under_oath_that_was_never_heard_since_can_be_fence_confirmed_by_its_boot() -> None:
    one = Leader()
    early = KeepAlive("c", "n1", "b7", 1, 1, None, None, sworn=(("web", 5, True),))
    one.granter.heard(early, LATE, None, one.assignments)
    facts = one.granter.facts(LATE)["n1"]
    assert (facts.boot, facts.oaths) == ("b7", {"web": 5})
    one.assign(WEB, {"n1": facts.boot})
    assert one.hear("n2", LATE + 2.0).groups == (("web", 4, 7),)
