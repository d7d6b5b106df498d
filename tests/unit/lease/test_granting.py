"""The leader's side, rule by rule. All times are seconds of the leader's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.lease.granting import Granter
from hasys.lease.rhythm import period
from hasys.lease.wire import DatagramRefused, Grant, Health, KeepAlive
from hasys.model.timing import BY_NAME, PROFILES, RHO, over
from hasys.store.port import Authority

TIMING = BY_NAME["default"]
"""Round figures that never change: what is computed by hand here stays true."""

LATE = 100.0
"""Long after any earlier leader's grants are over."""


@dataclass
class Leader:
    """A granter with what it is told, so that tests say only what they are about."""

    granter: Granter
    assignments: Assignments
    term: int = 5
    silent_since: float = 0.0
    seq: int = 0

    def authority(self, now: float) -> Authority:
        return Authority(self.term, 42, now - 0.01, self.silent_since)

    def hear(
        self,
        node: str,
        now: float,
        held: Mapping[str, int] | None = None,
        released: Mapping[str, int] | None = None,
        *,
        boot: str = "b1",
        age: float | None = 0.05,
        term: int | None = None,
        health: Health = Health(),  # noqa: B008
    ) -> Grant:
        self.seq += 1
        keepalive = KeepAlive(
            "c", node, boot, self.seq, 1000 + self.seq, None if age is None else (term or self.term, 1), age,
            tuple((held or {}).items()), tuple((released or {}).items()), health,
        )  # fmt: skip
        grant = self.granter.heard(keepalive, now, self.authority(now), self.assignments)
        assert grant is not None
        return grant

    def assign(self, **groups: GroupAssignment) -> None:
        self.assignments = Assignments({**self.assignments.groups, **groups}, self.assignments.fenced)

    def due(self, now: float) -> list[Grant]:
        return self.granter.due(now, self.authority(now), self.assignments)


def leader(**groups: GroupAssignment) -> Leader:
    return Leader(Granter("c", "n1", ("n1", "n2", "n3"), TIMING), Assignments(groups))


def on(node: str, epoch: int = 1, **more: object) -> GroupAssignment:
    return replace(GroupAssignment(node, epoch, 7), **more)  # type: ignore[arg-type]


def moved(*, revoked: bool) -> GroupAssignment:
    return on("n2", 2, previous_node="n1", previous_epoch=1, revoked=revoked)


def names(grant: Grant) -> list[tuple[str, int]]:
    return [(group, epoch) for group, epoch, _ in grant.groups]


def test_a_grant_names_what_is_assigned_with_its_version_age_and_echo() -> None:
    one = leader(web=on("n1", 3), db=on("n2", 4))
    grant = one.hear("n1", LATE)
    assert grant.groups == (("web", 3, 7),)
    assert (grant.nonce, grant.seq, grant.version, grant.epoch) == (1001, 1, 42, 5)
    assert grant.age == pytest.approx(0.01)
    assert grant.ttl == TIMING.ttl


def test_without_authority_or_with_an_old_round_there_is_no_grant() -> None:
    one = leader(web=on("n1"))
    keepalive = KeepAlive("c", "n1", "b", 1, 1, (5, 1), 0.0)
    assert one.granter.heard(keepalive, LATE, None, one.assignments) is None
    stale = Authority(5, 42, LATE - TIMING.ttl, 0.0)
    assert one.granter.heard(replace(keepalive, seq=2), LATE, stale, one.assignments) is None


def test_copies_late_ones_and_strangers_are_refused() -> None:
    one = leader()
    keepalive = KeepAlive("c", "n1", "b", 5, 1, (5, 1), 0.0)
    one.granter.heard(keepalive, LATE, one.authority(LATE), one.assignments)
    for seq, node, why in ((5, "n1", "replayed"), (4, "n1", "replayed"), (9, "n9", "unknown-node")):
        with pytest.raises(DatagramRefused) as refused:
            one.granter.heard(
                replace(keepalive, seq=seq, node=node), LATE, one.authority(LATE), one.assignments
            )  # fmt: skip
        assert refused.value.reason == why


def test_a_boot_that_was_replaced_does_not_come_back() -> None:
    one = leader()
    one.hear("n1", LATE, boot="b1")
    one.hear("n1", LATE, boot="b2")
    with pytest.raises(DatagramRefused, match="replayed"):
        one.hear("n1", LATE, boot="b1")


def test_a_node_that_confirms_nothing_recent_is_probed_and_keeps_what_it_has() -> None:
    one = leader(web=on("n1"))
    for age in (None, TIMING.leader_fallback + 0.01):
        grant = one.hear("n1", LATE, age=age)
        assert grant.probe
        assert grant.groups == ()
        assert grant.withheld == (("web", 1),)


def test_what_a_keepalive_of_an_earlier_term_says_does_not_count() -> None:
    one = leader(web=on("n1"))
    one.silent_since = LATE
    grant = one.hear("n1", LATE, held={"web": 1}, released={"db": 9}, term=4)
    assert grant.probe
    assert one.granter.facts(LATE)["n1"].released == {}
    assert one.hear("n1", LATE, held={"web": 1}).groups == (("web", 1, 7),)


def test_a_new_leader_waits_for_earlier_grants_unless_the_node_reports_the_group_held() -> None:
    one = leader(web=on("n1"), db=on("n1"))
    one.silent_since = LATE
    assert names(one.hear("n1", LATE + 0.5, held={"db": 1})) == [("db", 1)]
    ready = LATE + over(TIMING.ttl)
    assert one.granter.next_due(LATE + 0.5, one.assignments) == pytest.approx(ready)
    one.hear("n1", ready - 0.001, held={"db": 1})
    assert one.due(ready - 0.001) == []
    assert [names(g) for g in one.due(ready)] == [[("web", 1), ("db", 1)]]


def test_a_release_does_not_shorten_the_wait_for_earlier_leaders() -> None:
    one = leader(web=moved(revoked=True))
    one.silent_since = LATE
    one.hear("n1", LATE + 0.1, released={"web": 1})
    assert names(one.hear("n2", LATE + 0.1)) == []


def test_a_revoked_holder_is_waited_for_until_its_last_grant_is_over() -> None:
    one = leader(web=on("n1"))
    one.hear("n1", LATE)
    one.assign(web=moved(revoked=True))
    ends = LATE - 0.01 + over(TIMING.ttl)
    assert names(one.hear("n2", ends - 0.01)) == []
    assert one.granter.next_due(ends - 0.01, one.assignments) == pytest.approx(ends)
    assert one.granter.may_hold("web", ends - 0.01) == {"n1"}
    assert [names(g) for g in one.due(ends)] == [[("web", 2)]]


def test_the_revoked_holder_is_told_by_a_push() -> None:
    one = leader(web=on("n1"))
    one.hear("n1", LATE)
    one.assign(web=moved(revoked=True))
    (push,) = one.due(LATE + 0.01)
    assert (push.node, push.groups, push.withheld, push.seq) == ("n1", (), (), 1)


def test_a_planned_move_waits_for_the_release_and_ends_with_one_push() -> None:
    one = leader(web=on("n1"))
    one.hear("n1", LATE)
    one.hear("n2", LATE)
    one.assign(web=moved(revoked=False))
    assert names(one.hear("n1", LATE + 0.05, held={"web": 1})) == [("web", 1)]
    assert one.due(LATE + 0.05) == []
    one.hear("n1", LATE + 0.06, released={"web": 1})
    assert [(g.node, names(g)) for g in one.due(LATE + 0.06)] == [("n2", [("web", 2)])]


def test_previous_and_new_node_are_never_named_together() -> None:
    one = leader(web=moved(revoked=False))
    one.hear("n1", LATE, released={"web": 1}, boot="b1")
    assert names(one.hear("n2", LATE)) == [("web", 2)]
    assert names(one.hear("n1", LATE + 0.1, held={"web": 1}, boot="b2")) == []


def test_without_a_committed_revocation_the_end_of_a_grant_frees_nothing() -> None:
    one = leader(web=moved(revoked=False))
    one.hear("n1", LATE, held={"web": 1})
    assert names(one.hear("n2", LATE + 50)) == []
    one.assign(web=moved(revoked=True))
    assert names(one.hear("n2", LATE + 50.1)) == [("web", 2)]


def test_a_release_counts_for_the_boot_that_was_granted_only() -> None:
    one = leader(web=on("n1"))
    one.hear("n1", LATE, boot="b1")
    one.assign(web=moved(revoked=True))
    one.hear("n1", LATE + 0.1, released={"web": 1}, boot="b2")
    assert names(one.hear("n2", LATE + 0.2)) == []


def test_a_group_is_not_named_at_an_epoch_that_its_node_released() -> None:
    one = leader(web=on("n1", 3))
    grant = one.hear("n1", LATE, released={"web": 3})
    assert grant.groups == ()
    assert one.granter.facts(LATE)["n1"].released == {"web": 3}


def test_the_operators_word_that_a_machine_is_off_ends_its_grants() -> None:
    one = leader(web=on("n1"))
    one.hear("n1", LATE, boot="b1")
    one.assignments = Assignments({"web": moved(revoked=True)}, {"n1": "b1"})
    assert names(one.hear("n2", LATE + 0.1)) == [("web", 2)]


def test_a_watchdog_delays_the_next_holder_of_more_than_addresses() -> None:
    one = leader(web=on("n1", outlives=5.5))
    one.hear("n1", LATE)
    one.assign(web=replace(moved(revoked=True), outlives=5.5))
    assert names(one.hear("n2", LATE + 5.4)) == []
    assert names(one.hear("n2", LATE - 0.01 + over(5.5))) == [("web", 2)]


def test_what_lingers_on_a_lost_node_delays_the_next_holder_and_on_the_next_one_nobody() -> None:
    one = leader(web=on("n1", lingers={"n1": 5.5}))
    one.hear("n1", LATE)
    one.assign(web=replace(moved(revoked=True), lingers={"n1": 5.5, "n2": 3600.0}))
    assert names(one.hear("n2", LATE + 5.4)) == []
    assert names(one.hear("n2", LATE - 0.01 + over(5.5))) == [("web", 2)]


def test_a_new_leader_waits_for_what_lingers_on_a_node_that_it_never_heard_unless_that_is_off() -> None:
    one = leader(web=replace(moved(revoked=True), lingers={"n1": 3600.0, "n2": 3600.0}))
    one.silent_since = LATE
    later = LATE + over(TIMING.ttl)
    assert names(one.hear("n2", later)) == []
    one.assignments = Assignments(one.assignments.groups, {"n1": ""})  # sworn, or fenced; its boot is not known
    assert names(one.hear("n2", later - 0.1)) == [], "what an earlier leader granted to anybody ends with the lease"
    assert names(one.hear("n2", later)) == [("web", 2)]


def twice_moved() -> GroupAssignment:
    return on(
        "n3", 3, previous_node="n2", previous_epoch=2, revoked=True, earlier={"n1": 1}, lingers={"n1": 10.5, "n3": 99.0}
    )


def test_a_new_leader_waits_for_what_lingers_on_the_holder_before_the_last() -> None:
    one = leader(web=twice_moved())
    one.silent_since = LATE
    assert names(one.hear("n3", LATE + over(10.5) - 0.1)) == []
    assert one.granter.may_hold("web", LATE + over(10.5) - 0.1) == {"n1"}, "the lease of n2 is over"
    assert one.granter.next_due(LATE + 5.0, one.assignments) == LATE + over(10.5)
    assert names(one.hear("n3", LATE + over(10.5))) == [("web", 3)]
    assert one.granter.may_hold("web", LATE + over(10.5)) == {"n3"}


def test_what_lingered_on_an_earlier_holder_is_out_when_its_guard_released_it_or_the_machine_is_off() -> None:
    later = LATE + over(TIMING.ttl)
    for released, epoch, fenced, out in (
        ({}, 0, {}, False),
        ({"n1": 1}, 0, {}, False),
        ({}, 1, {}, True),
        ({}, 0, {"n1": ""}, True),
    ):
        one = leader(web=twice_moved())
        one.silent_since = LATE
        one.assignments = Assignments(one.assignments.groups, fenced)
        one.hear("n1", LATE + 0.2, released={"web": epoch, **released})
        assert names(one.hear("n3", later)) == ([("web", 3)] if out else [])
        assert ("n1" in one.granter.may_hold("web", later)) is not out


def test_a_release_that_was_said_to_an_earlier_leader_ends_nothing_that_lingers() -> None:
    one = leader(web=twice_moved())
    one.silent_since = LATE
    one.hear("n1", LATE + 0.2, released={"web": 1}, term=4)
    assert names(one.hear("n3", LATE + over(TIMING.ttl))) == []


def test_one_group_is_revoked_without_touching_the_others() -> None:
    one = leader(web=on("n1"), db=on("n1"))
    one.hear("n1", LATE)
    one.assign(web=moved(revoked=True))
    (push,) = one.due(LATE + 0.01)
    assert names(push) == [("db", 1)]


def test_a_change_of_resources_is_pushed_with_its_version() -> None:
    one = leader(web=on("n1"))
    one.hear("n1", LATE)
    one.assign(web=replace(on("n1"), version=8))
    assert [g.groups for g in one.due(LATE + 0.01)] == [(("web", 1, 8),)]


def test_stepping_down_forgets_what_guards_said_and_grants_nothing() -> None:
    one = leader(web=on("n1"))
    one.hear("n1", LATE)
    one.granter.step_down()
    assert one.granter.next_due(LATE, one.assignments) is None
    assert one.granter.may_hold("web", LATE) == {"n1", "n2", "n3"}
    one.term, one.silent_since = 6, LATE
    assert one.due(LATE + 0.1) == []
    assert names(one.hear("n1", LATE + 0.1)) == []


def test_facts_tell_silence_from_the_last_keepalive_or_from_the_last_earlier_round() -> None:
    one = leader()
    one.silent_since = LATE - 0.5
    one.hear("n1", LATE)
    facts = one.granter.facts(LATE + 0.2)
    assert facts["n1"].silent_for == pytest.approx(0.2)
    assert facts["n2"].silent_for == pytest.approx(0.7)
    assert (facts["n1"].last_heard, facts["n2"].last_heard) == (LATE, None)
    assert facts["n1"].lease_valid
    assert facts["n1"].remaining == pytest.approx(TIMING.ttl - 0.21)
    assert (facts["n1"].lease_epoch, facts["n1"].boot) == (5, "b1")


def test_news_are_what_placement_would_act_upon() -> None:
    one = leader(web=on("n1"))
    for news, what in (
        (True, {}),
        (False, {}),
        (True, {"held": {"web": 1}}),
        (False, {"held": {"web": 1}}),
        (True, {"released": {"web": 1}}),
        (True, {"released": {"web": 1}, "health": Health(agent=True)}),
        (False, {"released": {"web": 1}, "health": Health(agent=True, lag=0.3)}),
    ):
        one.granter.take_news() if news and not what else None
        one.hear("n1", LATE, **what)
        assert one.granter.take_news() is news, what


def test_after_a_change_of_timings_the_second_write_waits_for_grants_of_the_old_ttl() -> None:
    one = leader(web=on("n1"))
    one.hear("n1", LATE)
    assert one.granter.settled(LATE)
    one.granter.retime(PROFILES["fast"], TIMING.ttl)
    ends = LATE - 0.01 + over(TIMING.ttl)
    assert one.hear("n1", LATE + 0.3, held={"web": 1}).ttl == PROFILES["fast"].ttl
    assert not one.granter.settled(ends - 0.001)
    assert one.granter.settled(ends)


def test_grants_that_name_nothing_count_for_what_guards_still_keep() -> None:
    """By such a grant too a guard keeps the longer periods, and must not be judged by the shorter ones."""
    one = leader()
    one.hear("n1", LATE)
    one.granter.retime(PROFILES["fast"], TIMING.ttl)
    assert not one.granter.settled(LATE + 0.1)
    assert one.granter.settled(LATE + over(TIMING.ttl))


def test_a_guard_is_led_to_the_moment_before_a_round() -> None:
    one, timing = leader(web=on("n1")), PROFILES["default"]
    one.granter.retime(timing, TIMING.ttl)
    since = LATE - one.authority(LATE).t_q
    for place, node in enumerate(("n1", "n2")):
        assert one.hear(node, LATE).keepalive == period(timing, since, place) < timing.keepalive


def test_a_guard_that_still_keeps_longer_periods_is_named_until_its_grants_are_over() -> None:
    one, fast = leader(web=on("n1")), PROFILES["fast"]
    one.hear("n1", LATE)
    one.granter.retime(fast, TIMING.ttl)
    assert TIMING.keepalive > fast.leader_fallback
    grant = one.hear("n1", LATE + TIMING.keepalive, held={"web": 1}, age=TIMING.keepalive)
    assert names(grant) == [("web", 1)]
    one.granter.retime(fast, fast.ttl)
    assert one.hear("n1", LATE + 2 * TIMING.keepalive, held={"web": 1}, age=TIMING.keepalive).probe


def test_the_wait_covers_the_worst_pair_of_clocks() -> None:
    """A guard whose clock is slow by RHO holds for ttl / (1 - RHO); a leader's that is fast waits shortest."""
    held = TIMING.ttl / (1 - RHO)
    waited = over(TIMING.ttl) / (1 + RHO)
    assert waited >= held - 1e-12
    assert TIMING.ttl * (1 + 2 * RHO) / (1 + RHO) < held


def test_the_first_grant_to_a_new_holder_is_told_once_with_its_time_and_renewals_are_not() -> None:
    told = leader(web=on("n1"))
    told.hear("n1", LATE)
    told.hear("n1", LATE + 0.1, held={"web": 1})
    assert list(told.granter.handed) == [("web", "n1", 1, LATE)]
    told.assign(web=moved(revoked=False))
    told.hear("n2", LATE + 0.2)
    assert len(told.granter.handed) == 1, "the old holder has not let go"
    told.hear("n1", LATE + 0.3, released={"web": 1})
    told.hear("n2", LATE + 0.4)
    assert list(told.granter.handed)[1:] == [("web", "n2", 2, LATE + 0.4)]


def test_a_new_leader_does_not_tell_of_a_holder_that_goes_on() -> None:
    told = leader(web=on("n1"))
    told.hear("n1", LATE, held={"web": 1})
    assert list(told.granter.handed) == []
