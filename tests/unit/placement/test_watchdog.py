"""A node's watchdog is recorded while the node is heard: a later leader may never hear it again."""

from __future__ import annotations

from dataclasses import replace

from hasys.model.timing import PROFILES
from hasys.model.view import NodeInfo, View
from hasys.placement.draft import Draft
from hasys.placement.effects import SetWatchdog
from hasys.placement.members import look

HEARD = NodeInfo("n1", heard=50.0, confirmed=50.0, armed=True, agent_alive=True, boot_id="b", watchdog=10.0)


def recorded(node: NodeInfo, now: float) -> list[float]:
    draft = Draft(View(PROFILES["default"], leader_since=0.0, silent_since=0.0, cold=False, nodes={"n1": node}), now)
    look(draft, "n1")
    return [e.timeout for batch in draft.decision().batches for e in batch.effects if isinstance(e, SetWatchdog)]


def test_it_is_recorded_when_it_is_armed_and_when_it_is_no_longer() -> None:
    assert recorded(HEARD, 50.0) == [10.0]
    assert recorded(replace(HEARD, last_watchdog=10.0), 50.0) == []
    assert recorded(replace(HEARD, watchdog=0.0, last_watchdog=10.0), 50.0) == [0.0]


def test_the_silence_of_a_node_takes_nothing_back() -> None:
    assert recorded(replace(HEARD, watchdog=0.0, last_watchdog=10.0), 90.0) == []


def test_a_store_that_leads_again_takes_nothing_back_before_it_has_heard_the_guard_anew() -> None:
    """What it heard of the guard in its earlier term is forgotten, but for the time."""
    unknown = NodeInfo("n1", heard=50.0, confirmed=50.0, last_watchdog=10.0)
    assert recorded(unknown, 50.1) == []
