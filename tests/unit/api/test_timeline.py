"""From recorded events to the timeline of a failover."""

from __future__ import annotations

from hasys.api.convert import duration
from hasys.api.timeline import Timeline, timelines
from hasys.v1 import objects_pb2 as pb

T0 = 1_700_000_000


def event(
    reason: str, at: float, epoch: int = 2, *, node: str = "n2", about: str = "", took: float = 0.0, cause: str = "",
    clock: str = "n3", actor: str = "controller",
) -> pb.Event:  # fmt: skip
    made = pb.Event(reason=reason, epoch=epoch, node=node, cause=cause, clock=clock, actor=actor)
    made.regarding.CopyFrom(
        pb.Key(kind="VirtualIP", group="web", name=about) if about else pb.Key(kind="Group", name="web")
    )
    made.time.FromNanoseconds(T0 * 10**9 + round(at * 1e9))
    if took:
        made.duration.CopyFrom(duration(took))
    return made


def lost_node(clock: str = "n3") -> list[pb.Event]:
    """n1 had web and died at 0; a record of each part of the failover, in the order in which it is committed."""
    agent = "agent/n2"
    return [
        event("GroupAssigned", -100, 1, node="n1"),
        event("ResourceStarted", -99, 1, node="n1", about="web-ip", took=0.1),
        event("GroupRunning", -98, 1, node="n1"),
        event("FailoverStarted", 0.7, took=0.7, cause="n1 is lost: no keep-alive"),
        event("GroupRunning", 1.2, clock=clock),
        event("GroupGranted", 1.0, cause="the lease of n1 is over"),
        event("GroupPermitted", 1.01, actor=agent),
        event("ResourceStarted", 1.06, about="web-ip", took=0.05, actor=agent),
        event("FirstAnswer", 1.3, about="web-http", actor=agent),
        event("Fenced", 9.0, 1, node="n1", actor="agent/n1"),
        event("ResourceRestarted", 30.0, about="web-ip", actor=agent),
        event("GroupDegraded", 40.0),
    ]


def failover(events: list[pb.Event]) -> Timeline:
    (found,) = [line for line in timelines(events) if line.epoch == 2]
    return found


def test_a_failover_counts_from_the_last_sign_of_life_to_the_word_that_it_runs() -> None:
    line = failover(lost_node())
    assert (line.what, line.previous, line.node, line.actor) == ("failover", "n1", "n2", "controller")
    assert (line.begun, round(line.decided, 6)) == (T0 * 10**9, 0.7)
    assert (round(line.ended or 0, 6), line.well, line.clocks) == (1.2, True, ("n3",))


def test_each_part_stands_at_its_time_with_the_node_that_saw_it() -> None:
    told = [(round(m.begin, 6), round(m.lasted, 6), m.node, m.what) for m in failover(lost_node()).marks]
    assert told == [
        (0.0, 0.7, "n3", "detected: n1 is lost: no keep-alive"),
        (0.7, 0.0, "n3", "decided: failover from n1 to n2"),
        (1.0, 0.0, "n3", "granted: the lease of n1 is over"),
        (1.01, 0.0, "n2", "permitted"),
        (1.01, 0.05, "n2", "web-ip starts"),
        (1.2, 0.0, "n3", "running"),
        (1.3, 0.0, "n2", "first answer, seen by monitor web-http"),
        (9.0, 0.0, "n1", "fenced"),
    ]


def test_the_order_in_which_reports_arrive_does_not_matter() -> None:
    assert failover(lost_node()[::-1]) == failover(lost_node())


def test_a_leader_that_changed_in_between_is_named() -> None:
    assert set(failover(lost_node(clock="n2")).clocks) == {"n3", "n2"}


def test_an_order_counts_from_the_decision_and_shows_the_stop() -> None:
    line = failover(
        [
            event("GroupAssigned", -100, 1, node="n1"),
            event("MoveStarted", 0, cause="switchover by admin", actor="admin"),
            event("ResourceStopped", 0.3, 1, node="n1", about="web-ip", took=0.2, actor="agent/n1"),
            event("GroupGranted", 0.31, cause="n1 released it"),
        ]
    )
    told = [(round(m.begin, 6), m.what) for m in line.marks]
    assert told == [
        (0.0, "decided: move from n1 to n2: switchover by admin"),
        (0.1, "web-ip stops"),
        (0.31, "granted: n1 released it"),
    ]
    assert line.ended is None


def test_a_failed_resource_that_caused_the_move_is_where_it_begins() -> None:
    line = failover(
        [
            event("GroupRunning", -100, 1, node="n1"),
            event("MonitorFailed", -50, 1, node="n1", about="disk", cause="full", actor="agent/n1"),
            event("ResourceFailed", -0.2, 1, node="n1", about="app", cause="exit status 1", actor="agent/n1"),
            event("MoveStarted", 0, cause="app failed on n1"),
            event("GroupFailed", 1, cause="app failed on n2"),
        ]
    )
    assert [m.what for m in line.marks] == [
        "app fails: exit status 1", "decided: move from n1 to n2: app failed on n1", "failed: app failed on n2",
    ]  # fmt: skip
    assert round(line.decided, 6) == 0.2
    assert line.ended is not None
    assert not line.well


def test_events_of_other_groups_and_of_nodes_do_not_mix_in() -> None:
    other = event("ResourceStarted", 1.0, about="x")
    other.regarding.group = "db"
    node = pb.Event(reason="NodeLost", node="n1", regarding=pb.Key(kind="Node", name="web"))
    assert failover([*lost_node(), other, node]) == failover(lost_node())
