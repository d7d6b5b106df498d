"""Members on loopback that share one in-memory state: one leads, the others pass on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hasys.api.client import Client, Context
from hasys.api.kinds import Ref, copy
from hasys.api.server import ApiServer
from hasys.config import Member
from hasys.model.level import LEVEL
from hasys.store.directory import spec_of
from hasys.store.machine import Machine
from hasys.store.memory import MemoryEngine
from hasys.store.watch import WatchHub
from hasys.v1 import api_pb2, store_pb2
from hasys.v1 import objects_pb2 as pb
from tests.unit.api.pki import Authority, Files, node_config

NAMES = ("n1", "n2", "n3")


def free_port(address: str) -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def second_network(address: str) -> str:
    """The other address of a member."""
    return address.replace("127.0.0.", "127.0.1.")


@dataclass
class TestMember:
    """One API server with its engine."""

    __test__ = False
    server: ApiServer
    engine: MemoryEngine
    task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.server.run())
        await self.server.listening.wait()

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None


@dataclass
class Cluster:
    """Several members around one machine, as if replication were instant."""

    authority: Authority
    machine: Machine
    hub: WatchHub
    members: dict[str, TestMember]
    specs: tuple[Member, ...]
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def context(self, files: Files, *names: str, follow_leader: bool = True) -> Context:
        by_name = {member.name: member for member in self.specs}
        chosen = [by_name[name] for name in names or by_name]
        servers = tuple(f"{member.addresses[0]}:{member.api_port}" for member in chosen)
        return Context("demo", servers, files.ca, files.certificate, files.key, follow_leader)

    async def client(
        self, role: str = "admin", name: str = "admin", *servers: str, follow_leader: bool = True
    ) -> Client:
        files = self.authority.issue(name, role)
        return await self.stack.enter_async_context(Client(self.context(files, *servers, follow_leader=follow_leader)))

    def understand(self, level: int) -> None:
        """What every member of the cluster is said to understand."""
        stored = self.machine.get(Ref("Cluster", "", "demo"))
        assert stored is not None
        wanted = copy(stored)
        wanted.cluster.status.level = level
        command = store_pb2.Command(mutations=[store_pb2.Mutation(put_status=wanted)])
        next(iter(self.members.values())).engine.apply_now(command.SerializeToString())

    def elect(self, leader: str | None) -> None:
        for member in self.members.values():
            member.engine.elect(leader)


@asynccontextmanager
async def running(folder: Path, names: tuple[str, ...] = NAMES) -> AsyncIterator[Cluster]:
    """Members that serve; the first leads."""
    authority = Authority(folder)
    addresses = [f"127.0.0.{number + 1}" for number in range(len(names))]
    specs = tuple(
        Member(name, "Voter", (address, second_network(address)), api_port=free_port(address))
        for name, address in zip(names, addresses, strict=True)
    )
    machine = Machine()
    hub = WatchHub(machine)
    members = {}
    shared = MemoryEngine(machine, name=names[0])
    for spec in specs:
        engine = shared if spec.name == names[0] else MemoryEngine(machine, name=spec.name)
        engine.join(shared)
        engine.elect(names[0])
        config = node_config(folder, spec.name, specs, authority.issue(spec.name, "node"))
        members[spec.name] = TestMember(ApiServer(config, engine, machine, hub, _status), engine)
    cluster = Cluster(authority, machine, hub, members, specs)
    seed(shared, machine, tuple(replace(m, addresses=(*m.addresses, f"10.77.0.{i}")) for i, m in enumerate(specs, 1)))
    async with cluster.stack:
        for member in members.values():
            await member.start()
        try:
            yield cluster
        finally:
            await asyncio.gather(*(member.stop() for member in members.values()))


def seed(engine: MemoryEngine, machine: Machine, members: tuple[Member, ...]) -> None:
    """Node and Cluster objects, as the first leader writes them."""
    mutations = []
    for member in members:
        obj = pb.Object()
        obj.node.metadata.name = member.name
        obj.node.spec.CopyFrom(spec_of(member))
        mutations.append(store_pb2.Mutation(put_spec=obj))
    obj = pb.Object()
    obj.cluster.metadata.name = "demo"
    obj.cluster.spec.profile = "default"
    obj.cluster.status.level = LEVEL
    mutations.append(store_pb2.Mutation(put_spec=obj))
    engine.apply_now(store_pb2.Command(id="seed", actor="test", mutations=mutations).SerializeToString())


def _status(answer: api_pb2.StatusResponse, group: str) -> Iterator[None]:
    answer.cluster.name = "demo"
    yield
