"""The kernel-held lease with real packets: what a muted address does not do, and that it mutes by itself."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hasys.guard.elements import Elements
from hasys.guard.gate import Gate, LeaseOver
from hasys.guard.nft import Nft
from tests.lab.guard_rig import (
    CONT,
    ENTRIES,
    KILL,
    NODE4,
    STOP,
    TTL,
    VIP4,
    VIP6,
    Namespace,
    Rig,
    Talk,
    pinging,
    reaches,
    until,
)

pytestmark = [pytest.mark.lab, pytest.mark.slow]

QUIET = 0.3
"""Seconds in which an address that speaks would have answered 60 times."""
SLACK = 0.02
"""Seconds of tolerance for the clocks of this test itself."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as made:
        yield made


@pytest.fixture
def muted(rig: Rig) -> Talk:
    """A guard whose group is planned and whose addresses are on the interface, but not permitted."""
    return mute(rig, rig.start_guard())


def mute(rig: Rig, talk: Talk) -> Talk:
    assert talk.ask("plan", group="web", epoch=1, version=1, entries=ENTRIES)["state"] == "pending"
    rig.add_addresses()
    return talk


def permit(rig: Rig, talk: Talk) -> None:
    rig.leader.grant({"web": (1, 1)})
    talk.wait_event(event="permitted", group="web", epoch=1)


def test_a_muted_address_answers_no_arp_and_no_neighbour_solicitation(rig: Rig, muted: Talk) -> None:
    with pinging(rig.peer, VIP4, VIP6) as pingers:  # each ping asks for the MAC address first
        assert all(p.quiet_for(QUIET) for p in pingers)
        for address in (VIP4, VIP6):
            assert "lladdr" not in rig.peer.run(f"ip neigh show {address}")
        permit(rig, muted)
        for p in pingers:
            p.wait_answer()
    for address in (VIP4, VIP6):
        assert "lladdr" in rig.peer.run(f"ip neigh show {address}")


def test_a_muted_address_answers_no_ping_and_no_connection_of_those_who_know_its_mac(rig: Rig, muted: Talk) -> None:
    rig.static_neighbours()
    with rig.listen(8080), pinging(rig.peer, VIP4, VIP6) as pingers:
        assert all(p.quiet_for(QUIET) for p in pingers)
        assert not any(reaches(rig.peer, a, 8080) for a in (VIP4, VIP6))
        permit(rig, muted)
        assert all(reaches(rig.peer, a, 8080) for a in (VIP4, VIP6))
        for p in pingers:
            p.wait_answer()


def test_a_muted_address_answers_nobody_on_its_own_node(rig: Rig, muted: Talk) -> None:
    with rig.listen(8080):
        assert not any(reaches(rig.node, a, 8080) for a in (VIP4, VIP6))
        permit(rig, muted)
        assert all(reaches(rig.node, a, 8080) for a in (VIP4, VIP6))


def test_a_muted_address_does_not_answer_through_another_interface(rig: Rig, muted: Talk) -> None:
    rig.peer.run(f"ip link add eth1 type veth peer name eth1 netns {rig.node.pid}; ip link set eth1 up")
    rig.node.run("ip link set eth1 up; ip addr add 10.78.0.1/24 dev eth1")
    rig.peer.run(f"ip addr add 10.78.0.2/24 dev eth1; ip route replace {VIP4}/32 via 10.78.0.1")
    until(lambda: "in_ieth1" in rig.node.run("nft list ruleset"), "gate on the new interface")
    with rig.listen(8080):
        assert not reaches(rig.peer, VIP4, 8080)
        permit(rig, muted)
        assert reaches(rig.peer, VIP4, 8080)


def test_a_translated_service_of_a_muted_address_does_not_answer(rig: Rig, muted: Talk) -> None:
    rig.static_neighbours()
    rig.node.run(
        "nft add table ip t; nft 'add chain ip t p { type nat hook prerouting priority -100; }';"
        f"nft add rule ip t p ip daddr {VIP4} tcp dport 80 dnat to {NODE4}:8080; ip addr del {VIP4}/24 dev eth0"
    )
    with rig.listen(8080):
        assert not reaches(rig.peer, VIP4, 80)
        permit(rig, muted)
        assert reaches(rig.peer, VIP4, 80)


def test_an_announcement_from_a_packet_socket_does_not_leave_while_muted(rig: Rig, muted: Talk) -> None:
    mac = bytes.fromhex(rig.node.mac().replace(":", ""))
    vip = socket.inet_aton(VIP4)
    frame = b"\xff" * 6 + mac + b"\x08\x06" + b"\x00\x01\x08\x00\x06\x04\x00\x01" + mac + vip + b"\xff" * 6 + vip
    sender, receiver = rig.node.inside(_packet_socket), rig.peer.inside(_packet_socket)
    with sender, receiver:
        receiver.settimeout(QUIET)
        with suppress(OSError):  # the kernel says "no buffer space" for a frame that the gate dropped
            sender.send(frame)
        assert not _sees(receiver, vip)
        permit(rig, muted)
        sender.send(frame)
        assert _sees(receiver, vip)


def test_clients_of_a_standby_reach_the_address_where_it_is_served(rig: Rig) -> None:
    talk = rig.start_guard()
    gated = [{"interface": "eth0", "address": a} for a in (VIP4, VIP6)]
    assert talk.ask("gate", addresses=gated)["ok"]
    rig.peer.run(f"ip addr add {VIP4}/24 dev eth0; ip -6 addr add {VIP6}/64 dev eth0 nodad")
    with pinging(rig.node, VIP4, VIP6) as pingers:
        for p in pingers:
            p.wait_answer()


def test_a_standby_learns_the_new_mac_from_the_announcement_of_the_active(rig: Rig) -> None:
    talk = rig.start_guard()
    assert talk.ask("gate", addresses=[{"interface": "eth0", "address": VIP4}])["ok"]
    rig.node.run(f"ip neigh replace {VIP4} lladdr 02:00:00:00:00:99 dev eth0 nud stale")
    rig.peer.run(f"ip addr add {VIP4}/24 dev eth0; arping -q -c 1 -U -I eth0 {VIP4}")
    mac = rig.peer.mac()
    until(lambda: mac in rig.node.run(f"ip neigh show {VIP4}"), "new MAC address")


@pytest.mark.parametrize("number", [STOP, KILL])
def test_the_kernel_mutes_at_the_end_of_the_lease_without_the_guard(rig: Rig, number: int) -> None:
    talk = rig.start_guard()
    rig.serve(talk)
    with pinging(rig.peer, VIP4, VIP6) as pingers:
        for p in pingers:
            p.wait_answer()
        rig.signal(number)
        stopped = time.monotonic()
        time.sleep(TTL + QUIET)
        for p in pingers:
            assert TTL / 2 < p.last_answered() - stopped < TTL + SLACK
        rig.signal(CONT)
        assert all(p.quiet_for(QUIET) for p in pingers)


def test_an_interface_that_appears_later_is_gated_before_its_address_speaks(rig: Rig) -> None:
    talk = rig.start_guard()
    entry = {"kind": "address", "interface": "eth9", "address": "10.79.0.100", "resource": "late-ip"}
    assert talk.ask("plan", group="late", epoch=1, version=1, entries=[entry])["ok"]
    rig.peer.run(f"ip link add eth9 type veth peer name eth9 netns {rig.node.pid}; ip link set eth9 up")
    rig.node.run("ip link set eth9 up; ip addr add 10.79.0.100/24 dev eth9")
    rig.peer.run("ip addr add 10.79.0.2/24 dev eth9")
    with pinging(rig.peer, "10.79.0.100") as (pinger,):
        assert pinger.quiet_for(QUIET)
        rig.leader.grant({"late": (1, 1)})
        pinger.wait_answer()


def test_a_flushed_gate_is_closed_again_at_once(rig: Rig) -> None:
    """On the kernel's word, not at the guard's next look: this one never looks. That its first word to the kernel then
    closes the gate is shown in tests/unit/guard/test_gate_model.py."""
    muted = mute(rig, rig.start_guard(looks=False))
    rig.static_neighbours()
    with pinging(rig.peer, VIP4, VIP6) as pingers:
        assert all(p.quiet_for(QUIET) for p in pingers)
        rig.node.run("nft flush ruleset")
        until(lambda: muted.ask("status")["gate"]["reinstalled"] == 1, "gate")
        assert all(p.quiet_for(QUIET) for p in pingers)
    assert 0 < muted.ask("status")["gate"]["longest_open_ms"] < 20


def test_flushing_the_gate_of_an_active_address_fences_nothing(rig: Rig) -> None:
    talk = rig.start_guard()
    rig.serve(talk)
    with pinging(rig.peer, VIP4, VIP6) as pingers:
        for p in pingers:
            p.wait_answer()
        for n in range(3):
            rig.node.run("nft flush ruleset")
            until(lambda n=n: talk.ask("status")["gate"]["reinstalled"] > n, "gate")  # type: ignore[misc]
        for p in pingers:
            p.wait_answer()
        assert not talk.ask("status")["fences"]
        rig.signal(STOP)  # and it is the kernel's lease again
        time.sleep(TTL)
        assert all(p.quiet_for(QUIET) for p in pingers)


# ---- the gate itself, without the process around it, under a clock that can be told to stand still


class FrozenClock:
    """Real time, except that a read may be answered with what was read before a freeze."""

    def __init__(self) -> None:
        self.freeze_at: int | None = None
        self.seconds = 0.0
        self._reads = 0

    def __call__(self) -> float:
        now = time.monotonic()
        self._reads += 1
        if self.freeze_at == self._reads:
            time.sleep(self.seconds)  # stopped right after reading: the caller acts on the old time
        return now

    def freeze_after_read(self, number: int, seconds: float) -> None:
        self._reads, self.freeze_at, self.seconds = 0, number, seconds


@pytest.fixture
def bare() -> Iterator[tuple[Gate, FrozenClock, Nft]]:
    ns = Namespace()
    nft, elements, clock = ns.inside(Nft), ns.inside(lambda: Elements("hasys_demo_n1")), FrozenClock()
    gate = Gate(nft, elements, "hasys_demo_n1", clock)
    gate.install((), (), {VIP4, VIP6})
    yield gate, clock, nft
    nft.close()
    elements.close()
    ns.close()


def live(nft: Nft) -> str:
    return nft.run("list set netdev hasys_demo_n1 live4")


def test_a_refresh_computed_before_a_freeze_does_not_let_the_address_speak_again(
    bare: tuple[Gate, FrozenClock, Nft],
) -> None:
    gate, clock, nft = bare
    gate.hold("web", {VIP4, VIP6}, time.monotonic() + 0.1)
    assert VIP4 in live(nft)
    clock.freeze_after_read(2, 0.15)
    failed = gate.extend({"web": time.monotonic() + 1.0})
    assert isinstance(failed["web"], LeaseOver)
    assert VIP4 not in live(nft)


def test_a_first_unmute_computed_before_a_freeze_does_not_let_the_address_speak(
    bare: tuple[Gate, FrozenClock, Nft],
) -> None:
    gate, clock, nft = bare
    clock.freeze_after_read(1, 0.15)
    with pytest.raises(LeaseOver):
        gate.hold("web", {VIP4}, time.monotonic() + 0.1)
    assert VIP4 not in live(nft)


def test_a_refresh_that_comes_late_is_computed_anew_to_the_end_of_the_lease(
    bare: tuple[Gate, FrozenClock, Nft],
) -> None:
    gate, clock, nft = bare
    gate.hold("web", {VIP4}, time.monotonic() + 0.5)
    end = time.monotonic() + 0.6
    clock.freeze_after_read(2, 0.3)
    assert gate.extend({"web": end}) == {}
    assert gate.counts.overslept == 1
    looked = time.monotonic()
    while VIP4 in live(nft):
        assert looked < end + SLACK, "begun after the end of the lease, a look still found it"
        looked = time.monotonic()


def _packet_socket() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    sock.bind(("eth0", 0x0806))
    return sock


def _sees(receiver: socket.socket, vip: bytes) -> bool:
    deadline = time.monotonic() + QUIET
    while time.monotonic() < deadline:
        try:
            if receiver.recv(2048)[28:32] == vip:
                return True
        except TimeoutError:
            return False
    return False
