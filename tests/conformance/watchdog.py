"""What the guard expects of a watchdog, claim by claim: held by the fake in tests, and by a real one in a guest.

``python -m tests.conformance.watchdog`` asks /dev/watchdog of this machine. Where it does not conform the machine may
be reset: for guests that are made for it (``make vm-test``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from hasys.config import Watchdog
from hasys.guard.watchdog import Device, LinuxDevice

Open = Callable[[Watchdog], Device]


def the_timeout_that_is_asked_for_is_granted(open: Open) -> None:
    for seconds in (30, 11):
        device = open(Watchdog("auto", timeout=seconds))
        device.disarm()
        assert device.timeout == float(seconds)


def only_one_can_have_it(open: Open) -> None:
    device = open(Watchdog("auto", timeout=30))
    try:
        open(Watchdog("auto", timeout=30))
    except OSError as e:
        assert e.errno == errno.EBUSY  # noqa: PT017  also run without pytest
    else:
        raise AssertionError("it was opened twice")
    finally:
        device.disarm()


def it_is_petted_as_often_as_one_likes(open: Open) -> None:
    device = open(Watchdog("auto", timeout=30))
    for _ in range(100):
        device.pet()
    device.disarm()


def it_can_be_disarmed_and_armed_again(open: Open) -> None:
    for _ in range(3):
        device = open(Watchdog("auto", timeout=30))
        assert device.stoppable
        device.disarm()


def one_that_is_not_there_is_an_error_of_the_system(open: Open) -> None:
    try:
        open(Watchdog("auto", Path("/dev/watchdog77"), 30))
    except OSError as e:
        assert e.errno == errno.ENOENT  # noqa: PT017  also run without pytest
    else:
        raise AssertionError("what is not there was opened")


def one_that_was_let_go_can_be_taken_up_again(open: Open) -> None:
    open(Watchdog("auto", timeout=30)).close()
    open(Watchdog("auto", timeout=30)).disarm()


CLAIMS = (
    one_that_was_let_go_can_be_taken_up_again,
    the_timeout_that_is_asked_for_is_granted,
    only_one_can_have_it,
    it_is_petted_as_often_as_one_likes,
    it_can_be_disarmed_and_armed_again,
    one_that_is_not_there_is_an_error_of_the_system,
)

if __name__ == "__main__":
    for claim in CLAIMS:
        claim(LinuxDevice)
        print(claim.__name__)
