"""The products of the store benchmark behind one face: hasys, etcd, and PySyncObj as it comes. Three members each.

hasys and etcd are asked over mutual TLS by the same Python gRPC library, for the rates by bare calls to the leader, so
that the client costs the same; hasys's own client measures what its users have, and comes over a lost leader. etcd's
messages are encoded here by hand: four fields of four messages. PySyncObj has no clients: its figures are those of
callers inside the leader's process, without TLS and, as it comes, without fsync.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc

from bench.api_writes import Write, connect
from bench.loopback import Loopback
from bench.store_raw import free_ports
from hasys.api.client import Client, load_context
from hasys.store.main import NICE
from hasys.store.transaction import GROUP_MEMBERS
from hasys.v1 import objects_pb2 as pb
from tests.certs import issue, make_ca

CONNECTIONS = 4
"""Connections that all clients share."""
NAMES = ("m1", "m2", "m3")
GROUP = "bench-store"
WATCHED = "bench-watched"
"""A group of its own: a watch of hasys begins with what there is, one of etcd does not."""
BATCHED = tuple(f"bench-batch{i}" for i in range(CONNECTIONS))
"""Batches are of many objects: more than a group may have."""
ATTEMPT = 0.15
"""Seconds that one attempt may take while a cluster settles."""
READY = 30.0
"""Seconds that a cluster may take to serve."""


def like_hasys(argv: Sequence[str]) -> list[str]:
    """The command with the priority that a store of hasys gives itself, where that is allowed."""
    return ["nice", "-n", str(NICE - os.getpriority(os.PRIO_PROCESS, 0)), *argv]


class Product(ABC):
    """Three members on loopback. Members are named by the product; a killed one can be started anew."""

    name: str
    watches = True
    """Has watches, and clients over a network."""

    @abstractmethod
    async def start(self) -> None:
        """Boot, wait until a write succeeds."""

    @abstractmethod
    async def stop(self) -> None:
        """End every process and remove the files."""

    @abstractmethod
    async def put(self, client: int, value: bytes, *, timeout: float = 10.0) -> None:
        """One durable write of this client's own key. Raises any exception when it failed."""

    async def write(self, client: int, value: bytes) -> None:
        """The same for measured rates: the cheapest call to the leader."""
        await self.put(client, value)

    async def change(self, value: bytes) -> None:
        """One durable write that watchers see."""
        await self.put(0, value)

    @abstractmethod
    async def fill(self, count: int) -> None:
        """Store this many small objects."""

    @abstractmethod
    async def leader(self) -> str:
        """The name of the member that leads."""

    @abstractmethod
    def pids(self) -> dict[str, int]:
        """Process of each member."""

    @abstractmethod
    def boot(self, name: str) -> None:
        """Start a member that is dead."""

    def watch(self, watcher: int) -> AsyncIterator[int]:
        """First 0 once the watch is established; then how many changes arrived, message by message."""
        raise NotImplementedError

    def freeze(self, name: str) -> None:
        """SIGSTOP to that member; it is killed later."""
        os.kill(self.pids()[name], signal.SIGSTOP)

    def kill(self, name: str) -> None:
        """SIGKILL to that member; returns when it is dead."""
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        self.reap(name)

    @abstractmethod
    def reap(self, name: str) -> None:
        """Wait for the end of a killed process."""

    async def settle(self) -> None:
        """Wait until a write succeeds.

        Each attempt writes another value: one that changes nothing is no write. Attempts are short, so that a request
        that hangs at a member without a leader does not round the figure up.
        """
        async with asyncio.timeout(READY):
            while True:
                try:
                    await self.put(0, b"settled %d" % time.monotonic_ns(), timeout=ATTEMPT)
                except Exception:  # whatever a product raises while it cannot serve
                    await asyncio.sleep(0.01)
                else:
                    return


class Hasys(Product):
    """Three store processes, the API over mutual TLS."""

    name = "hasys"

    def __init__(self) -> None:
        self._cluster = Loopback()
        self._stack = AsyncExitStack()
        self._clients: list[Client] = []
        self._watchers: list[Client] = []
        self._bare: list[Write] = []

    async def start(self) -> None:
        self._cluster.__enter__()
        context = load_context(self._cluster.context)
        for some in (self._clients, self._watchers):
            some += [await self._stack.enter_async_context(Client(context)) for _ in range(CONNECTIONS)]
        for name in (GROUP, WATCHED, *BATCHED):
            await self._clients[0].apply([manual_group(name)])
        for client in (*self._clients, *self._watchers):
            await client.list("Group")
        self._bare = await connect(self._clients[0], context, CONNECTIONS, self._stack)

    async def stop(self) -> None:
        await self._stack.aclose()
        self._cluster.__exit__(None, None, None)

    async def put(self, client: int, value: bytes, *, timeout: float = 10.0) -> None:
        await self._clients[client % CONNECTIONS].apply([application(client, value)], timeout=timeout)

    async def write(self, client: int, value: bytes) -> None:
        await self._bare[client % CONNECTIONS]([application(client, value)])

    async def change(self, value: bytes) -> None:
        await self._clients[0].apply([application(0, value, WATCHED)])

    async def batch(self, client: int, count: int, value: bytes) -> None:
        """One call that writes several objects."""
        way = client % CONNECTIONS
        await self._bare[way]([application(client * count + i, value, BATCHED[way]) for i in range(count)])

    async def fill(self, count: int) -> None:
        for first in range(0, count, GROUP_MEMBERS):
            objects = [manual_group(name := f"fill{first // GROUP_MEMBERS}")]
            for number in range(first, min(count, first + GROUP_MEMBERS)):
                obj = pb.Object()
                obj.delay.metadata.name, obj.delay.metadata.group = f"d{number}", name
                obj.delay.spec.duration.nanos = 1
                objects.append(obj)
            await self._clients[0].apply(objects, timeout=60)

    async def leader(self) -> str:
        return (await self._clients[0].status()).cluster.leader

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._cluster.processes.items()}

    def boot(self, name: str) -> None:
        self._cluster.boot(name)

    def reap(self, name: str) -> None:
        self._cluster.processes[name].wait()

    async def watch(self, watcher: int) -> AsyncIterator[int]:
        async for answer in self._watchers[watcher % CONNECTIONS].watch(["Application"], WATCHED):
            yield len(answer.changes)


def manual_group(name: str) -> pb.Object:
    """A group that nothing starts: no guard runs."""
    obj = pb.Object()
    obj.group.metadata.name = name
    obj.group.spec.failover.mode = pb.Failover.Manual
    obj.group.spec.nodes.add(name="n1")
    return obj


def application(number: int, value: bytes, group: str = GROUP) -> pb.Object:
    """An object that carries a value of any size."""
    obj = pb.Object()
    obj.application.metadata.name, obj.application.metadata.group = f"a{number}", group
    obj.application.spec.run.command.append("/bin/true")
    obj.application.spec.run.env["V"] = value.decode("ascii")
    return obj


# ---------------------------------------------------------------- etcd
def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def events_in(message: bytes) -> int:
    """How many events a watch response carries: its fields 11."""
    at = found = 0
    while at < len(message):
        tag, at = _read(message, at)
        if tag & 7 == 2:
            length, at = _read(message, at)
            at += length
            found += tag >> 3 == 11
        else:
            _, at = _read(message, at)
    return found


def _read(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


class Etcd(Product):
    """Three etcd processes with the settings of a local cluster: heartbeat 100 ms, election 1 s (its defaults)."""

    name = "etcd"
    options: Sequence[str] = ()

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="etcd-bench."))
        self._files = issue(make_ca("etcd"), self._folder / "tls", "bench", ips=("127.0.0.1",))
        ports = free_ports(6)
        self._client_ports = dict(zip(NAMES, ports[:3], strict=True))
        self._peer_ports = dict(zip(NAMES, ports[3:], strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._channels: dict[str, list[Any]] = {}
        self._to = NAMES[0]

    def boot(self, name: str) -> None:
        tls = [f"--{p}{o}={f}" for p in ("", "peer-") for o, f in self._tls().items()]
        peer, client = (f"https://127.0.0.1:{ports[name]}" for ports in (self._peer_ports, self._client_ports))
        members = ",".join(f"{n}=https://127.0.0.1:{p}" for n, p in self._peer_ports.items())
        argv = [
            "etcd", "--name", name, "--data-dir", str(self._folder / name), "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--listen-client-urls", client, "--advertise-client-urls", client,
            "--initial-cluster", members, "--client-cert-auth", "--peer-client-cert-auth", "--logger", "zap",
            "--log-outputs", str(self._folder / f"{name}.log"), *tls, *self.options,
        ]  # fmt: skip
        null = subprocess.DEVNULL
        self._processes[name] = subprocess.Popen(like_hasys(argv), stdout=null, stderr=null)

    def _tls(self) -> dict[str, Path]:
        return {"cert-file": self._files.certificate, "key-file": self._files.key, "trusted-ca-file": self._files.ca}

    async def start(self) -> None:
        credentials = grpc.ssl_channel_credentials(
            self._files.ca.read_bytes(), self._files.key.read_bytes(), self._files.certificate.read_bytes()
        )
        reconnect = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
        for name in NAMES:
            self.boot(name)
            target = f"127.0.0.1:{self._client_ports[name]}"
            self._channels[name] = [
                grpc.aio.secure_channel(
                    target, credentials, options=[*reconnect, ("grpc.use_local_subchannel_pool", 1)]
                )
                for _ in range(2 * CONNECTIONS)
            ]
        await self.settle()
        self._to = await self.leader()

    async def stop(self) -> None:
        for channels in self._channels.values():
            await asyncio.gather(*(channel.close(None) for channel in channels))
        for process in self._processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def put(self, client: int, value: bytes, *, timeout: float = 10.0) -> None:
        """To the leader as last known; to another member after a failure."""
        call = self._channels[self._to][client % CONNECTIONS].unary_unary("/etcdserverpb.KV/Put")
        try:
            await call(field(1, b"k%d" % client) + field(2, value), timeout=timeout)
        except grpc.aio.AioRpcError:
            self._to = NAMES[(NAMES.index(self._to) + 1) % len(NAMES)]
            raise

    async def fill(self, count: int) -> None:
        for first in range(0, count, 256):
            numbers = range(first, min(count, first + 256))
            await asyncio.gather(*(self.put(1_000 + n, b"x" * 64, timeout=60) for n in numbers))

    async def leader(self) -> str:
        options = [f"--{o}={f}" for o, f in zip(("cert", "key", "cacert"), self._tls().values(), strict=True)]
        for name in NAMES:
            endpoint = f"https://127.0.0.1:{self._client_ports[name]}"
            argv = ["etcdctl", "--endpoints", endpoint, *options, "endpoint", "status", "-w", "json"]
            asked = await asyncio.to_thread(
                subprocess.run, argv, capture_output=True, check=False, env={**os.environ, "ETCDCTL_API": "3"}
            )
            if asked.returncode == 0:
                status = json.loads(asked.stdout)[0]["Status"]
                if status["leader"] == status["header"]["member_id"]:
                    return name
        raise RuntimeError("etcd has no leader")

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def reap(self, name: str) -> None:
        self._processes[name].wait()

    async def watch(self, watcher: int) -> AsyncIterator[int]:
        channel = self._channels[self._to][CONNECTIONS + watcher % CONNECTIONS]
        call = channel.stream_stream("/etcdserverpb.Watch/Watch")()
        await call.write(field(1, field(1, b"k") + field(2, b"l")))
        async for answer in call:
            yield events_in(answer)


class EtcdTuned(Etcd):
    """etcd with heartbeats and elections as quick as hasys's default profile."""

    name = "etcd, tuned"
    options = ("--heartbeat-interval=50", "--election-timeout=500")


# ---------------------------------------------------------------- PySyncObj as it comes
class Stock(Product):
    """Three PySyncObj members with its default settings and a journal file; callers sit in the leader's process."""

    name = "PySyncObj"
    watches = False

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="stock-bench."))
        self._addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._frozen = ""

    def freeze(self, name: str) -> None:
        super().freeze(name)
        self._frozen = name

    def boot(self, name: str) -> None:
        self._frozen = ""
        at = NAMES.index(name)
        others = [a for a in self._addresses if a != self._addresses[at]]
        argv = [sys.executable, "-m", "bench.store_stock", str(self._folder / name), self._addresses[at], *others]
        pipe = subprocess.PIPE
        null = subprocess.DEVNULL
        self._processes[name] = subprocess.Popen(like_hasys(argv), stdin=pipe, stdout=pipe, stderr=null)

    def _alive(self, name: str) -> bool:
        return name != self._frozen and self._processes[name].poll() is None

    async def start(self) -> None:
        for name in NAMES:
            self.boot(name)
        await self.settle()

    async def ask(self, name: str, *order: Any) -> Any:
        """Give an order to a member and wait for its answer. Raises EOFError when it is dead."""
        process = self._processes[name]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        line = await asyncio.to_thread(process.stdout.readline)
        if not line:
            raise EOFError(f"{name} ended")
        return json.loads(line)

    async def settle(self) -> None:
        async with asyncio.timeout(READY):
            while not any([await self.ask(n, "put", 7) for n in NAMES if self._alive(n)]):
                pass

    async def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def put(self, client: int, value: bytes, *, timeout: float = 10.0) -> None:
        for name in NAMES:
            if self._alive(name) and await self.ask(name, "put", len(value)):
                return
        raise RuntimeError("not written")

    async def fill(self, count: int) -> None:
        await self.ask(await self.leader(), "fill", count)

    async def leader(self) -> str:
        for name in NAMES:
            if self._alive(name) and await self.ask(name, "leads"):
                return name
        raise RuntimeError("PySyncObj has no leader")

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def reap(self, name: str) -> None:
        self._processes[name].wait()


PRODUCTS: dict[str, type[Product]] = {"hasys": Hasys, "etcd": Etcd, "etcd-tuned": EtcdTuned, "pysyncobj": Stock}
