"""Three engines over real TLS on loopback: what the simulation cannot show, and what must not get in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hasys.config import Member, NodeConfig
from hasys.model.errors import ConfigRefused, Refused, Unavailable
from hasys.model.timing import PROFILES
from hasys.store.port import Engine
from hasys.store.raft import engine as engine_module
from hasys.store.raft.core import Core
from hasys.store.raft.engine import DiskFailed, RaftEngine
from hasys.store.raft.links import MAX_FRAME, FrameReader, frame
from hasys.store.raft.transport import CannotListen
from hasys.v1 import raft_pb2 as pb
from tests.certs import Authority, issue, make_ca

NAMES = ("n1", "n2", "n3")
pytestmark = pytest.mark.anyio


class Lines:
    """A state machine that keeps every command."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def apply(self, index: int, command: bytes) -> bytes:
        self.lines.append(command)
        return b"%d" % len(self.lines)

    def snapshot_parts(self) -> Iterator[bytes]:
        return iter((b"\n".join(self.lines),))

    def restore(self, index: int, data: bytes) -> None:
        self.lines = data.split(b"\n") if data else []


@dataclass
class Running:
    """One member and its task."""

    engine: RaftEngine
    machine: Lines
    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


class Cluster:
    """Three members in one loop. Two networks: both addresses are loopback's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = make_ca("engine-test")
        ports = _free_ports(len(NAMES))
        self.members = tuple(
            Member(n, "Voter", ("127.0.0.1", "127.0.0.2"), raft_port=p) for n, p in zip(NAMES, ports, strict=True)
        )
        self.running: dict[str, Running] = {}

    def config(self, name: str, ca: Authority | None = None) -> NodeConfig:
        files = issue(ca or self.ca, self.folder / name, name)
        base = self.folder / name
        return NodeConfig(
            path=base / "node.yaml", cluster="test", cluster_id="engine-test", name=name, members=self.members,
            profile="default", ca=files.ca, certificate=files.certificate, key=files.key, lease_secret=base / "x",
            node_secret=base / "x", data_dir=base / "data", run_dir=base / "run",
        )  # fmt: skip

    def start(self, name: str, config: NodeConfig | None = None) -> Running:
        config = config or self.config(name)
        machine = Lines()
        engine = RaftEngine(config, PROFILES["default"], machine, data_dir=config.data_dir)
        port: Engine = engine  # the type checker proves that the engine fits its port
        assert port.authority() is None
        self.running[name] = Running(engine, machine, asyncio.create_task(engine.run()))
        return self.running[name]

    def leader(self) -> str | None:
        return next((n for n, r in self.running.items() if r.engine.authority() is not None), None)

    async def until(self, condition: Callable[[], bool], limit: float = 10.0) -> None:
        """Wait for the engines' own notices, not for time."""
        async with asyncio.timeout(limit):
            while not condition():
                notice = asyncio.get_running_loop().create_future()

                def notify(*_: object, notice: asyncio.Future[None] = notice) -> None:
                    if not notice.done():
                        notice.set_result(None)

                for running in self.running.values():
                    running.engine.on_change(notify)
                    running.engine.on_applied(notify)
                await notice

    async def stop(self) -> None:
        await asyncio.gather(*(r.stop() for r in self.running.values()))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    for name in NAMES:
        cluster.start(name)
    await cluster.until(lambda: cluster.leader() is not None)
    yield cluster
    await cluster.stop()


async def test_many_callers_share_disk_jobs_and_none_waits_for_ever(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "GATHER", 0.05)
    engine = cluster.running[cluster.leader() or ""].engine
    batches: list[int] = []
    hand_in = engine._hand_in

    def counted(core: Core, now: float) -> None:
        before = len(engine._waiting)
        hand_in(core, now)
        if taken := before - len(engine._waiting):
            batches.append(taken)

    monkeypatch.setattr(engine, "_hand_in", counted)

    async def late(i: int) -> None:
        for _ in range(i):  # each begins one turn of the loop after the one before, as calls of clients do
            await asyncio.sleep(0)
        await engine.propose(b"%d" % i, timeout=5)

    await asyncio.gather(*(late(i) for i in range(64)))
    assert sum(batches) == 64
    assert len(batches) < 32, "while some are open, what comes meanwhile goes together"


async def test_a_batch_is_gathered_for_longer_when_there_are_many_callers_and_not_at_all_for_few(
    cluster: Cluster,
) -> None:
    engine = cluster.running[cluster.leader() or ""].engine

    def waits(callers: int) -> float:
        """Milliseconds after the last batch until the next one is due."""
        engine._batch, engine._batch_at = callers, 1000.0
        return next(ms for ms in range(100) if engine._batch_due(1000.0 + ms / 1000 + 1e-6))

    assert [waits(callers) for callers in (1, 3, 4, 19, 20, 500)] == [0, 0, 6, 6, 10, 10]


async def test_every_member_takes_proposals_and_all_apply_them_in_one_order(cluster: Cluster) -> None:
    writes = [
        cluster.running[name].engine.propose(b"%s-%d" % (name.encode(), i), timeout=5)
        for name in NAMES
        for i in range(50)
    ]
    applied = await asyncio.gather(*writes)
    last = max(a.index for a in applied)
    await cluster.until(lambda: all(r.engine.status().applied >= last for r in cluster.running.values()))
    logs = [r.machine.lines for r in cluster.running.values()]
    assert len(logs[0]) == 150
    assert logs[0] == logs[1] == logs[2]
    assert sorted(int(a.answer) for a in applied) == list(range(1, 151))


async def test_when_the_leader_stops_another_one_leads_and_has_every_write(cluster: Cluster) -> None:
    old = cluster.leader()
    assert old is not None
    for i in range(20):
        await cluster.running[old].engine.propose(b"%d" % i, timeout=5)
    stopped = cluster.running.pop(old)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await stopped.stop()
    await cluster.until(lambda: cluster.leader() is not None)
    assert loop.time() - begun < PROFILES["default"].ttl
    new = cluster.leader()
    assert new is not None
    await cluster.running[new].engine.propose(b"after", timeout=5)
    assert cluster.running[new].machine.lines == [b"%d" % i for i in range(20)] + [b"after"]


async def test_a_cluster_that_stopped_as_a_whole_comes_back_with_every_write(cluster: Cluster) -> None:
    await asyncio.gather(*(cluster.running["n1"].engine.propose(b"%d" % i, timeout=5) for i in range(100)))
    await cluster.stop()
    for name in NAMES:
        cluster.start(name)
    again = await cluster.running["n2"].engine.propose(b"last", timeout=10)
    assert again.answer == b"101"
    assert sorted(cluster.running["n2"].machine.lines[:-1], key=int) == [b"%d" % i for i in range(100)]


async def test_a_network_that_falls_silent_costs_no_election_and_no_write(cluster: Cluster) -> None:
    terms = {r.engine.status().term for r in cluster.running.values()}
    for running in cluster.running.values():
        assert running.engine._transport is not None
        for peer in running.engine._transport.peers.values():
            sender = peer.paths[0].sender
            assert sender is not None
            sender.send = lambda data, *, bulk: True  # type: ignore[method-assign]  # taken, and never seen again
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while loop.time() - begun < 3 * PROFILES["default"].election_max:
        before = loop.time()
        await cluster.running["n1"].engine.propose(b"x", timeout=5)
        assert loop.time() - before < PROFILES["default"].leader_fallback
    assert {r.engine.status().term for r in cluster.running.values()} == terms


async def test_hand_over_moves_the_leadership(cluster: Cluster) -> None:
    old = cluster.leader()
    assert old is not None
    await cluster.running[old].engine.hand_over()
    await cluster.until(lambda: cluster.leader() not in (None, old))


async def test_a_member_alone_says_that_nothing_changed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    running = cluster.start("n1")
    with pytest.raises(Unavailable, match="nothing changed"):
        await running.engine.propose(b"x", timeout=0.2)
    assert running.engine.authority() is None
    await cluster.stop()


async def test_a_command_over_the_limit_is_refused(cluster: Cluster) -> None:
    with pytest.raises(Refused, match="limit"):
        await cluster.running["n1"].engine.propose(bytes(engine_module.MAX_COMMAND + 1), timeout=1)


async def test_proposals_that_wait_for_a_leader_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_WAITING", 3)
    cluster = Cluster(tmp_path)
    engine = cluster.start("n1").engine
    waiting = [asyncio.ensure_future(engine.propose(b"%d" % i, timeout=10)) for i in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="3 changes already wait for a leader"):
        await engine.propose(b"one more", timeout=10)
    await cluster.stop()
    for task in waiting:
        with pytest.raises(Unavailable):
            await task


async def test_a_second_process_on_the_same_folder_is_refused(cluster: Cluster) -> None:
    config = cluster.config("n1")
    second = RaftEngine(config, PROFILES["default"], Lines(), data_dir=config.data_dir)
    with pytest.raises(Refused, match="in use"):
        await second.run()


async def test_a_folder_that_cannot_be_written_ends_the_engine_with_its_name(tmp_path: Path) -> None:
    config = Cluster(tmp_path).config("n1")
    blocked = tmp_path / "a-file"
    blocked.write_bytes(b"")
    with pytest.raises(DiskFailed, match="a-file"):
        await RaftEngine(config, PROFILES["default"], Lines(), data_dir=blocked / "data").run()


async def test_a_disk_without_room_ends_the_engine_before_it_promises_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    config = Cluster(tmp_path).config("n1")
    with pytest.raises(DiskFailed, match="No space left on device: this member cannot keep its log"):
        await RaftEngine(config, PROFILES["default"], Lines(), data_dir=config.data_dir).run()
    assert not (config.data_dir / "probe").exists()


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    with socket.create_server(("127.0.0.1", cluster.members[0].raft_port)):
        running = cluster.start("n1")
        with pytest.raises(CannotListen, match=str(cluster.members[0].raft_port)):
            await running.task


async def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    config = Cluster(tmp_path).config("n1")
    config.certificate.unlink()
    with pytest.raises(ConfigRefused, match=r"node\.crt"):
        await RaftEngine(config, PROFILES["default"], Lines(), data_dir=config.data_dir).run()


def test_an_observer_has_no_log(tmp_path: Path) -> None:
    config = Cluster(tmp_path).config("n1")
    observer = replace(config, members=(replace(config.members[0], role="Observer"), *config.members[1:]))
    with pytest.raises(Refused, match="no voter"):
        RaftEngine(observer, PROFILES["default"], Lines(), data_dir=tmp_path)


async def test_a_timing_that_comes_with_the_snapshot_is_used_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Core, "compact_entries", 1)
    monkeypatch.setattr(Core, "keep_entries", 0)
    cluster = Cluster(tmp_path)
    config = replace(cluster.config("n1"), members=cluster.members[:1])
    first = cluster.start("n1", config)
    for i in range(3):
        await first.engine.propose(b"%d" % i, timeout=5)
    await first.stop()

    class Retiming(Lines):
        def restore(self, index: int, data: bytes) -> None:
            super().restore(index, data)
            engine.set_timing(PROFILES["fast"])

    machine = Retiming()
    engine = RaftEngine(config, PROFILES["default"], machine, data_dir=config.data_dir)
    cluster.running["n1"] = Running(engine, machine, asyncio.create_task(engine.run()))
    await engine.propose(b"3", timeout=5)
    assert machine.lines == [b"0", b"1", b"2", b"3"]
    assert engine._core is not None
    assert engine._core.timing == PROFILES["fast"]
    await cluster.stop()


# ---------------------------------------------------------------- what must not get in
def context_of(
    cluster: Cluster, authority: Authority, name: str, *, ou: str = "node", valid_days: int = 365
) -> ssl.SSLContext:
    files = issue(authority, cluster.folder / f"intruder-{name}", name, ou=ou, valid_days=valid_days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(files.certificate, files.key)
    return context


async def closes(cluster: Cluster, data: bytes, context: ssl.SSLContext | None) -> None:
    """Connect to n1's consensus port, send, and see the connection closed from there and counted."""
    engine = cluster.running["n1"].engine
    before = engine.refusals
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.members[0].raft_port, ssl=context)
    writer.write(data)
    async with asyncio.timeout(5):
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    assert engine.refusals == before + 1
    assert (await engine.propose(b"still here", timeout=5)).index


async def test_garbage_is_refused(cluster: Cluster) -> None:
    await closes(cluster, b"GET / HTTP/1.1\r\n\r\n" * 100, None)


async def test_a_foreign_authority_is_refused(cluster: Cluster) -> None:
    await closes(cluster, b"x", context_of(cluster, make_ca("engine-test"), "n2"))


async def test_an_expired_certificate_is_refused(cluster: Cluster) -> None:
    await closes(cluster, b"x", context_of(cluster, cluster.ca, "n2", valid_days=-1))


async def test_an_administrator_is_no_member(cluster: Cluster) -> None:
    await closes(cluster, b"x", context_of(cluster, cluster.ca, "n2", ou="admin"))


async def test_a_node_that_is_no_voter_is_refused(cluster: Cluster) -> None:
    await closes(cluster, b"x", context_of(cluster, cluster.ca, "n9"))


async def test_a_frame_over_the_limit_is_refused_by_its_length_alone(cluster: Cluster) -> None:
    await closes(cluster, struct.pack(">I", MAX_FRAME + 1), context_of(cluster, cluster.ca, "n2"))


async def test_another_cluster_of_the_same_authority_is_refused(cluster: Cluster) -> None:
    hello = frame(pb.Hello(cluster_id="another", name="n2", protocol=1))
    await closes(cluster, hello, context_of(cluster, cluster.ca, "n2"))


async def test_a_frame_that_is_no_message_is_refused(cluster: Cluster) -> None:
    hello = frame(pb.Hello(cluster_id="engine-test", name="n2", protocol=1))
    await closes(cluster, hello + struct.pack(">I", 3) + b"\xff\xff\xff", context_of(cluster, cluster.ca, "n2"))


def test_frames_are_cut_wherever_the_stream_is_split() -> None:
    bodies = [bytes([i]) * i * 100 for i in range(1, 6)]
    stream = b"".join(struct.pack(">I", len(b)) + b for b in bodies)
    for size in (1, 3, 7, 1000, len(stream)):
        reader = FrameReader()
        found = [body for at in range(0, len(stream), size) for body in reader.feed(stream[at : at + size])]
        assert found == bodies


def test_no_pickle_is_reachable_in_the_library() -> None:
    import pysyncobj.serializer
    import pysyncobj.syncobj
    import pysyncobj.tcp_connection

    for module in (pysyncobj.syncobj, pysyncobj.serializer, pysyncobj.tcp_connection):
        with pytest.raises(RuntimeError, match="not used here"):
            module.pickle.loads(b"")


def test_the_library_does_not_break_addresses_for_the_rest_of_the_process() -> None:
    import pysyncobj.tcp_connection  # noqa: F401  (it replaces inet_ntop when it is imported)

    assert socket.inet_ntop(socket.AF_INET6, bytes(15) + b"\x01") == "::1"
