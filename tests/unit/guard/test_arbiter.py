"""The disk that decides between two nodes: what lies on it, what is refused, and what the guard does with it."""

from __future__ import annotations

import os
import random
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.guard.arbiter import AREA, AREAS, SIZE, Disk, File, Seat, Torn, decode, encode
from hasys.guard.loop import Loop
from hasys.guard.plan import Agent, Book
from hasys.guard.protocol import AddressEntry, Plan, StoodBy
from hasys.lease.arbiter import LIFE, ArbiterKeeper
from hasys.lease.ballots import Ballots, Block, Claim, Look
from hasys.model.errors import Refused
from hasys.model.timing import over
from tests.unit.guard.fakes import TIMING, Bench
from tests.unit.guard.test_tokens import LaterDisk

SEAT = Seat(Path("/nowhere"), "id-1", "n1", "n2")
BLOCK = Block("n1", 3, 7, 5.0, {"web": Claim(7, owned=True), "db": Claim(6)})
IP = AddressEntry("eth0", "10.77.0.100", "web-ip")
LASTS = LIFE * TIMING.ttl


# ---------------------------------------------------------------------- the disk


@pytest.fixture
def seat(tmp_path: Path) -> Seat:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    return replace(SEAT, path=path)


def test_what_one_node_wrote_the_other_reads_and_each_has_its_own_place(seat: Seat) -> None:
    mine, theirs = File(seat), File(replace(seat, node="n2", other="n1"))
    assert mine.read("n1") is None
    mine.write(BLOCK)
    assert theirs.read("n1") == BLOCK
    assert theirs.read("n2") is None
    theirs.write(replace(BLOCK, node="n2", seq=1))
    assert mine.read("n1") == BLOCK
    mine.write(replace(BLOCK, seq=4, claims={}))
    assert theirs.read("n1") == replace(BLOCK, seq=4, claims={})


def test_a_write_that_the_power_cut_leaves_the_one_before(seat: Seat) -> None:
    file = File(seat)
    file.write(BLOCK)
    file.write(replace(BLOCK, seq=4))
    with seat.path.open("r+b") as raw:
        raw.seek(seat.areas("n1")[0] + 40)
        raw.write(b"\0" * 16)
        os.fsync(raw.fileno())
    assert file.read("n1") == BLOCK


def test_what_is_not_ours_is_refused_with_the_way_to_begin_anew(seat: Seat) -> None:
    File(seat).write(BLOCK)
    with pytest.raises(Refused, match=r"of another cluster.*dd if=/dev/zero"):
        File(replace(seat, cluster="id-2")).read("n1")
    seat.path.write_bytes(b"ext4" * (SIZE // 4))
    with pytest.raises(Refused, match="holds something else"):
        File(seat).read("n1")
    seat.path.write_bytes(bytes(AREA))
    with pytest.raises(Refused, match=f"smaller than {AREA * AREAS} bytes"):
        File(seat).read("n2")
    with pytest.raises(Refused, match="No such file"):
        File(replace(seat, path=seat.path.with_name("gone")))


def area_of(content: str) -> bytes:
    """With the right checksum."""
    data = content.encode()
    return (struct.pack(">8sII", b"hasysarb", len(data), zlib.crc32(data)) + data).ljust(AREA, b"\0")


@pytest.mark.parametrize(
    "content",
    [
        "[" * 30_000,
        '["id-1", "n1", 1e400, 1, 1.5, {}]',
        '["id-1", "n1", 1, -1, 1.5, {}]',
        f'["id-1", "n1", 1, {"9" * 4000}, 1.5, {{}}]',
        '["id-1", "n1", 1, 1, NaN, {}]',
        '["id-1", "n1", 1, 1, 1e400, {}]',
        f'["id-1", "n1", 1, 1, {"9" * 400}, {{}}]',
        '["id-1", "n1", 1, 1, -1.5, {}]',
        '["id-1", "n1", 1, 1, 1.5, {"web": [1e400, true]}]',
        '["id-1", "n1", 1, 1, 1.5, {"web": [[], true]}]',
        '["id-1", "n1", 1, 1, 1.5, {"\\ud800": [1, true]}]',
        '["id-1", "n3", 1, 1, 1.5, {}]',
        '["id-1", "n2", 1, 1, 1.5, {}]',
    ],
)
def test_what_no_guard_of_the_cluster_writes_there_is_refused_though_its_checksum_is_right(
    seat: Seat, content: str
) -> None:
    file = File(seat)
    with seat.path.open("r+b") as raw:
        raw.write(area_of(content))
        os.fsync(raw.fileno())
    with pytest.raises(Refused, match="not understood"):
        file.read("n1")


def test_more_groups_than_fit_are_refused_and_nothing_is_written(seat: Seat) -> None:
    file = File(seat)
    file.write(BLOCK)
    many = {f"group-with-a-long-name-{i:039d}": Claim(i) for i in range(500)}
    with pytest.raises(Refused, match="500 groups do not fit"):
        file.write(replace(BLOCK, seq=4, claims=many))
    assert file.read("n1") == BLOCK


def test_the_thread_writes_then_reads_and_says_what_failed_with_the_path(seat: Seat) -> None:
    loop = Loop(time.monotonic)
    disk, answers = Disk(seat, loop, time.monotonic), list[Look | Refused]()
    disk.put(None, answers.append)
    loop.once()
    disk.put(BLOCK, answers.append)
    loop.once()
    first, second = answers
    assert isinstance(first, Look)
    assert isinstance(second, Look)
    assert (first.written, first.own, second.written, second.own, second.other) == (None, None, BLOCK, BLOCK, None)
    seat.path.unlink()
    broken = Disk(seat, loop, time.monotonic)
    broken.put(None, answers.append)
    loop.once()
    assert isinstance(answers[-1], Refused)
    assert str(answers[-1]) == f"{seat.path}: No such file or directory"


# ---------------------------------------------------------------------- claims


def other(seq: int, **claims: Claim) -> Block:
    return Block("n2", seq, max((c.ballot for c in claims.values()), default=0), 5.0, claims)


def played(ballots: Ballots, now: float, rival: Block | None) -> list[str]:
    written = ballots.write()
    return ballots.looked(Look(written, now, written, rival), now)


@pytest.fixture
def ballots() -> Ballots:
    made = Ballots("n1", 5.0)
    made.looked(Look(None, 0.0, None, other(1, web=Claim(4, owned=True))), 0.0)
    return made


def test_a_claim_beside_another_waits_for_its_life_on_any_clock_and_for_what_outlives_it(ballots: Ballots) -> None:
    ballots.claim("web", 2.0)
    assert ballots.claims["web"].ballot == 5
    still = other(1, web=Claim(4, owned=True))
    played(ballots, 10.0, still)
    played(ballots, 10.0 + over(7.0) - 0.01, still)
    assert not ballots.owned("web")
    played(ballots, 10.0 + over(7.0), still)
    assert ballots.owned("web")
    assert ballots.until("web") == 10.0 + over(7.0) + 5.0


def test_who_is_named_has_it_at_once_when_the_other_claims_nothing(ballots: Ballots) -> None:
    ballots.claim("web")
    played(ballots, 1.0, other(1, web=Claim(4, owned=True)))
    assert not ballots.owned("web")
    played(ballots, 2.0, other(2))
    assert ballots.owned("web")


@pytest.mark.parametrize(("ballot", "lost"), [(4, False), (5, True), (6, True)])
def test_of_two_claims_the_higher_counts_and_of_equal_ones_the_later_name(
    ballots: Ballots, ballot: int, lost: bool
) -> None:
    ballots.claim("web")
    assert played(ballots, 1.0, other(2, web=Claim(ballot))) == (["web"] if lost else [])
    assert ("web" in ballots.claims) is not lost


def test_a_disk_that_is_not_what_this_node_wrote_ends_every_claim(ballots: Ballots) -> None:
    ballots.claim("db")
    played(ballots, 1.0, other(1))
    assert ballots.owned("db")
    written = ballots.write()
    assert ballots.looked(Look(written, 2.0, None, other(1)), 2.0) == []
    assert not ballots.claims
    assert ballots.until("db") < 0
    assert ballots.write() is None, "it is read anew first"


def test_an_earlier_guards_claims_are_owned_if_they_were_and_begin_anew_if_they_waited() -> None:
    ballots = Ballots("n1", 5.0)
    ballots.looked(Look(None, 0.0, BLOCK, other(9, db=Claim(11))), 0.0)
    assert dict(ballots.claims) == {"web": Claim(7, owned=True)}
    ballots.claim("db")
    assert ballots.claims["db"].ballot == 12


# ---------------------------------------------------------------------- the guard


class Shared:
    """A disk that answers when the test says so."""

    def __init__(self) -> None:
        self.blocks: dict[str, Block] = {}
        self.asked: list[tuple[Block | None, Callable[[Look | Refused], None]]] = []
        self.broken = self.wiped = False

    def put(self, block: Block | None, done: Callable[[Look | Refused], None]) -> None:
        self.asked.append((block, done))

    def answer(self, now: float) -> None:
        asked, self.asked = self.asked, []
        for block, done in asked:
            if self.broken:
                done(Refused("/dev/sdx: Input/output error"))
                continue
            if block is not None:
                self.blocks[block.node] = block
            if self.wiped:
                self.blocks.clear()
                self.wiped = False
            done(Look(block, now, self.blocks.get("n1"), self.blocks.get("n2")))


class ArbiterBench(Bench):
    """A guard whose disk works."""

    def __init__(self, tokens: Mapping[str, int] | None = None) -> None:
        self.shared = Shared()
        super().__init__(Book(agent=Agent(7, 99, "/cg/agent")), disk=LaterDisk(), kept=tokens, arbiter=self.shared)
        self.guard.start()
        self.guard.agent_here = True
        self.guard.networks = ()

    def live(self, seconds: float, *, leader: bool, peer: bool, **groups: tuple[int, int]) -> None:
        """Time passes; ``peer``: the other node's block moves."""
        end = self.loop.time + seconds
        while self.loop.time < end:
            self.guard.agent_seen = self.loop.time
            self.loop.advance(0.02)
            if peer:
                before = self.shared.blocks.get("n2", other(0))
                self.shared.blocks["n2"] = replace(before, seq=before.seq + 1)
            self.shared.answer(self.loop.time)
            if leader:
                self.grant(**groups)


@pytest.fixture
def active() -> ArbiterBench:
    bench = ArbiterBench()
    assert bench.guard.plan(Plan("web", 5, 7, (IP,))) == "pending"
    bench.live(2.0, leader=True, peer=True, web=(5, 7))
    return bench


@pytest.fixture
def standby() -> ArbiterBench:
    """Its peer has ``web`` and its lock."""
    bench = ArbiterBench()
    bench.shared.blocks["n2"] = other(1, web=Claim(3, owned=True))
    bench.guard.alone.standbys = {"web": StoodBy(9)}
    bench.live(2.0, leader=True, peer=True)
    return bench


def test_who_has_the_lock_goes_on_without_a_leader_and_says_what_it_claims(active: ArbiterBench) -> None:
    active.live(3 * LASTS, leader=False, peer=False)
    assert active.guard.permitted("web", 5) == "permitted"
    assert active.gate.until["web"] > active.loop.time
    assert dict(active.network.sent[-1].bound or ()) == {"web": 5}
    assert active.network.sent[-1].policy == "arbiter"


def test_without_leader_and_disk_it_stops_and_says_why(active: ArbiterBench) -> None:
    active.shared.broken = True
    active.live(LASTS + 1.0, leader=False, peer=False)
    assert active.gate.held == {}
    assert active.guard.health().message == "arbiter: /dev/sdx: Input/output error"


def test_a_lost_disk_moves_nothing_while_a_leader_is_there(active: ArbiterBench) -> None:
    active.shared.broken = True
    active.live(3 * LASTS, leader=True, peer=True, web=(5, 7))
    assert active.guard.permitted("web", 5) == "permitted"


def test_a_disk_that_is_wiped_moves_nothing_while_a_leader_is_there_and_is_written_anew(active: ArbiterBench) -> None:
    active.shared.wiped = True
    active.live(1.0, leader=True, peer=False, web=(5, 7))
    assert not active.shared.wiped
    active.live(2.0, leader=True, peer=True, web=(5, 7))
    assert active.guard.permitted("web", 5) == "permitted"
    assert active.events("revoked") == []
    assert active.shared.blocks["n1"].claims["web"].owned


def test_who_sees_that_its_lock_is_lost_stops_at_once(active: ArbiterBench) -> None:
    active.live(0.5, leader=False, peer=False)
    active.shared.blocks["n2"] = other(99, web=Claim(50))
    active.live(LASTS / 4, leader=False, peer=False)
    assert active.gate.held == {}
    assert not active.guard.book.met


def test_what_a_leader_granted_before_a_lock_was_lost_says_nothing_of_what_the_other_did_since(
    active: ArbiterBench,
) -> None:
    keeper, now, mine = active.keeper, active.loop.time, active.shared.blocks["n1"]
    assert isinstance(keeper, ArbiterKeeper)
    assert keeper.met
    for seq in (99, 100):
        now += 0.05
        keeper.looked(Look(mine, now, mine, other(seq, web=Claim(50))), now)
        assert keeper.lease(now)[0], "it still runs"
        assert not keeper.met


def test_a_lost_peer_is_taken_over_when_its_block_stood_still_and_the_claim_has_waited(standby: ArbiterBench) -> None:
    assert standby.guard.book.met
    standby.live(LASTS + 1.5, leader=False, peer=False)
    assert "web" in standby.shared.blocks["n1"].claims
    assert dict(standby.network.sent[-1].bound or ()) == {"web": 0}
    standby.live(over(LASTS + TIMING.ttl) - 1.5, leader=False, peer=False)
    assert not standby.guard.book.oaths
    standby.live(3.0, leader=False, peer=False)
    oath = standby.guard.book.oaths["web"]
    assert oath.by_policy
    standby.guard.plan(Plan("web", oath.epoch, 1, (IP,)))
    standby.live(0.2, leader=False, peer=False)
    assert standby.guard.permitted("web", oath.epoch) == "permitted"
    standby.shared.broken = True
    standby.live(LASTS + 1.0, leader=False, peer=False)
    assert standby.gate.held == {}, "an oath by the lock lives no longer than the lock"


def test_a_peer_whose_block_moves_goes_on_and_this_node_stays_out_for_it_knows_less_now(standby: ArbiterBench) -> None:
    standby.live(3 * LASTS, leader=False, peer=True)
    assert not standby.guard.book.met
    standby.live(6 * LASTS, leader=False, peer=False)
    assert not standby.guard.book.oaths
    assert standby.shared.blocks["n1"].claims == {}


def test_a_disk_on_which_the_peer_was_never_seen_lets_nobody_take_over() -> None:
    """Two nodes with two disks: each would be alone on its own."""
    bench = ArbiterBench()
    bench.guard.alone.standbys = {"web": StoodBy(9)}
    bench.live(2.0, leader=True, peer=False)
    bench.live(6 * LASTS, leader=False, peer=False)
    assert not bench.guard.book.oaths


def test_what_is_unmounted_after_the_lock_is_waited_for(standby: ArbiterBench) -> None:
    standby.guard.alone.standbys = {"web": StoodBy(9, outlives=30.0)}
    standby.live(LASTS + over(LASTS + TIMING.ttl) + 10.0, leader=False, peer=False)
    assert not standby.guard.book.oaths
    standby.live(30.0, leader=False, peer=False)
    assert "web" in standby.guard.book.oaths


def test_after_a_cold_start_what_the_other_claimed_later_is_not_begun() -> None:
    bench = ArbiterBench({"web": 5})
    bench.shared.blocks = {"n1": replace(BLOCK, claims={}), "n2": other(4, web=Claim(9, owned=True))}
    assert bench.guard.plan(Plan("web", 5, 7, (IP,))) == "pending"
    bench.live(6 * LASTS, leader=False, peer=False)
    assert bench.gate.held == {}


def test_after_a_cold_start_what_this_node_had_last_begins() -> None:
    bench = ArbiterBench({"web": 5})
    bench.shared.blocks = {"n1": BLOCK, "n2": other(4)}
    assert bench.guard.plan(Plan("web", 5, 7, (IP,))) == "pending"
    bench.live(LASTS + 1.0, leader=False, peer=False)
    assert isinstance(bench.keeper, ArbiterKeeper)
    assert bench.gate.held == {"web": {IP.address}}


def test_the_guards_status_tells_locks_and_whether_it_met_its_peer(standby: ArbiterBench) -> None:
    arbiter = standby.guard.arbiter
    assert arbiter is not None
    assert arbiter.to_json() == {"trouble": "", "met": True, "locks": {}, "others": ["web"]}
    standby.live(LASTS + 1.5, leader=False, peer=False)
    assert arbiter.to_json()["locks"] == {"web": "claimed"}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_lies_there_is_a_block_or_refused_or_torn(seed: int) -> None:
    """Also with a right checksum: a disk may be written by anybody who has it."""
    rng = random.Random(seed)
    whole = encode(SEAT.cluster, BLOCK)
    for _ in range(50):
        content = bytearray(whole[16:])
        for _ in range(rng.randint(1, 6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        area = struct.pack(">8sII", b"hasysarb", len(content), zlib.crc32(content)) + content
        area = area if rng.random() < 0.8 else area[: rng.randrange(16, len(area))]
        with suppress(Torn, Refused):
            found = decode(SEAT, bytes(area.ljust(AREA, b"\0")))
            assert isinstance(found, Block)
