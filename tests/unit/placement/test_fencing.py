"""When a lost node is switched off from outside, by whom, and what counts when it was, or was not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hasys.model.timing import PROFILES
from hasys.model.view import (
    Assignment,
    Candidate,
    FencingInfo,
    GroupInfo,
    NodeInfo,
    OperationInfo,
    OperationType,
    Role,
    View,
)
from hasys.placement.decide import decide
from hasys.placement.effects import AskFence, EndFence, FinishOperation, Record, SetFenceConfirmed, StartOperation

TIMING = PROFILES["default"]
LOST = 50.0 + TIMING.suspicion
FENCING = FencingInfo("fence_dummy", delay=5.0)
OP = OperationInfo("fence-n1-1", OperationType.FENCE, node="n1", by="n2", timeout=60.0, since=LOST + 5.0)
UNDER_WAY = replace(FENCING, operation="fence-n1-1")


def node(name: str, heard: float, **changes: object) -> NodeInfo:
    info = NodeInfo(name, heard=heard, confirmed=heard, armed=True, agent_alive=True, boot_id=f"boot of {name}")
    return replace(info, **changes)  # type: ignore[arg-type]


def group(holder: str = "n1") -> GroupInfo:
    return GroupInfo("web", (Candidate("n1", 2), Candidate("n2", 1)), assignment=Assignment(holder, 4))


def view(now: float, *, n1: NodeInfo, held: GroupInfo | None = None, op: OperationInfo | None = None) -> View:
    nodes = {"n1": n1, "n2": node("n2", now), "n3": node("n3", now), "w": NodeInfo("w", Role.WITNESS)}
    groups = {"web": held or group()}
    return View(TIMING, 0.0, 0.0, nodes=nodes, groups=groups, operations=(op,) if op else ())


def of(kind: type, now: float, seen: View) -> list[object]:
    return [effect for effect in decide(seen, now).effects if isinstance(effect, kind)]


def reasons(now: float, seen: View) -> list[str]:
    return [e.reason for e in decide(seen, now).effects if isinstance(e, Record)]


def test_a_node_is_fenced_when_it_has_been_lost_for_the_delay_and_not_before() -> None:
    lost = node("n1", 50.0, fencing=FENCING)
    early = view(LOST + 4.9, n1=lost)
    assert of(AskFence, LOST + 4.9, early) == []
    assert (decide(early, LOST + 4.9).next_look or 0.0) <= LOST + 5.0
    seen = view(LOST + 5.0, n1=lost)
    assert of(AskFence, LOST + 5.0, seen) == [AskFence("n1", "n2", "n2 with fence_dummy: no keep-alive")]
    assert "FenceStarted" in reasons(LOST + 5.0, seen)


@pytest.mark.parametrize(
    "changes",
    [
        {"fencing": None},
        {"fence_confirmed": True},
        {"shutdown_boot_id": "boot of n1"},
        {"fencing": UNDER_WAY},
        {"fencing": replace(FENCING, failed="no route to the device")},
    ],
    ids=["no fencing", "known to be off", "shut down in order", "under way", "failed already"],
)
def test_it_is_asked_for_once_and_only_when_it_helps(changes: dict[str, object]) -> None:
    lost = node("n1", 50.0, **{"fencing": FENCING, **changes})
    assert of(AskFence, LOST + 60.0, view(LOST + 60.0, n1=lost)) == []


def test_a_node_that_holds_nothing_is_left_alone() -> None:
    lost = node("n1", 50.0, fencing=FENCING)
    assert of(AskFence, LOST + 60.0, view(LOST + 60.0, n1=lost, held=group("n2"))) == []
    may = replace(group("n2"), may_hold=frozenset({"n1"}))
    assert of(AskFence, LOST + 60.0, view(LOST + 60.0, n1=lost, held=may))


def test_only_a_node_that_reaches_the_device_and_lives_does_it() -> None:
    lost = node("n1", 50.0, fencing=replace(FENCING, nodes=("n3",)))
    assert of(AskFence, LOST + 5.0, view(LOST + 5.0, n1=lost))[0].by == "n3"  # type: ignore[attr-defined]
    lost = node("n1", 50.0, fencing=replace(FENCING, nodes=("n1", "gone", "w")))
    assert of(AskFence, LOST + 5.0, view(LOST + 5.0, n1=lost)) == []


def test_a_node_that_is_heard_again_in_time_is_not_switched_off() -> None:
    now = LOST + 5.0
    seen = view(now, n1=node("n1", now, fencing=UNDER_WAY), op=OP)
    assert of(StartOperation, now, seen) == []
    assert of(EndFence, now, seen) == [EndFence("n1", "")]
    assert not of(FinishOperation, now, seen)[0].succeeded  # type: ignore[attr-defined]


def test_a_fence_that_succeeded_counts_as_fence_confirm() -> None:
    now = LOST + 9.0
    op = replace(OP, running=True, outcome="fence_dummy: reboot 0.4 s", succeeded=True)
    seen = view(now, n1=node("n1", 50.0, fencing=UNDER_WAY), op=op)
    assert of(SetFenceConfirmed, now, seen) == [SetFenceConfirmed("n1", True, "boot of n1")]
    assert "NodeFenced" in reasons(now, seen)
    assert of(FinishOperation, now, seen)[0].succeeded  # type: ignore[attr-defined]


def test_the_next_boot_of_a_rebooted_node_is_not_taken_for_the_one_that_was_fenced() -> None:
    now = LOST + 9.0
    op = replace(OP, running=True, outcome="fence_dummy: reboot 8.0 s", succeeded=True)
    seen = view(now, n1=node("n1", now, fencing=UNDER_WAY, boot_id="next"), op=op)
    assert of(SetFenceConfirmed, now, seen) == []
    assert of(EndFence, now, seen) == [EndFence("n1", "")]


def test_a_fence_that_failed_confirms_nothing_and_calls_for_an_operator() -> None:
    now = LOST + 9.0
    op = replace(OP, running=True, outcome="fence_dummy: exit status 1", succeeded=False)
    seen = view(now, n1=node("n1", 50.0, fencing=UNDER_WAY), op=op)
    assert of(SetFenceConfirmed, now, seen) == []
    assert of(EndFence, now, seen) == [EndFence("n1", "fence_dummy: exit status 1")]
    assert "FenceFailed" in reasons(now, seen)


def test_a_failure_is_forgotten_when_the_node_is_heard_again() -> None:
    seen = view(80.0, n1=node("n1", 80.0, fencing=replace(FENCING, failed="no route")))
    assert of(EndFence, 80.0, seen) == [EndFence("n1", "")]


def test_another_node_takes_over_when_the_one_that_was_at_it_is_lost() -> None:
    now = LOST + 9.0
    seen = view(now, n1=node("n1", 50.0, fencing=UNDER_WAY), op=replace(OP, running=True))
    seen = replace(seen, nodes={**seen.nodes, "n2": node("n2", 50.0)})
    assert of(EndFence, now, seen) == [EndFence("n1", "")]
    again = view(now, n1=node("n1", 50.0, fencing=FENCING))
    again = replace(again, nodes={**again.nodes, "n2": node("n2", 50.0)})
    assert of(AskFence, now, again)[0].by == "n3"  # type: ignore[attr-defined]


def test_one_that_never_says_how_it_ended_is_given_up() -> None:
    now = LOST + 5.0 + 6 * 60.0 + 30.0
    seen = view(now, n1=node("n1", 50.0, fencing=UNDER_WAY), op=replace(OP, running=True))
    assert not of(FinishOperation, now, seen)[0].succeeded  # type: ignore[attr-defined]
