"""From findings to states and actions: counters, start delay, restarts, recovery."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hasys.monitors.evaluation import AGAIN, Action, Judge, Restarts, Settings, State
from hasys.monitors.port import Found
from hasys.v1 import monitors_pb2 as mpb

BAD, GOOD = Found("gone"), Found()


def states(judge: Judge, looks: str, *, begin: float = 0.0) -> str:
    """The first letters of the states after looks one second apart: ``x`` bad, anything else good."""
    told = ""
    for second, look in enumerate(looks):
        told += judge.take(BAD if look == "x" else GOOD, begin + second).state.value[0]
    return told


def test_so_many_bad_looks_in_a_row_are_a_failure_and_one_good_one_ends_it() -> None:
    judge = Judge(Settings(failures=3, action=Action.FAILOVER), 0.0)
    assert states(judge, ".xx.xxxx.x") == "OOOOOOFFOO"


def test_what_follows_is_said_with_the_failure_alone() -> None:
    judge = Judge(Settings(failures=1, action=Action.FAILOVER), 0.0)
    assert judge.take(GOOD, 0.0).action is None
    assert judge.take(BAD, 1.0).action is Action.FAILOVER
    assert judge.take(GOOD, 2.0).action is None


def test_before_the_first_good_look_it_waits_and_still_counts() -> None:
    judge = Judge(Settings(failures=3), 0.0)
    assert states(judge, "xxx") == "WWF"


def test_the_start_delay_is_left_until_it_has_passed() -> None:
    judge = Judge(Settings(start_delay=5.0), 10.0)
    assert judge.waits(12.0) == 3.0
    assert judge.waits(15.0) == 0.0


def test_a_fault_may_bring_its_own_action() -> None:
    judge = Judge(Settings(failures=1, action=Action.ALERT), 0.0)
    assert judge.take(Found("crashed", action=mpb.MonitorSpec.Stop), 0.0).action is Action.STOP


RESTARTS = Restarts(start_time=3.0, retries=2, backoff=1.5, then=Action.STOP)


def restarting() -> Judge:
    return Judge(Settings(failures=2, action=Action.RESTART, restarts=RESTARTS), 0.0)


def test_a_restart_is_asked_for_first_at_once_then_after_the_back_off_then_given_up() -> None:
    judge = restarting()
    assert judge.take(BAD, 0.0).restart_in is None
    assert judge.take(BAD, 1.0).restart_in == 0.0
    judge.restarted(1.0)
    assert [judge.take(BAD, t).restart_in for t in (2.0, 3.0)] == [None, None]  # its start time
    assert judge.take(BAD, 4.0).restart_in == 1.5
    judge.restarted(5.5)
    given_up = judge.take(BAD, 8.5)
    assert (given_up.state, given_up.action, given_up.restarts) == (State.FAILED, Action.STOP, 2)


def test_a_good_look_within_the_start_time_ends_the_restart() -> None:
    judge = restarting()
    states(judge, "xx")
    judge.restarted(1.0)
    assert judge.take(GOOD, 2.0).state is State.OK


def test_restarts_are_forgotten_after_a_calm_time_and_not_before() -> None:
    for calm, used in ((RESTARTS.stable_after, 1), (RESTARTS.stable_after - 1, 2)):
        judge = restarting()
        states(judge, "xx")
        judge.take(GOOD, 2.0)
        judge.take(GOOD, 2.0 + calm)
        judge.take(BAD, 100.0)
        assert judge.take(BAD, 101.0).restarts == used


def test_what_was_given_up_is_tried_again_after_a_long_while() -> None:
    judge = Judge(Settings(failures=1, action=Action.RESTART, restarts=Restarts(0.0, 1, 0.0)), 0.0)
    assert judge.take(BAD, 0.0).restart_in == 0.0
    judge.restarted(0.0)
    assert judge.take(BAD, 1.0).state is State.FAILED
    assert judge.take(BAD, AGAIN).state is State.FAILED
    assert judge.take(BAD, AGAIN + 1.0).restart_in == 0.0


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5), st.integers(1, 4), st.floats(0, 5))
def test_no_history_restarts_more_often_than_allowed_or_fails_early(
    looks: list[bool], failures: int, retries: int, start_time: float
) -> None:
    restarts = Restarts(start_time, retries, 0.0)
    judge = Judge(Settings(failures, 0.0, Action.RESTART, restarts), 0.0)
    bad = asked = 0
    for second, good in enumerate(looks):  # too short for anything to be forgotten
        verdict = judge.take(GOOD if good else BAD, float(second))
        bad = 0 if good else bad + 1
        if verdict.restart_in is not None:
            asked += 1
            judge.restarted(float(second))
        assert asked <= retries
        if verdict.state is State.FAILED:
            assert asked == retries
            assert bad >= 1
        if good:
            assert verdict.state is State.OK
