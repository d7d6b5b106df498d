"""Whom the network monitor asks, and on which ears."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from hasys.model.arp import Told
from hasys.monitors import networks
from hasys.monitors.health import MISSES
from hasys.monitors.networks import HURRY, PERIOD, NetworkMonitor, Watched
from hasys.resources.addresses import Link


class Machine:
    """One interface, and what is on it."""

    def __init__(self) -> None:
        self.revision = 1
        self.addresses = [("10.0.0.1", 24), ("10.0.0.100", 24)]

    def link(self, name: str) -> Link | None:
        return Link("eth0", 2, b"\x02\0\0\0\0\x01", True, True) if name == "eth0" else None

    def on(self, name: str) -> Sequence[tuple[str, int]]:
        return self.addresses

    async def changed(self, since: int, address: str | None = None) -> None:
        raise NotImplementedError


class Ear:
    """``asked``: (who, in whose name) of all ears; ``broken``: no ear can be opened."""

    asked: list[tuple[str, str]]
    broken: bool

    def __init__(self, interface: str) -> None:
        if self.broken:
            raise OSError("no")

    def ask(self, target: str, sender: str, mac: bytes) -> None:
        self.asked.append((target, sender))

    def hear(self) -> Iterator[Told]:
        return iter(())


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> type[Ear]:
    Ear.asked, Ear.broken = [], False
    monkeypatch.setattr(networks, "ArpEar", Ear)
    return Ear


class Rig:
    """A monitor whose rounds are called."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.watched = needed("10.0.0.2")
        self.monitor = NetworkMonitor(self.machine, lambda: self.watched, self.tell)

    async def tell(self, troubles: tuple[Any, ...]) -> None:
        raise NotImplementedError

    def round(self, *, claims: bool = False) -> list[tuple[str, str]]:
        Ear.asked.clear()
        self.monitor._look(0.0, ask=True, claims=claims)
        return list(Ear.asked)


def needed(*members: str) -> Watched:
    return Watched(frozenset({"eth0"}), frozenset({"10.0.0.100"}), {f"m{i}": (a,) for i, a in enumerate(members)})


def test_members_on_the_link_are_asked_in_the_name_of_our_own_address(ear: type[Ear]) -> None:
    rig = Rig()
    assert rig.round() == [("10.0.0.2", "10.0.0.1")]
    assert rig.round() == [("10.0.0.2", "10.0.0.1")]


def test_the_next_round_knows_another_address_of_a_member_of_ours_and_of_a_gateway(ear: type[Ear]) -> None:
    rig = Rig()
    rig.round()
    rig.watched = needed("10.0.0.3")
    assert rig.round() == [("10.0.0.3", "10.0.0.1")]
    rig.machine.addresses, rig.machine.revision = [("10.0.0.9", 24)], 2
    assert rig.round() == [("10.0.0.3", "10.0.0.9")]
    rig.monitor._routes = {"eth0": ("10.0.0.254",)}
    assert rig.round() == [("10.0.0.254", "10.0.0.9"), ("10.0.0.3", "10.0.0.9")]


def test_who_owes_an_answer_is_asked_sooner_until_it_counts_as_silent(ear: type[Ear]) -> None:
    rig = Rig()
    pauses = []
    for _ in range(MISSES + 2):
        rig.round()
        pauses.append(rig.monitor._pause)
    assert pauses == [PERIOD, *[HURRY] * (MISSES - 1), PERIOD, PERIOD]
    assert pytest.approx(1.2) == PERIOD + (MISSES - 1) * HURRY


def test_an_ear_that_cannot_be_opened_is_tried_again_in_the_next_round(ear: type[Ear]) -> None:
    rig = Rig()
    ear.broken = True
    assert rig.round() == []
    ear.broken = False
    assert rig.round() == [("10.0.0.2", "10.0.0.1")]


def test_an_address_is_defended_from_the_next_round_on_and_no_longer_than_wanted(ear: type[Ear]) -> None:
    rig = Rig()
    rig.watched = needed()
    assert rig.round(claims=True) == []
    with rig.monitor.defended("eth0", "10.0.0.100", lambda mac: None):
        assert rig.round(claims=True) == [("10.0.0.100", "")]
        assert rig.round() == []
    assert rig.round(claims=True) == []
