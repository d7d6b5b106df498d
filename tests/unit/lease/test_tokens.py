"""The leader of two nodes, rule by rule: whose word frees a group, and whose does not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.lease.granting import Granter
from hasys.lease.tokens import TokenGranter
from hasys.lease.wire import DatagramRefused, Grant, KeepAlive
from hasys.model.timing import PROFILES
from hasys.store.port import Authority

TIMING = PROFILES["default"]


class Leader:
    """A granter with what it is told."""

    def __init__(self, *, fenced: Mapping[str, str] | None = None, **groups: GroupAssignment) -> None:
        self.granter = TokenGranter("c", "n1", ("n1", "n2"), TIMING)
        self.assignments = Assignments(groups, fenced or {})
        self.term, self.seq = 5, 0

    def hear(
        self,
        node: str,
        now: float,
        bound: Mapping[str, int] | None = None,
        held: Mapping[str, int] | None = None,
        released: Mapping[str, int] | None = None,
        *,
        boot: str = "b1",
        term: int = 0,
    ) -> Grant:
        """Its keep-alive; ``bound``: what it may still act for."""
        self.seq += 1
        keepalive = KeepAlive(
            "c", node, boot, self.seq, self.seq, (term or self.term, 1), 0.05, tuple((held or {}).items()),
            tuple((released or {}).items()), bound=tuple((bound or {}).items()),
        )  # fmt: skip
        authority = Authority(self.term, 42, now - 0.01, 0.0)
        grant = self.granter.heard(keepalive, now, authority, self.assignments)
        assert grant is not None
        return grant

    def assign(self, a: GroupAssignment, fenced: Mapping[str, str] | None = None) -> None:
        self.assignments = Assignments({"web": a}, fenced or {})


def names(grant: Grant) -> list[tuple[str, int]]:
    return [(group, epoch) for group, epoch, _ in grant.groups]


ON_N2 = GroupAssignment("n2", 2, 7, previous_node="n1", previous_epoch=1, revoked=True)


def test_nothing_is_named_before_the_other_has_said_that_it_has_nothing_however_long_that_takes() -> None:
    leader = Leader(web=ON_N2)
    assert names(leader.hear("n2", 10.0)) == []
    assert names(leader.hear("n2", 10_000.0)) == []
    leader.hear("n1", 10_000.1)
    assert names(leader.hear("n2", 10_000.2)) == [("web", 2)]


def test_a_token_a_hold_and_an_oath_are_each_something() -> None:
    for bound, held in (({"web": 1}, {}), ({"web": 1}, {"web": 1})):
        leader = Leader(web=ON_N2)
        leader.hear("n1", 10.0, bound, held)
        assert names(leader.hear("n2", 10.1)) == []


def test_what_was_said_in_an_earlier_term_does_not_count() -> None:
    leader = Leader(web=ON_N2)
    leader.hear("n1", 10.0, term=4)
    assert names(leader.hear("n2", 10.1)) == []
    leader.hear("n1", 10.2)
    leader.term = 6
    assert names(leader.hear("n2", 10.3)) == []


def test_the_end_of_a_grant_frees_nothing_and_a_release_does() -> None:
    leader = Leader(web=GroupAssignment("n1", 1, 7))
    leader.hear("n2", 10.0)
    assert names(leader.hear("n1", 10.0)) == [("web", 1)]
    leader.assign(ON_N2)
    leader.hear("n1", 60.0)
    assert names(leader.hear("n2", 60.1)) == [], "the grant may still be on its way"
    leader.hear("n1", 60.2, released={"web": 1})
    assert names(leader.hear("n2", 60.3)) == [("web", 2)]


def test_another_boot_of_the_node_cannot_use_what_was_sent_to_the_first() -> None:
    leader = Leader(web=GroupAssignment("n1", 1, 7))
    leader.hear("n2", 10.0)
    assert names(leader.hear("n1", 10.0)) == [("web", 1)]
    leader.assign(ON_N2)
    leader.hear("n1", 20.0, boot="b2")
    assert names(leader.hear("n2", 20.1)) == [("web", 2)]


def test_who_reports_its_own_epoch_held_goes_on_whatever_the_other_says() -> None:
    leader = Leader(web=ON_N2)
    assert names(leader.hear("n2", 10.0, {"web": 2}, {"web": 2})) == [("web", 2)]


def test_an_operators_word_that_the_machine_is_off_stands_for_its_own_until_another_boot_speaks() -> None:
    leader = Leader(web=ON_N2, fenced={"n1": "b1"})
    leader.hear("n1", 10.0, {"web": 1})
    assert names(leader.hear("n2", 10.1)) == [("web", 2)]
    leader = Leader(web=ON_N2, fenced={"n1": "b1"})
    leader.hear("n1", 10.0, {"web": 1}, boot="b2")
    assert names(leader.hear("n2", 10.1)) == []


def test_who_may_hold_is_everybody_who_did_not_deny_it() -> None:
    leader = Leader(web=ON_N2)
    leader.hear("n2", 10.0)
    assert leader.granter.may_hold("web", 10.0) == {"n1"}
    leader.hear("n1", 10.0)
    assert leader.granter.may_hold("web", 10.0) == set()


@pytest.mark.parametrize("kind", [Granter, TokenGranter])
def test_a_guard_of_another_policy_gets_nothing(kind: type[Granter]) -> None:
    granter = kind("c", "n1", ("n1", "n2"), TIMING)
    bound = None if kind is TokenGranter else ()
    keepalive = KeepAlive("c", "n2", "b1", 1, 1, (5, 1), 0.05, bound=bound)
    with pytest.raises(DatagramRefused, match="other-policy"):
        granter.heard(keepalive, 10.0, Authority(5, 42, 9.99, 0.0), Assignments({}))
