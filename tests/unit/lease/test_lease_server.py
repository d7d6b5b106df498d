"""The store's datagram service, on real sockets of the loopback."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.config import Member, NodeConfig
from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.lease.keeping import Keeper
from hasys.lease.wire import Grant, Hint, KeepAlive, decode, derive_key, encode
from hasys.model.timing import PROFILES
from hasys.store.leases import LeaseServer
from hasys.store.port import Applied, Authority, EngineStatus

pytestmark = pytest.mark.anyio
SECRET = bytes(range(32))
TIMING = PROFILES["default"]
NETWORKS = ("127.0.0.1", "127.0.0.2")


class Engine:
    """Leads; its rounds are always fresh. ``silent_since`` None: others may have granted until this very moment."""

    def __init__(self) -> None:
        self.leading = True
        self.silent_since: float | None = -1000.0
        self.changed: list[Callable[[], None]] = []
        self.applied: list[Callable[[int], None]] = []

    async def run(self) -> None:
        raise NotImplementedError

    async def propose(self, command: bytes, *, timeout: float) -> Applied:
        raise NotImplementedError

    def members(self) -> None:
        return None

    def on_members(self, callback: Callable[[], None]) -> None:
        pass

    async def hand_over(self) -> None:
        raise NotImplementedError

    async def confirm(self, *, timeout: float) -> None:
        raise NotImplementedError

    def authority(self) -> Authority | None:
        now = asyncio.get_running_loop().time()
        since = now if self.silent_since is None else self.silent_since
        return Authority(3, 9, now, since) if self.leading else None

    def status(self) -> EngineStatus:
        return EngineStatus("Follower", "n2", 3, 9, 9, ("n1",), (), True)

    def on_change(self, callback: Callable[[], None]) -> None:
        self.changed.append(callback)

    def on_applied(self, callback: Callable[[int], None]) -> None:
        self.applied.append(callback)


class Guard:
    """A keeper with one real socket per network."""

    def __init__(self, node: str, addresses: tuple[str, ...], port: int) -> None:
        nonces = itertools.count(1)
        self.keeper = Keeper("c1", node, ("n1",), TIMING, f"boot-{node}", lambda: next(nonces))
        self.node, self.key, self.port = node, derive_key(SECRET, node), port
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in addresses]
        for sock, address in zip(self.sockets, addresses, strict=True):
            sock.bind((address, 0))
            sock.setblocking(False)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def say(self) -> KeepAlive:
        message, _ = self.keeper.keepalive(self.now())
        datagram = encode(message, self.key)
        for sock, network in zip(self.sockets, NETWORKS, strict=False):
            sock.sendto(datagram, (network, self.port))
        return message

    async def answer(self, network: int = 0) -> Grant | Hint:
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sockets[network], 65_536), 5)
        message = decode(data, "c1", lambda node: self.key if node == self.node else None)
        assert isinstance(message, (Grant, Hint))
        if isinstance(message, Grant):
            self.keeper.received(message, self.now())
        return message

    async def ask(self) -> Grant:
        """A keep-alive and its answer."""
        message = self.say()
        while True:
            grant = await self.answer()
            if isinstance(grant, Grant) and grant.seq == message.seq:
                return grant

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


class Setting:
    """A lease server of n1, with the guards of n1 and n2."""

    def __init__(self, folder: Path) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (folder / "lease.secret").write_text(SECRET.hex())
        members = (
            Member("n1", "Voter", NETWORKS, lease_port=port),
            Member("n2", "Voter", ("127.0.0.3", "127.0.0.4")),
            Member("w", "Witness", ("127.0.0.5",)),
        )
        x = folder / "x"
        config = NodeConfig(
            x, "demo", "c1", "n1", members, "default", x, x, x, folder / "lease.secret", x, folder, folder
        )  # fmt: skip
        self.engine = Engine()
        self.assignments = Assignments({"web": GroupAssignment("n1", 1, 7)})
        self.server = LeaseServer(config, self.engine, lambda: self.assignments, TIMING)
        self.news = asyncio.Event()
        self.server.on_change(self.news.set)
        self.port = port
        self.n1 = Guard("n1", NETWORKS, port)
        self.n2 = Guard("n2", ("127.0.0.3", "127.0.0.4"), port)

    def assign(self, web: GroupAssignment) -> None:
        self.assignments = Assignments({"web": web})
        for callback in self.engine.applied:
            callback(10)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Setting]:
    setting = Setting(folder)
    task = asyncio.create_task(setting.server.run())
    await asyncio.sleep(0)
    try:
        yield setting
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        setting.n1.close()
        setting.n2.close()


async def test_a_probe_then_a_grant_answer_a_new_guard_on_every_network(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        assert (await s.n1.ask()).probe
        message = s.n1.say()
        grants = [await s.n1.answer(0), await s.n1.answer(1)]
        while grants[-1].seq != message.seq:  # the copy of the probe that the second network still had
            grants[-1] = await s.n1.answer(1)
        assert [g.groups for g in grants if isinstance(g, Grant)] == [(("web", 1, 7),)] * 2
        assert s.server.refused == {}


async def test_a_planned_move_ends_with_a_push_to_the_new_node(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        for guard in (s.n1, s.n1, s.n2, s.n2):
            await guard.ask()
        s.assign(GroupAssignment("n2", 2, 7, "n1", 1))
        assert (await s.n1.ask()).groups == (("web", 1, 7),)
        s.n1.keeper.released("web", 1, s.n1.now())
        s.n1.say()
        while True:
            push = await s.n2.answer()
            if isinstance(push, Grant) and push.groups:
                break
        assert push.groups == (("web", 2, 7),)


async def test_a_revoked_holder_is_told_without_being_asked(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        await s.n1.ask()
        assert (await s.n1.ask()).groups
        s.assign(GroupAssignment("n2", 2, 7, "n1", 1, revoked=True))
        push = await s.n1.answer()
        assert isinstance(push, Grant)
        assert (push.groups, push.withheld) == ((), ())


async def test_a_withheld_group_is_pushed_when_its_time_has_come(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        s.engine.silent_since = None
        await s.n1.ask()
        assert (await s.n1.ask()).withheld == (("web", 1),)
        s.engine.silent_since = s.n1.now() - 1.0
        for callback in s.engine.changed:
            callback()
        push = await s.n1.answer()
        assert isinstance(push, Grant)
        assert push.groups == (("web", 1, 7),)


async def test_a_store_that_does_not_lead_hints_at_the_leader(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        s.engine.leading = False
        s.n1.say()
        hint = await s.n1.answer()
        assert isinstance(hint, Hint)
        assert hint.leader == "n2"


async def test_garbage_replays_and_foreign_keys_are_counted_and_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        message, _ = s.n2.keeper.keepalive(s.n2.now())
        stranger = replace(message, node="n9")
        foreign = replace(message, cluster="c2")
        older = replace(message, seq=0)
        grant = Grant("c1", "n1", 1, "n2", 1, 1, 1, 0.0, 1.0)
        datagrams = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"",
            bytes(60_001),
            encode(foreign, s.n2.key),
            encode(stranger, derive_key(SECRET, "n9")),
            encode(message, derive_key(SECRET, "n1")),
            encode(grant, s.n2.key),
            encode(message, s.n2.key),
            encode(older, s.n2.key),
        ]
        for datagram in datagrams:
            s.n2.sockets[0].sendto(datagram, ("127.0.0.1", s.port))
        assert isinstance(await s.n2.answer(), Grant)
        assert (await s.n1.ask()).probe
        assert s.server.refused == {
            "not-ours": 2,
            "too-long": 1,
            "foreign-cluster": 1,
            "unknown-node": 1,
            "wrong-key": 1,
            "not-a-keepalive": 1,
            "replayed": 1,
        }


async def test_a_copy_from_an_address_that_is_no_members_is_not_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        message = s.n1.say()
        await s.n1.answer()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.bind(("127.0.0.9", 0))
            thief.setblocking(False)
            thief.sendto(encode(message, s.n1.key), ("127.0.0.1", s.port))
            await s.n1.ask()
            assert s.server.refused["replayed"] == 1
            with pytest.raises(BlockingIOError):
                thief.recv(100)


async def test_silence_beyond_suspicion_is_news_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        await s.n2.ask()
        await s.n2.ask()
        await s.n1.ask()
        await s.n1.ask()
        s.news.clear()
        began = s.n1.now()
        await asyncio.wait_for(s.news.wait(), 5)
        facts = s.server.facts(s.n1.now())
        assert max(f.silent_for for f in facts.values()) >= TIMING.suspicion
        assert s.n1.now() - began < TIMING.suspicion + 0.5


async def test_losing_and_gaining_authority_is_news(tmp_path: Path) -> None:
    async with serving(tmp_path) as s:
        for leading in (False, True):
            s.news.clear()
            s.engine.leading = leading
            for callback in s.engine.changed:
                callback()
            assert s.news.is_set()
        assert s.server.may_hold("web", s.n1.now()) == frozenset()
