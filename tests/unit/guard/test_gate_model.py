"""The gate against a model of the kernel, with a process that may be stopped between any two instructions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasys.guard import ruleset
from hasys.guard.elements import Operation
from hasys.guard.gate import FUSE, MARGIN, Gate, GateChanged, GateFailed, LeaseOver
from hasys.guard.nft import NftError

TABLE = "hasys_demo_n1"
WEB, DB = "10.0.0.1", "fd77::2"


class Time:
    """True time. Every look at the clock and every entry into the kernel may be preceded by a stop of the process."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stops: list[float] = []
        """How long the process is stopped before its next steps; afterwards it is not."""

    def pass_step(self) -> None:
        self.now += self.stops.pop(0) if self.stops else STEP

    def read(self) -> float:
        self.pass_step()
        return self.now


class Kernel:
    """Sets with timeouts; a transaction is done as a whole or not at all, and finds expired elements gone."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.ends: dict[tuple[str, bytes], float] = {}
        self.ends_set: defaultdict[bytes, list[float]] = defaultdict(list)
        """Key of an address -> every end that was ever set for it."""
        self.unmuted_at: list[tuple[float, bytes]] = []

    def run(self, operations: Sequence[Operation]) -> None:
        self.time.pass_step()
        now, ends = self.time.now, dict(self.ends)
        self.ends = {k: t for k, t in self.ends.items() if t > now}
        work = dict(self.ends)
        for o in operations:
            k = (o.set_name, o.key)
            if o.add:
                work.setdefault(k, float("inf") if o.ms is None else now + o.ms / 1000)
            elif work.pop(k, None) is None:
                self.ends = ends
                raise NftError("No such file or directory", missing=True)
        self.unmuted_at += [(now, k[1]) for k in work if k not in self.ends and k[0].startswith("live")]
        for (name, key), end in work.items():
            if name.startswith("live"):
                self.ends_set[key].append(end)
        self.ends = work

    def live(self, address: str) -> bool:
        return self.ends.get((ruleset.live_set(address), ruleset.key(address)), 0.0) > self.time.now

    def end(self, address: str) -> float:
        return self.ends.get((ruleset.live_set(address), ruleset.key(address)), 0.0)


class Text:
    """The part of libnftables that the gate needs here: the structure is never in question."""

    def run(self, commands: str, *, flags: int = 0) -> str:
        return ""


@pytest.fixture
def time() -> Time:
    return Time()


def make(time: Time) -> tuple[Gate, Kernel]:
    kernel = Kernel(time)
    gate = Gate(Text(), kernel, TABLE, time.read)
    gate.install((), (), {WEB, DB})
    return gate, kernel


STEP = 0.00005
"""Seconds that a step takes when nothing stops the process."""
stops = st.dictionaries(
    st.integers(0, 24), st.sampled_from([0.0001, 0.004, 0.006, 0.1, 0.5, 1.0, 30.0]), min_size=1, max_size=4
).map(lambda at: [at.get(step, STEP) for step in range(max(at) + 1)])
"""Where, counted in steps, the process is stopped, and for how many seconds."""


@settings(max_examples=400)
@given(stops, st.floats(0.02, 1.2), st.lists(st.floats(0.0, 0.4), min_size=1, max_size=4))
def test_no_address_begins_to_speak_after_its_lease_wherever_the_process_is_stopped(
    stops: list[float], ttl: float, pauses: list[float]
) -> None:
    time = Time()
    gate, kernel = make(time)
    until = time.now + ttl
    time.stops = list(stops)
    lease = [until]
    try:
        gate.hold("web", {WEB}, until)
    except GateFailed:
        assert not kernel.live(WEB)
    for pause in pauses:
        time.now += pause
        lease.append(time.now + ttl)
        gate.extend({"web": lease[-1]})
        if kernel.live(WEB):
            assert time.now <= max(lease)
    for end in kernel.ends_set[ruleset.key(WEB)]:
        assert end <= max(lease) + 1e-6
    for at, key in kernel.unmuted_at:
        assert key == ruleset.key(WEB)
        assert at <= lease[0] + 1e-6


@settings(max_examples=300)
@given(stops)
def test_a_refresh_never_lets_an_expired_address_speak_again(stops: list[float]) -> None:
    time = Time()
    gate, kernel = make(time)
    gate.hold("web", {WEB}, time.now + 0.2)
    first = list(kernel.unmuted_at)
    time.stops = list(stops)
    gate.extend({"web": time.now + 1.0})
    gate.extend({"web": time.now + 1.0})
    assert kernel.unmuted_at == first


def test_a_lease_that_ended_is_told_from_a_table_that_was_removed(time: Time) -> None:
    gate, kernel = make(time)
    gate.hold("web", {WEB}, time.now + 0.2)
    kernel.ends.clear()
    assert isinstance(gate.extend({"web": time.now + 1.0})["web"], GateChanged)
    time.now += 0.2
    assert isinstance(gate.extend({"web": time.now + 1.0})["web"], LeaseOver)


def test_one_group_whose_lease_ended_does_not_keep_the_others_from_being_extended(time: Time) -> None:
    gate, kernel = make(time)
    gate.hold("web", {WEB}, time.now + 0.2)
    gate.hold("db", {DB}, time.now + 1.0)
    time.now += 0.3
    failed = gate.extend({"web": time.now + 1.0, "db": time.now + 1.0})
    assert set(failed) == {"web"}
    assert not kernel.live(WEB)
    assert kernel.end(DB) > time.now + 0.9


def test_a_transaction_that_comes_late_is_refused_by_the_kernel_and_computed_anew(time: Time) -> None:
    gate, kernel = make(time)
    gate.hold("web", {WEB}, time.now + 0.5)
    until = time.now + 0.6
    time.stops = [STEP, STEP, STEP, 0.1]  # a look at what is worth it, the fuse, the start, then late in the kernel
    assert gate.extend({"web": until}) == {}
    assert gate.counts.overslept == 1
    assert until - MARGIN - 0.002 <= kernel.end(WEB) <= until - MARGIN + FUSE


def test_a_process_that_is_always_late_gives_up_and_mutes(time: Time) -> None:
    gate, kernel = make(time)
    gate.hold("web", {WEB}, time.now + 0.9)
    time.stops = [0.021] * 40
    assert isinstance(gate.extend({"web": time.now + 1.0})["web"], LeaseOver)
    assert not kernel.live(WEB)


def test_an_address_that_is_not_gated_is_never_made_live(time: Time) -> None:
    gate, kernel = make(time)
    with pytest.raises(GateFailed, match=r"not gated: 10\.0\.0\.9"):
        gate.hold("web", {WEB, "10.0.0.9"}, time.now + 1.0)
    assert not kernel.live(WEB)


def test_holding_with_fewer_addresses_silences_the_others(time: Time) -> None:
    gate, kernel = make(time)
    gate.hold("web", {WEB, DB}, time.now + 1.0)
    gate.hold("web", {WEB}, time.now + 1.0)
    assert kernel.live(WEB)
    assert not kernel.live(DB)


def test_a_dropped_group_is_silent_and_cannot_be_extended(time: Time) -> None:
    gate, kernel = make(time)
    gate.hold("web", {WEB}, time.now + 1.0)
    gate.drop(["web"])
    assert gate.extend({"web": time.now + 2.0}) == {}
    assert not kernel.live(WEB)


class NotedText:
    def __init__(self, said: list[object]) -> None:
        self.said = said

    def run(self, commands: str, *, flags: int = 0) -> str:
        self.said.append(commands)
        return ""


class NotedElements:
    def __init__(self, said: list[object]) -> None:
        self.said = said

    def run(self, operations: Sequence[Operation]) -> None:
        self.said.append(operations)


def test_a_gate_that_somebody_removed_is_closed_by_one_transaction_before_anything_else_is_done(time: Time) -> None:
    said: list[object] = []
    gate = Gate(NotedText(said), NotedElements(said), TABLE, time.read)
    gate.install({"eth0"}, {"eth1"}, {WEB, DB})
    closing = str(said[0])
    assert WEB in closing
    assert ruleset.element(DB) in closing
    said.clear()
    gate.repair({"eth0"}, {"eth1"}, time.read())
    assert said[0] == f"add table netdev {TABLE}\ndelete table netdev {TABLE}\n{closing}"
    assert gate.counts.reinstalled == 1
