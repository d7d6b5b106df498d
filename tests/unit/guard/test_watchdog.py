"""When the watchdog is petted, when it is left to bark, and what is allowed without one."""

from __future__ import annotations

import pytest

from hasys.guard.parts import Refused
from hasys.guard.plan import Agent, Book
from hasys.guard.protocol import AddressEntry, CgroupEntry, Plan
from tests.unit.guard.fakes import Bench

IP = AddressEntry("eth0", "10.77.0.100", "web-ip")
APP = CgroupEntry("/cg/groups/web/web-app", "web-app")
PLAN = Plan("web", 1, 7, (IP, APP))


def started(mode: str = "required", *, there: bool = True, stoppable: bool = True) -> Bench:
    bench = Bench(Book(agent=Agent(7, 99, "/cg/agent")), mode=mode)
    bench.device.there, bench.device.stoppable = there, stoppable
    bench.guard.start()
    return bench


def hold(bench: Bench) -> None:
    bench.grant(web=(1, 7))
    assert bench.guard.plan(PLAN) == "permitted"
    bench.machine.there |= {IP.address, APP.path}


def test_off_never_touches_the_watchdog() -> None:
    bench = started("off")
    hold(bench)
    bench.advance(3.0, web=(1, 7))
    assert not bench.device.pets
    assert bench.guard.health().watchdog == "none"


def test_an_armed_watchdog_is_told_to_the_leader_with_its_timeout() -> None:
    assert started().guard.health().watchdog == "watchdog 10s"


def test_what_is_held_is_over_one_timeout_after_the_last_grant() -> None:
    """A leader waits so long before another node starts more than an address."""
    bench = started()
    hold(bench)
    bench.advance(2.0, web=(1, 7))
    last_grant = bench.loop.time
    bench.machine.immortal.add(APP.path)
    bench.loop.advance(30.0)  # no answer any more, and the fence does not end
    assert bench.guard.fencings
    assert bench.device.barks <= last_grant + 10.0


def test_a_grant_that_leaves_out_what_is_held_does_not_pet() -> None:
    bench = started()
    hold(bench)
    bench.guard.plan(Plan("db", 1, 7, ()))
    bench.grant(web=(1, 7), db=(1, 7))
    bench.advance(0.5, web=(1, 7), db=(1, 7))
    assert bench.guard.held() == {"web", "db"}
    petted = bench.device.pets[-1]
    bench.machine.immortal.add(APP.path)
    bench.advance(1.0, db=(1, 7))  # web is revoked, and does not die
    assert bench.device.pets[-1] - petted < 0.1


def test_a_node_without_a_majority_is_not_reset_once_everything_is_given_up() -> None:
    bench = started()
    hold(bench)
    bench.loop.advance(60.0)
    assert not bench.guard.held()
    assert bench.device.barks > bench.loop.time


def test_a_guard_that_wakes_too_late_does_not_pet() -> None:
    bench = started()
    petted = bench.device.pets[-1]
    bench.loop.lag.saw(0.6, bench.loop.time)  # more than half a TTL
    bench.loop.advance(0.6)
    assert bench.device.pets[-1] == petted
    assert bench.watchdog.skipped
    bench.loop.lag.saw(0.001, bench.loop.time)
    bench.loop.advance(0.6)
    assert bench.device.pets[-1] > petted


def test_required_and_none_there_holds_nothing_and_says_why() -> None:
    bench = started(there=False)
    bench.grant(web=(1, 7))
    with pytest.raises(Refused, match="watchdog required: /dev/watchdog: No such file or directory"):
        bench.guard.plan(PLAN)
    health = bench.guard.health()
    assert not health.armed
    assert "watchdog required" in health.message


def test_required_and_none_there_gives_up_what_an_earlier_guard_held() -> None:
    earlier = started("off")
    hold(earlier)
    bench = Bench(earlier.guard.book, {"web": 0.9}, mode="required")
    bench.device.there = False
    bench.machine.there |= {IP.address, APP.path}
    bench.guard.start()
    assert not bench.guard.held()
    assert not bench.machine.there


def test_required_and_lost_in_operation_gives_everything_up_and_comes_back_with_the_device() -> None:
    bench = started()
    hold(bench)
    bench.device.there = False
    bench.advance(0.5, web=(1, 7))
    assert not bench.guard.held()
    assert not bench.guard.health().armed
    bench.device.there = True
    bench.loop.advance(11.0)
    assert bench.guard.health().armed


def test_auto_and_none_there_goes_on_without() -> None:
    bench = started("auto", there=False)
    hold(bench)
    bench.advance(0.5, web=(1, 7))
    health = bench.guard.health()
    assert health.armed
    assert health.watchdog == "none"
    assert bench.watchdog.missing


def test_an_orderly_stop_disarms_it_unless_something_is_held() -> None:
    bench = started()
    assert bench.watchdog.stop() == ""
    assert not bench.device.armed
    bench = started()
    hold(bench)
    assert "stays armed" in bench.watchdog.stop()
    assert bench.device.armed


def test_one_that_cannot_be_stopped_is_said_so() -> None:
    assert "cannot be disarmed" in started(stoppable=False).watchdog.stop()
