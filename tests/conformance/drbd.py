"""What hasys expects of DRBD, claim by claim: held by the stand-in of the tests, and by the real one in a guest.

``python -m tests.conformance.drbd r0 /dev/drbd0`` asks DRBD of this machine: a resource that may be destroyed, whose
peer is not there. It promotes by force to get to a known state, which hasys never does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import anyio

from hasys import drbd
from hasys.model.drbd import Volume
from hasys.resources.drbd import Drbd

PATIENCE = 20.0
"""Seconds for a connection to change its state, in a guest without KVM."""


class Rig(Protocol):
    """A resource of DRBD whose other node cannot be reached."""

    resource: str

    def adm(self, *words: str) -> tuple[int, str]:
        """Exit status of drbdadm, and what it said."""
        ...

    def volume(self) -> Volume: ...

    def renew(self) -> None:
        """Up, Secondary, UpToDate, looking for its peer."""
        ...

    def hold(self) -> Any:
        """As long as this is entered, somebody has the device open."""
        ...


def a_disk_that_is_up_to_date_is_promoted_and_steps_back_as_often_as_one_likes(rig: Rig) -> None:
    for verb, primary in (("primary", True), ("primary", True), ("secondary", False), ("secondary", False)):
        code, said = rig.adm(verb, rig.resource)
        assert code == 0, said
        assert rig.volume().primary is primary


def without_its_peer_it_looks_for_it_and_may_be_started(rig: Rig) -> None:
    volume = rig.volume()
    assert volume.size > 0
    assert [peer.connected for peer in volume.peers] == [False]
    assert volume.refusal() == ""
    assert volume.trouble().startswith("not connected")


def what_is_open_stays_primary(rig: Rig) -> None:
    assert rig.adm("primary", rig.resource)[0] == 0
    with rig.hold():
        code, said = rig.adm("secondary", rig.resource)
        assert code != 0
        assert "held open" in said, said
        assert rig.volume().primary
    assert rig.adm("secondary", rig.resource)[0] == 0


def a_disk_that_is_outdated_is_not_promoted(rig: Rig) -> None:
    assert rig.adm("outdate", rig.resource)[0] == 0
    volume = rig.volume()
    assert volume.disk == "Outdated"
    assert "Outdated" in volume.refusal()
    code, said = rig.adm("primary", rig.resource)
    assert code != 0
    assert "UpToDate" in said, said
    assert not rig.volume().primary


def told_to_disconnect_it_stands_alone_until_told_to_connect(rig: Rig) -> None:
    assert rig.adm("disconnect", rig.resource)[0] == 0
    until(rig, "StandAlone")
    assert rig.volume().refusal().startswith("StandAlone")
    assert rig.adm("connect", rig.resource)[0] == 0
    until(rig, "WFConnection", "Connecting")
    assert rig.volume().refusal() == ""


def what_is_down_is_no_volume(rig: Rig) -> None:
    assert rig.adm("down", rig.resource)[0] == 0
    try:
        rig.volume()
    except drbd.Down as e:
        assert f"drbdadm up {rig.resource}" in str(e)  # noqa: PT017  also run without pytest
    else:
        raise AssertionError("it is down and was seen")
    assert rig.adm("up", rig.resource)[0] == 0
    until(rig, "WFConnection", "Connecting")
    assert rig.volume().role == "Secondary"


def a_resource_that_is_not_in_its_configuration_is_refused(rig: Rig) -> None:
    assert rig.adm("primary", "no-such")[0] != 0


def until(rig: Rig, *states: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while (volume := rig.volume()).peers[0].state not in states:
        assert time.monotonic() < deadline, volume
        time.sleep(0.1)


CLAIMS = (
    without_its_peer_it_looks_for_it_and_may_be_started,
    a_disk_that_is_up_to_date_is_promoted_and_steps_back_as_often_as_one_likes,
    what_is_open_stays_primary,
    told_to_disconnect_it_stands_alone_until_told_to_connect,
    what_is_down_is_no_volume,
    a_disk_that_is_outdated_is_not_promoted,
    a_resource_that_is_not_in_its_configuration_is_refused,
)


class Real:
    """DRBD of this machine."""

    def __init__(self, resource: str, device: str) -> None:
        self.resource, self._device = resource, device

    def adm(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            ["drbdadm", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        return done.returncode, done.stdout

    def volume(self) -> Volume:
        return anyio.run(Drbd().look, self.resource, self._device)

    def renew(self) -> None:
        self.adm("up", self.resource)
        self.adm("connect", self.resource)
        until(self, "WFConnection", "Connecting")
        for words in (("primary", "--force"), ("secondary",)):
            code, said = self.adm(*words, self.resource)
            assert code == 0, said

    @contextmanager
    def hold(self) -> Iterator[None]:
        held = os.open(self._device, os.O_RDWR)
        try:
            yield
        finally:
            os.close(held)


if __name__ == "__main__":
    here = Real(*sys.argv[1:])
    for claim in CLAIMS:
        here.renew()
        claim(here)
        print(claim.__name__)
