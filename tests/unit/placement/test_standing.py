"""When a node counts as lost: never for a hiccup, never because a leader is new, always in time for the failover."""

from __future__ import annotations

import pytest

from hasys.model.timing import PROFILES, Timing
from hasys.model.view import NodeInfo, NodeState, Role, View
from hasys.placement.standing import boot_grace, listening, lost_at, standing

PROFILE = pytest.mark.parametrize("timing", PROFILES.values(), ids=list(PROFILES))


def heard(at: float, *, confirmed: float | None = None) -> NodeInfo:
    return NodeInfo(
        "n1", heard=at, confirmed=at if confirmed is None else confirmed, armed=True, agent_alive=True, boot_id="b"
    )


def led(timing: Timing, *, since: float = 0.0, silent_since: float = 0.0, cold: bool = False) -> View:
    return View(timing, leader_since=since, silent_since=silent_since, cold=cold)


@PROFILE
def test_silence_shorter_than_the_suspicion_time_is_forgiven(timing: Timing) -> None:
    node, view = heard(50.0), led(timing)
    assert standing(node, 50.0 + timing.suspicion * 0.99, view).ready
    assert standing(node, 50.0 + timing.suspicion, view).lost


@PROFILE
def test_a_node_is_called_lost_before_its_grant_has_ended(timing: Timing) -> None:
    """The commit of the new assignment must be done when the grant ends: then one datagram ends the failover."""
    assert timing.suspicion + timing.rtt + timing.fsync < timing.grant_over


@PROFILE
def test_a_deaf_node_is_lost_from_its_last_confirmation_on(timing: Timing) -> None:
    deaf = heard(60.0, confirmed=60.0 - timing.leader_fallback - 0.01)
    assert lost_at(deaf, led(timing)) == pytest.approx(60.0 - timing.leader_fallback - 0.01 + timing.suspicion)


@PROFILE
def test_a_node_that_confirms_is_counted_from_when_it_was_heard(timing: Timing) -> None:
    assert lost_at(heard(60.0, confirmed=60.0 - timing.keepalive), led(timing)) == 60.0 + timing.suspicion


LONGER = pytest.mark.parametrize("profile", ["default", "wan"])
"""Changed to ``fast``: its leader_fallback and suspicion are shorter than two periods of these."""


@LONGER
def test_who_still_keeps_the_longer_periods_is_not_lost_by_the_shorter_ones(profile: str) -> None:
    old, new = PROFILES[profile], PROFILES["fast"]
    view = led(new.patient(old.ttl))
    node = heard(60.0, confirmed=60.0 - old.keepalive)  # what it confirms came with its keep-alive before
    assert standing(node, 60.0 + old.keepalive + old.retry, view).ready
    elected = led(new.patient(old.ttl), since=90.0, silent_since=10.0)
    assert standing(heard(9.0), 90.0 + old.keepalive + 3 * old.retry, elected).ready
    assert new.patient(new.ttl) == new


@PROFILE
def test_a_new_leader_listens_before_it_calls_anybody_lost(timing: Timing) -> None:
    """However long the election took."""
    view = led(timing, since=90.0, silent_since=10.0)
    assert lost_at(NodeInfo("n1"), view) == pytest.approx(90.0 + listening(view))
    assert standing(NodeInfo("n1"), 90.0, view).state is NodeState.NOT_READY


@PROFILE
def test_the_loss_of_leader_and_active_together_costs_no_second_suspicion_time(timing: Timing) -> None:
    """Silence counts from the old leader's last round, not from the election."""
    election = timing.election_max + 2 * timing.rtt
    view = led(timing, since=election, silent_since=0.0)
    assert lost_at(NodeInfo("n1"), view) <= max(timing.suspicion, election + listening(view))
    assert lost_at(NodeInfo("n1"), view) < timing.grant_over + timing.keepalive + 2 * timing.rtt


@PROFILE
def test_after_a_cold_start_absence_proves_nothing_for_a_while(timing: Timing) -> None:
    view = led(timing, cold=True)
    assert lost_at(NodeInfo("n1"), view) == pytest.approx(boot_grace(view))


def test_fitness_is_told_with_its_reason() -> None:
    view = led(PROFILES["default"])
    unarmed = NodeInfo("n1", heard=9.0, confirmed=9.0, boot_id="b", message="no gate", agent_alive=True)
    no_agent = NodeInfo("n1", heard=9.0, confirmed=9.0, boot_id="b", armed=True)
    assert standing(unarmed, 9.0, view).why == "no gate"
    assert standing(no_agent, 9.0, view).why == "its agent does not run"


def test_a_witness_is_judged_by_its_store() -> None:
    view = led(PROFILES["default"])
    assert standing(NodeInfo("w", Role.WITNESS), 999.0, view).ready
    assert standing(NodeInfo("w", Role.WITNESS, connected=False), 999.0, view).lost
