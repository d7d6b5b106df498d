"""The guard of two nodes without a third voter: what is durable before what, and what ends a token."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hasys.guard import tokens
from hasys.guard.loop import Loop
from hasys.guard.plan import Agent, Book, PlanFile
from hasys.guard.protocol import AddressEntry, CgroupEntry, Plan
from hasys.lease.keeping import KeeperState
from hasys.lease.tokens import ALONE_AFTER, TokenKeeper
from hasys.model.errors import Refused
from tests.unit.guard.fakes import TIMING, Bench

IP = AddressEntry("eth0", "10.77.0.100", "web-ip")
APP = CgroupEntry("/cg/groups/web/web-app", "web-app")
PLAN = Plan("web", 5, 7, (IP, APP))


class LaterDisk(tokens.Disk):
    """Written when the test says so."""

    def __init__(self) -> None:
        self.content: dict[str, int] = {}
        self.asked: list[tuple[Mapping[str, int], Callable[[OSError | None], None]]] = []

    def put(self, tokens: Mapping[str, int], done: Callable[[OSError | None], None]) -> None:
        self.asked.append((dict(tokens), done))

    def write(self, error: OSError | None = None) -> None:
        asked, self.asked = self.asked, []
        for content, done in asked:
            if error is None:
                self.content = dict(content)
            done(error)


class TokenBench(Bench):
    """A guard that holds by tokens."""

    def __init__(self, kept: Mapping[str, int], book: Book | None = None, policy: str = "safe") -> None:
        self.disk = LaterDisk()
        super().__init__(book or Book(agent=Agent(7, 99, "/cg/agent")), disk=self.disk, kept=kept, policy=policy)
        self.guard.start()
        self.guard.agent_here = True
        self.disk.write()

    def silence(self, seconds: float) -> None:
        """Time passes, the agent lives, no leader answers."""
        end = self.loop.time + seconds
        while self.loop.time < end:
            self.guard.agent_seen = self.loop.time
            self.loop.advance(min(0.02, end - self.loop.time))

    def said(self) -> dict[str, int]:
        bound = self.network.sent[-1].bound
        assert bound is not None
        return dict(bound)


@pytest.fixture
def serving() -> TokenBench:
    bench = TokenBench({})
    assert bench.guard.plan(PLAN) == "pending"
    bench.advance(0.2, web=(5, 7))
    bench.machine.there |= {IP.address, APP.path}
    return bench


def test_a_token_is_in_the_book_before_the_address_speaks_and_reaches_the_disk_later(serving: TokenBench) -> None:
    assert serving.gate.held == {"web": {IP.address}}
    assert serving.store.saved.tokens == {"web": 5}
    assert serving.disk.content == {}
    serving.disk.write()
    assert serving.disk.content == {"web": 5}


def test_without_any_leader_what_is_held_goes_on(serving: TokenBench) -> None:
    serving.silence(60.0)
    assert serving.gate.held == {"web": {IP.address}}
    assert serving.gate.until["web"] > serving.loop.time
    assert serving.said() == {"web": 5}


def test_what_a_leader_no_longer_names_is_fenced_and_its_token_is_said_to_be_gone_after_the_disk_forgot_it(
    serving: TokenBench,
) -> None:
    serving.disk.write()
    serving.advance(0.3)
    assert serving.gate.held == {}
    assert not serving.machine.there
    assert serving.store.saved.floors == {"web": 5}
    assert serving.said() == {"web": 5}, "the disk still knows it"
    serving.disk.write()
    serving.loop.advance(0.0)
    assert serving.disk.content == {}
    assert serving.store.saved.tokens == {}
    assert serving.said() == {}


def test_a_disk_that_refuses_keeps_the_token_and_is_named(serving: TokenBench) -> None:
    serving.disk.write()
    serving.advance(0.3)
    serving.disk.write(OSError(28, "No space left on device"))
    assert "No space left" in serving.guard.health().message
    assert serving.said() == {"web": 5}
    serving.silence(tokens.AGAIN + 0.1)
    serving.disk.write()
    serving.loop.advance(0.0)
    assert serving.said() == {}
    assert serving.guard.health().armed


def test_after_a_cold_start_what_has_a_token_begins_when_no_leader_was_heard_for_long() -> None:
    bench = TokenBench({"web": 5})
    assert bench.guard.plan(PLAN) == "pending"
    bench.silence(ALONE_AFTER * TIMING.ttl - 0.2)
    assert bench.gate.held == {}
    bench.silence(0.4)
    assert bench.gate.held == {"web": {IP.address}}


def test_what_has_no_token_never_begins_alone() -> None:
    bench = TokenBench({"db": 2})
    assert bench.guard.plan(PLAN) == "pending"
    bench.silence(60.0)
    assert bench.gate.held == {}


def test_a_node_that_slept_is_silent_first_and_goes_on_without_a_stop(serving: TokenBench) -> None:
    serving.loop.time += 5.0
    serving.silence(1.0)
    assert serving.guard.permitted("web", 5) == "pending"
    assert serving.machine.there == {IP.address, APP.path}, "the kernel has muted it; nothing was killed"
    serving.silence(ALONE_AFTER * TIMING.ttl)
    assert serving.guard.permitted("web", 5) == "permitted"


def test_a_keeper_of_tokens_starts_with_what_was_kept_in_either_place() -> None:
    keeper = TokenKeeper(
        "c", "n1", ("n1", "n2"), TIMING, "b", lambda: 1, KeeperState({}, {}), {}, tokens={"web": 5, "db": 1}
    )
    message, _ = keeper.keepalive(1.0)
    assert dict(message.bound or ()) == {"web": 5, "db": 1}


def test_the_book_keeps_tokens_across_a_restart(tmp_path: Path) -> None:
    file = PlanFile(tmp_path)
    file.save(Book(tokens={"web": 5}))
    assert file.load().tokens == {"web": 5}


def test_the_file_is_replaced_as_a_whole_and_one_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data" / "tokens"
    assert tokens.load(path) == {}
    tokens.save(path, {"web": 5})
    tokens.save(path, {"web": 6, "db": 1})
    assert tokens.load(path) == {"web": 6, "db": 1}
    assert [p.name for p in path.parent.iterdir()] == ["tokens"]
    for damaged in (b'{"web": 6', b"[]", b"[" * 9999, b'{"web": -1}', b'{"web": 1e400}', b'{"web": %d}' % 2**64):
        path.write_bytes(damaged)
        with pytest.raises(Refused, match="remove it when the peer is up"):
            tokens.load(path)


@pytest.fixture
def loop() -> Loop:
    return Loop(time.monotonic)


def test_a_folder_that_others_may_write_to_is_told_and_tried_again(tmp_path: Path, loop: Loop) -> None:
    folder, done = tmp_path / "data", list[OSError | None]()
    folder.mkdir()
    folder.chmod(0o777)
    disk = tokens.Disk(folder / "tokens", loop)
    disk.put({"web": 1}, done.append)
    while not done:
        loop.once()
    assert done[0] is not None
    assert "can be written by others" in str(done[0].strerror)
    folder.chmod(0o700)
    disk.put({"web": 1}, done.append)
    while len(done) < 2:
        loop.once()
    assert done[1] is None
    assert tokens.load(folder / "tokens") == {"web": 1}


def test_a_disk_that_hangs_does_not_hold_the_guard_up(tmp_path: Path, loop: Loop) -> None:
    hangs, done = threading.Event(), list[OSError | None]()
    written = list[Mapping[str, int]]()

    def slow(path: Path, content: Mapping[str, int]) -> None:
        hangs.wait(10)
        written.append(content)
        if content == {"web": 2}:
            raise OSError(5, "Input/output error")

    disk = tokens.Disk(tmp_path / "tokens", loop, slow)
    disk.put({"web": 1}, done.append)
    disk.put({"web": 2}, done.append)
    assert written == []
    hangs.set()
    while len(done) < 2:
        loop.once()
    assert written == [{"web": 1}, {"web": 2}]
    assert done[0] is None
    assert isinstance(done[1], OSError)
