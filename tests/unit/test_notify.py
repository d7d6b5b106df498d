"""What a process tells systemd: over a real socket, never blocking, never failing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasys.notify import ALIVE, READY, Notifier


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(str(tmp_path / "notify"))
        yield sock


def test_the_variables_are_taken_and_not_handed_on(listener: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "3000000", "HOME": "/"}
    notifier = Notifier.from_environment(environment)
    notifier.say(READY)
    assert listener.recv(100) == b"READY=1"
    assert (notifier.period, environment) == (1.0, {"HOME": "/"})
    notifier.close()


def test_an_abstract_address_works_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0hasys-test-{os.getpid()}")
        notifier = Notifier(f"@hasys-test-{os.getpid()}")
        notifier.say(ALIVE)
        assert sock.recv(100) == b"WATCHDOG=1"
        notifier.close()


@pytest.mark.parametrize(
    ("environment", "period"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "x"}, 0.0),
        ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
    ],
)
def test_signs_of_life_are_for_whom_the_variables_name(environment: dict[str, str], period: float) -> None:
    assert Notifier.from_environment(environment).period == period


def test_nobody_who_listens_is_no_fault(tmp_path: Path) -> None:
    for notifier in (Notifier(str(tmp_path / "nothing")), Notifier()):
        notifier.say(READY)
        notifier.close()
        notifier.say(READY)


def test_a_listener_that_does_not_read_stops_nobody(listener: socket.socket) -> None:
    notifier = Notifier(listener.getsockname())
    for _ in range(100_000):  # more than any queue holds
        notifier.say(ALIVE)
    assert listener.recv(100) == b"WATCHDOG=1"
    notifier.close()
