"""Times of events: one clock, the leader's, whatever the reporters' and its own wall clocks do."""

from __future__ import annotations

from hasys.api import convert
from hasys.api.auth import NODE, Caller
from hasys.api.convert import Stamps, duration
from hasys.api.server.reports import Receipt, plan_report
from hasys.store.machine import Machine
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb

SECOND = 10**9


RECEIVED = Receipt("n3")


def stored(event: pb.Event, receipt: Receipt = RECEIVED) -> pb.Event:
    request = api_pb2.ReportRequest(node="n1", events=[event])
    _, (mutation,) = plan_report(request, Caller(NODE, "n1"), Machine(), receipt)
    return mutation.record


def test_a_reported_event_gets_the_leaders_time_less_its_age_and_its_time_under_way() -> None:
    event = pb.Event(reason="ResourceStarted", cause="a\nb", age=duration(100.0))
    event.time.FromSeconds(1)  # the reporter's wall clock is wrong by decades
    before = convert.stamp().ToNanoseconds()
    found = stored(event, Receipt("n3", delay=20.0))
    after = convert.stamp().ToNanoseconds()
    assert before <= found.time.ToNanoseconds() + 120 * SECOND <= after
    assert (found.clock, found.HasField("age"), found.cause) == ("n3", False, "a\\nb")


def test_an_event_of_a_day_without_a_leader_keeps_the_time_of_its_node() -> None:
    event = pb.Event(reason="OathSworn", clock="n3")
    event.time.FromSeconds(7)
    assert (stored(event).time.ToSeconds(), stored(event).clock) == (7, "")


def test_an_absurd_age_is_bounded() -> None:
    for age in (-5.0, 1e11):
        assert stored(pb.Event(reason="X", age=duration(age))).time.ToNanoseconds() > 0


def test_stamps_of_a_burst_do_not_follow_a_jump_of_the_wall_clock() -> None:
    clock = {"wall": 1_000 * SECOND, "monotonic": 5 * SECOND}
    stamps = Stamps(lambda: clock["wall"], lambda: clock["monotonic"])
    times = [stamps.next().ToNanoseconds()]
    for wall, monotonic in ((-3600 * SECOND, 1), (7200 * SECOND, 2), (0, Stamps.QUIET)):
        clock["wall"] += wall
        clock["monotonic"] += monotonic
        times.append(stamps.next().ToNanoseconds())
    assert times[:3] == [1_000 * SECOND, 1_000 * SECOND + 1, 1_000 * SECOND + 3]
    assert times[3] == clock["wall"], "after a quiet minute it is the wall clock's time again"
