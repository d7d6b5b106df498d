"""The guard's side, rule by rule. All times are seconds of the guard's clock."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from hasys.lease.keeping import (
    Extend,
    Ignored,
    Keeper,
    KeeperState,
    LeaseChanged,
    Permit,
    Planned,
    Revoke,
    Stale,
)
from hasys.lease.wire import LARGEST, Grant, Hint, KeepAlive, encode
from hasys.model.timing import BY_NAME

TIMING = BY_NAME["default"]
"""Round figures that never change: what is computed by hand here stays true."""

STORES = ("n1", "n2", "w")


def near(seconds: float) -> Any:
    """Equal but for rounding."""
    return pytest.approx(seconds)


def keeper(restored: KeeperState | None = None, remaining: dict[str, float] | None = None) -> Keeper:
    nonces = itertools.count(100)
    return Keeper("c", "n1", STORES, TIMING, "boot", lambda: next(nonces), restored, remaining)


def ask(k: Keeper, now: float) -> KeepAlive:
    return k.keepalive(now)[0]


def grant(to: KeepAlive, *groups: tuple[str, int, int], term: int = 1, version: int = 1, **more: object) -> Grant:
    made = Grant("c", "n2", term, "n1", to.seq, to.nonce, version, 0.05, TIMING.ttl, groups)
    return replace(made, **more)  # type: ignore[arg-type]


def holding(now: float = 10.0) -> Keeper:
    """Permitted web at epoch 1, version 7, until ``now`` + 0.95."""
    k = keeper()
    k.plan("web", 1, 7, now)
    effects = k.received(grant(ask(k, now), ("web", 1, 7)), now + 0.001)
    assert Permit("web", 1, 7, near(now + 0.95)) in effects
    return k


def test_the_end_is_counted_from_before_the_keepalive_was_sent_minus_the_age() -> None:
    k = keeper()
    asked = ask(k, 10.0)
    k.received(grant(asked, ("web", 1, 7)), 10.4)
    assert k.holdings()["web"].until == near(10.95)
    assert k.lease(10.4) == (True, near(0.55), 1)


def test_nothing_is_permitted_without_a_plan_of_the_version_that_the_grant_names() -> None:
    k = keeper()
    assert k.received(grant(ask(k, 10.0), ("web", 1, 7)), 10.0) == [LeaseChanged(True)]
    assert k.plan("web", 1, 6, 10.1) == ("pending", [])
    assert k.permitted("web", 1, 10.1) == "pending"
    state, effects = k.plan("web", 1, 7, 10.2)
    assert (state, effects) == ("permitted", [Permit("web", 1, 7, near(10.95))])
    assert k.permitted("web", 1, 10.2) == "permitted"


def test_a_newer_plan_waits_while_what_was_permitted_goes_on() -> None:
    k = holding()
    assert k.plan("web", 1, 8, 10.1)[0] == "pending"
    effects = k.received(grant(ask(k, 10.2), ("web", 1, 7)), 10.2)
    assert effects == [Extend({"web": near(11.15)})]
    effects = k.received(grant(ask(k, 10.3), ("web", 1, 8), version=2), 10.3)
    assert effects == [Permit("web", 1, 8, near(11.25)), Extend({"web": near(11.25)})]


def test_a_group_missing_from_the_newest_grant_is_revoked_at_once_and_only_it() -> None:
    k = holding()
    k.plan("db", 4, 1, 10.0)
    k.received(grant(ask(k, 10.1), ("web", 1, 7), ("db", 4, 1)), 10.1)
    effects = k.received(grant(ask(k, 10.2), ("db", 4, 1), version=2), 10.2)
    assert effects == [Revoke("web", 1, "revoked by n2 in term 1"), Extend({"db": near(11.15)})]
    assert k.fencing() == {"web": 1}


def test_what_is_withheld_stays_until_its_own_end_and_is_not_extended() -> None:
    k = holding()
    effects = k.received(grant(ask(k, 10.5), withheld=(("web", 1),), term=2, probe=True), 10.5)
    assert effects == []
    assert k.holdings()["web"].until == near(10.95)
    (revoke,) = (e for e in k.expire(10.85) if isinstance(e, Revoke))
    assert revoke.epoch == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"nonce": 5}, "unknown nonce"),
        ({"seq": 99}, "unknown nonce"),
        ({"node": "n3"}, "not mine"),
        ({"cluster": "d"}, "not mine"),
        ({"term": 0}, "older"),
        ({"version": 0}, "older"),
    ],
)
def test_a_grant_that_is_not_an_answer_or_is_older_than_the_newest_changes_nothing(
    changes: dict[str, object], why: str
) -> None:
    k = holding()
    before = k.holdings()
    assert k.received(replace(grant(ask(k, 10.2), ("db", 1, 1)), **changes), 10.2) == [Ignored(why)]  # type: ignore[arg-type]
    assert k.holdings() == before


def test_giving_up_begins_a_fence_budget_before_the_end() -> None:
    k = holding()
    gives_up = 10.95 - TIMING.fence_budget
    assert k.expire(gives_up - 0.001) == []
    assert k.expire(gives_up) == [Revoke("web", 1, "lease ended")]


def test_a_keeper_that_overslept_gives_up_before_it_takes_a_new_grant() -> None:
    k = holding()
    asked = ask(k, 10.5)
    effects = k.received(grant(asked, ("web", 1, 7)), 12.0)
    assert [type(e) for e in effects] == [Revoke, LeaseChanged]
    assert isinstance(effects[0], Revoke)
    assert "overslept by 1.15s" in effects[0].reason
    assert k.received(grant(ask(k, 12.1), ("web", 1, 7)), 12.1) == [LeaseChanged(True)]


def test_what_was_given_up_is_never_permitted_again_at_that_epoch() -> None:
    k = holding()
    k.expire(10.9)
    with pytest.raises(Stale, match="is being fenced"):
        k.plan("web", 1, 7, 10.9)
    k.released("web", 1, 11.0)
    for epoch in (0, 1):
        with pytest.raises(Stale, match="was released"):
            k.permitted("web", epoch, 11.0)
    k.received(grant(ask(k, 11.1), ("web", 1, 7)), 11.1)
    assert k.holdings() == {}


def test_a_newer_epoch_waits_until_the_older_one_is_fenced() -> None:
    k = holding()
    effects = k.received(grant(ask(k, 10.2), ("web", 2, 7), version=2), 10.2)
    assert [type(e) for e in effects] == [Revoke]
    assert k.plan("web", 2, 7, 10.25)[0] == "pending"
    assert k.released("web", 1, 10.3) == [Permit("web", 2, 7, near(11.15))]


def test_a_plan_of_an_older_epoch_is_refused() -> None:
    k = keeper()
    k.plan("web", 5, 1, 1.0)
    with pytest.raises(Stale, match="older than the plan's 5"):
        k.plan("web", 4, 1, 1.0)


def test_a_plan_that_comes_when_the_lease_has_ended_is_pending_and_the_group_is_given_up() -> None:
    k = holding()
    state, effects = k.plan("web", 1, 8, 11.0)
    assert state == "pending"
    assert Revoke("web", 1, "lease ended, overslept by 150ms") in effects


def test_keepalives_tell_what_is_held_released_and_confirmed() -> None:
    k = holding()
    k.released("db", 3, 10.1)
    message = ask(k, 10.2)
    assert message.held == (("web", 1),)
    assert message.released == (("db", 3),)
    assert message.confirmed == (1, 1)
    assert message.confirmed_age == near(0.199)


def test_keepalives_go_to_the_store_that_granted_last_and_to_all_while_an_answer_is_missing() -> None:
    k = keeper()
    first, targets = k.keepalive(10.0)
    assert targets == STORES
    k.received(grant(first), 10.01)
    assert k.keepalive(10.08)[1] == ("n2",)
    assert k.keepalive(10.16)[1] == STORES


def test_a_group_that_was_just_named_is_reported_at_once_and_then_in_turn() -> None:
    k = holding()
    assert k.keepalive_due(10.001)
    message, targets = k.keepalive(10.001)
    assert (message.held, targets) == ((("web", 1),), ("n2",))
    k.received(grant(message, ("web", 1, 7)), 10.002)
    assert k.next_wakeup(10.002) == near(10.001 + TIMING.keepalive)


def test_a_release_is_told_to_every_store_at_once() -> None:
    k = holding()
    k.received(grant(ask(k, 10.001), ("web", 1, 7)), 10.002)
    assert not k.keepalive_due(10.05)
    k.released("web", 1, 10.05)
    assert k.keepalive_due(10.05)
    message, targets = k.keepalive(10.05)
    assert targets == STORES
    assert message.released == (("web", 1),)


def test_a_probe_is_confirmed_at_once_but_not_without_end() -> None:
    k = keeper()
    sent = 0
    now = 10.0
    while now < 10.0 + TIMING.keepalive and sent < 50:
        asked = ask(k, now)
        sent += 1
        k.received(grant(asked, probe=True), now)
        now = max(now, k.next_wakeup(now))
    assert sent == 5


def test_a_hint_makes_the_keeper_ask_everybody_at_once() -> None:
    k = holding()
    message, targets = k.keepalive(10.1)
    assert targets == ("n2",)
    k.hinted(Hint("c", "n1", message.seq, message.nonce, "w"), 10.101)
    assert k.keepalive_due(10.101)
    message, targets = k.keepalive(10.101)
    assert targets == STORES
    k.hinted(Hint("c", "n1", message.seq, message.nonce, "w"), 10.102)
    assert not k.keepalive_due(10.102)


def test_a_withheld_group_is_asked_for_twice_as_often() -> None:
    k = keeper()
    k.received(grant(ask(k, 10.0), withheld=(("web", 1),)), 10.01)
    assert k.next_wakeup(10.01) == near(10.0 + TIMING.retry)


def test_a_missing_answer_is_asked_for_again_after_half_the_period_and_an_answer_makes_it_whole() -> None:
    k = keeper()
    first = ask(k, 10.0)
    assert k.next_wakeup(10.0) == near(10.0 + TIMING.retry)
    k.received(grant(first), 10.01)
    assert k.next_wakeup(10.01) == near(10.0 + TIMING.keepalive)
    ask(k, 10.0 + TIMING.keepalive)
    lost = k.next_wakeup(10.0 + TIMING.keepalive)
    assert lost == near(10.0 + TIMING.keepalive + TIMING.retry)
    message, targets = k.keepalive(lost)
    assert k.asked_all
    assert targets == STORES
    k.received(grant(message), lost + 0.01)
    assert k.next_wakeup(lost + 0.01) == near(lost + TIMING.keepalive)


def test_an_answer_does_not_put_off_what_is_to_be_told_at_once() -> None:
    k = holding()
    message = ask(k, 10.1)
    k.released("web", 1, 10.105)
    k.received(grant(message), 10.11)
    assert k.keepalive_due(10.11)


def test_the_leaders_timing_is_used_from_the_grant_on() -> None:
    k = keeper()
    k.received(grant(ask(k, 10.0), keepalive=0.02, fence_budget=0.3), 10.0)
    assert k.next_wakeup(10.0) == near(10.02)
    k.plan("web", 1, 7, 10.02)
    k.received(grant(ask(k, 10.02), ("web", 1, 7)), 10.02)
    assert k.expire(10.02 + 0.95 - 0.3) == [Revoke("web", 1, "lease ended")]


def test_a_new_guard_goes_on_with_what_the_kernel_still_carries_and_gives_up_the_rest() -> None:
    state = KeeperState({"old": 9}, {"web": Planned(1, 7), "db": Planned(4, 1)})
    k = keeper(state, {"web": 10.6})
    assert k.expire(10.0) == [Revoke("db", 4, "lease ended")]
    assert ask(k, 10.0).held == (("web", 1),)
    assert k.permitted("web", 1, 10.0) == "permitted"
    assert k.received(grant(ask(k, 10.1), ("web", 1, 7)), 10.1) == [
        LeaseChanged(True),
        Extend({"web": near(11.05)}),
    ]
    with pytest.raises(Stale):
        k.plan("old", 9, 1, 10.1)


def test_what_must_survive_is_floors_and_plans() -> None:
    k = holding()
    k.released("db", 3, 10.0)
    assert k.state() == KeeperState({"db": 3}, {"web": Planned(1, 7)})


def test_groups_that_come_and_go_for_years_make_no_keepalive_too_long() -> None:
    k = keeper()
    names = [f"{n:063}" for n in range(3_000)]
    for epoch, name in enumerate(names, start=1):
        k.released(name, epoch, 10.0)
    told = ask(k, 10.0).released
    assert len(encode(ask(k, 10.1), bytes(32))) < LARGEST
    assert told[-1] == (names[-1], 3_000)
    assert len(told) > 200
    assert list(k.state().floors.items())[-len(told) :] == list(told)
    assert len(k.state().floors) <= 512


def test_a_group_that_is_released_again_is_the_newest_once_more() -> None:
    k = keeper()
    for epoch, name in enumerate(["old", *(f"g{n}" for n in range(500)), "old", *(f"h{n}" for n in range(300))]):
        k.released(name, epoch, 10.0)
    assert k.state().floors["old"] == 501


def test_giving_up_all_or_one_group_revokes_it() -> None:
    k = holding()
    assert k.give_up("db", "x") == []
    assert k.give_up("web", "its gate failed") == [Revoke("web", 1, "its gate failed")]
    k = holding()
    assert k.give_up_all("no agent") == [Revoke("web", 1, "no agent")]


def test_the_lease_itself_begins_and_ends() -> None:
    k = keeper()
    assert k.received(grant(ask(k, 10.0)), 10.0) == [LeaseChanged(True)]
    k.keepalive(10.9)
    assert k.next_wakeup(10.94) == near(10.95)
    assert k.expire(10.95) == [LeaseChanged(False)]
    assert k.leader == "n2"
