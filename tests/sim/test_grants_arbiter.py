"""Two voters and a disk that decides: S1a at every step of every history, the rows of docs/two-nodes.md, and a checker
that bites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from hasys.lease.arbiter import ArbiterGranter
from hasys.lease.ballots import Claim, Look
from hasys.lease.granting import Granter
from hasys.lease.tokens import TokenGranter
from tests.sim.grants.arbiter import FOCI, ArbiterNodes, Rude, RudeNodes
from tests.sim.grants.history import Parts
from tests.sim.grants.rows import ArbiterRow
from tests.sim.grants.world import Violation

HISTORIES = 25
"""Per focus; longer runs: ``python -m tests.sim.grants --arbiter``."""
BREAKING = 60


@pytest.mark.slow
@pytest.mark.parametrize("focus", FOCI)
def test_no_two_nodes_ever_speak_and_a_healed_pair_serves_every_group(focus: str) -> None:
    taken_over = 0
    for seed in range(HISTORIES):
        history = ArbiterNodes(seed, focus=focus)
        history.run()
        taken_over += history.taken_over
    assert taken_over or focus == "moves", "nothing was ever taken over: the histories prove nothing"


@pytest.mark.slow
@pytest.mark.parametrize("focus", FOCI)
def test_no_two_nodes_ever_speak_however_rudely_they_claim(focus: str) -> None:
    for seed in range(HISTORIES):
        RudeNodes(seed, focus=focus).run()


# ---------------------------------------------------------------------- the rows


@pytest.fixture(params=range(5))
def row(request: pytest.FixtureRequest) -> ArbiterRow:
    made = ArbiterRow(request.param)
    made.begin()
    return made


def test_a_cut_link_moves_nothing_for_who_has_the_lock_goes_on(row: ArbiterRow) -> None:
    row.cut_link()
    row.always("n1", 20.0)
    row.world.cuts.clear()
    row.always("n1", 5.0)


def test_a_lost_active_is_taken_over_and_is_standby_when_it_is_back(row: ArbiterRow) -> None:
    row.power("n1", on=False)
    assert row.wait(5.0) == "n2"
    row.power("n1", on=True)
    row.always("n2", 10.0)


def test_a_lost_disk_moves_nothing_while_both_see_each_other(row: ArbiterRow) -> None:
    row.away |= {"n1", "n2"}
    row.always("n1", 10.0)
    row.away.clear()
    row.always("n1", 5.0)


def test_who_sees_neither_the_disk_nor_the_peer_stops_and_the_other_takes_over(row: ArbiterRow) -> None:
    row.away.add("n1")
    row.cut_link()
    assert row.wait(6.0) == "n2"
    row.away.clear()
    row.always("n2", 5.0)
    row.world.cuts.clear()
    row.always("n2", 5.0)


def test_without_link_and_disk_nobody_serves_and_the_first_that_returns_mends_it(row: ArbiterRow) -> None:
    row.away |= {"n1", "n2"}
    row.cut_link()
    assert row.wait(3.0) is None
    row.always(None, 10.0)
    row.world.cuts.clear()
    assert row.wait(3.0) is not None


def test_a_frozen_active_that_is_alone_is_taken_over_and_finds_its_lock_lost(row: ArbiterRow) -> None:
    row.cut_link()
    guard = row.machines["n1"].guard
    assert guard is not None
    guard.freeze(8.0)
    row.world.run(row.world.now + 2.0)
    assert row.wait(5.0) in (None, "n2")
    row.wait(3.0)
    row.always(row.world.holder("web"), 5.0)


def test_who_took_over_was_active_last_and_the_one_before_does_not_start_alone(row: ArbiterRow) -> None:
    """Where policy safe cannot know, the disk does."""
    row.power("n1", on=False)
    assert row.wait(5.0) == "n2"
    row.power("n2", on=False)
    row.world.run(row.world.now + 1.0)
    row.cut_link()
    row.power("n1", on=True)
    row.always(None, 20.0)
    row.power("n2", on=True)
    assert row.wait(6.0) == "n2"
    row.world.cuts.clear()
    row.always("n2", 5.0)


def test_who_was_cut_off_while_the_active_went_on_does_not_take_over_what_it_does_not_know(row: ArbiterRow) -> None:
    row.cut_link()
    row.always("n1", 5.0)
    row.power("n1", on=False)
    assert row.wait(2.0) is None
    row.always(None, 15.0)
    row.power("n1", on=True)
    row.world.cuts.clear()
    assert row.wait(5.0) == "n1"


# ---------------------------------------------------------------------- seeded faults


class OwnsAtOnce(Rude):
    """A claim is owned when it is written, whatever the other may still hold."""

    def looked(self, look: Look, now: float) -> Any:
        self.ballots._waits = dict.fromkeys(self.ballots._waits, -self.ballots.life)
        return super().looked(look, now)


class CountsFromTheEnd(Rude):
    """A lock lives from when its round was told, not from when its read began."""

    def looked(self, look: Look, now: float) -> Any:
        return super().looked(replace(look, began=now), now)


class DoesNotLook(Rude):
    """What the other claims does not end what is owned."""

    def looked(self, look: Look, now: float) -> Any:
        other = look.other
        if other is not None:
            kept = {g: c for g, c in other.claims.items() if not self.ballots.owned(g)}
            look = replace(look, other=replace(other, claims=kept))
        return super().looked(look, now)


class HidesItsClaims(Rude):
    """A claim is not said to the stores: their grants to the other stand on nothing."""

    def keepalive(self, now: float, *args: Any) -> Any:
        message, stores = super().keepalive(now, *args)
        bound = tuple((g, e) for g, e in message.bound or () if g not in self.ballots.claims or g in self._tokens)
        return replace(message, bound=bound), stores


class RemembersClaimsAsOwned(Rude):
    """After a restart a claim that still waited is owned."""

    def looked(self, look: Look, now: float) -> Any:
        if look.written is None and look.own is not None:
            claims = {g: Claim(c.ballot, owned=True) for g, c in look.own.claims.items()}
            look = replace(look, own=replace(look.own, claims=claims))
        return super().looked(look, now)


class NeedsNoWord(ArbiterGranter):
    """Grants live from the heartbeat round alone."""

    def _proven(self, to: Any, *, probe: bool) -> float:
        return Granter._proven(self, to, probe=probe)


class GrantsToWhoHolds(ArbiterGranter):
    """What is held is named again, whatever the other says."""

    def _verdict(self, *args: Any) -> Any:
        return TokenGranter._verdict(self, *args)


class RudeRow(ArbiterRow, RudeNodes):
    """No chance but in when n2 claims, once it is let."""

    rude = False

    def standbys(self, node: str) -> Mapping[str, float]:
        return super().standbys(node) if self.rude and node == "n2" else {}


def mute_guard(row: RudeRow) -> None:
    """n1 serves by its grants alone, and no store hears what n2 wants."""
    row.away.add("n1")
    row.mute.add("n2")
    row.rude = True
    row.wait(8.0)


def lost_disk(row: RudeRow) -> None:
    """n1 serves by its grants alone, and does not see that n2 claims what it has."""
    row.away.add("n1")
    row.rude = True
    row.wait(8.0)


def restart_while_claiming(row: RudeRow) -> None:
    """n1 serves by its lock; n2 has claimed it a moment ago when its guard is restarted."""
    row.cut_link()
    row.wait(2.0)
    row.rude = True
    end = row.world.now + 20.0
    while row.world.now < end:
        row.world.run(row.world.now + 0.01)
        there = row.blocks["n2"].claims.get("web")
        if there is not None and not there.owned and row.world.holder("web") == "n1":
            break
    row.away.add("n1")
    guard = row.machines["n2"].guard
    assert guard is not None
    guard.stop()
    row.start_guard("n2", wiped=False)
    row.wait(3.0)


def late_answer(row: RudeRow) -> None:
    """n1 serves by a lock of long life, and what it read is told long after it was read."""
    for machine in row.machines.values():
        assert machine.guard is not None
        assert isinstance(machine.guard.keeper, Rude)
        machine.guard.keeper.ballots.life = 3.0 * row.ttl
    row.wait(2.0)
    row.cut_link()
    row.rude = True
    for _ in range(6):
        row.late["n1"] = 2.4 * row.ttl
        row.wait(3.0)


BROKEN: Mapping[str, tuple[Callable[..., Granter], Callable[..., Rude], Callable[[RudeRow], None] | None]] = {
    "owns-at-once": (ArbiterGranter, OwnsAtOnce, None),
    "does-not-look": (ArbiterGranter, DoesNotLook, None),
    "hides-its-claims": (ArbiterGranter, HidesItsClaims, None),
    "counts-from-the-end": (ArbiterGranter, CountsFromTheEnd, late_answer),
    "remembers-claims-as-owned": (ArbiterGranter, RemembersClaimsAsOwned, restart_while_claiming),
    "needs-no-word": (NeedsNoWord, Rude, mute_guard),
    "grants-to-who-holds": (GrantsToWhoHolds, Rude, lost_disk),
}


def play_all(parts: Parts, script: Callable[[RudeRow], None] | None, seeds: int) -> None:
    for seed in range(seeds):
        if script is None:
            RudeNodes(seed, parts).run()
        else:
            row = RudeRow(seed, parts)
            row.begin()
            script(row)


@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_rule_is_caught(fault: str) -> None:
    granter, keeper, script = BROKEN[fault]
    with pytest.raises(Violation, match="S1a"):
        play_all(Parts(granter=granter, keeper=keeper), script, BREAKING)


@pytest.mark.parametrize("script", [s for *_, s in BROKEN.values() if s is not None])
def test_what_catches_a_broken_rule_finds_nothing_wrong_with_the_right_ones(script: Callable[[RudeRow], None]) -> None:
    play_all(Parts(granter=ArbiterGranter, keeper=Rude), script, 12)
