"""A store and a guard for one agent process: the real API over an in-memory engine, and a guard that permits what it is
told to. The agent under test is the real process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hasys.api import kinds
from hasys.config import LEASE_PORT
from hasys.guard import protocol
from hasys.guard.protocol import Alive, Gate, Hello, Networks, Permit, Plan, Release, Stores
from hasys.lease import wire
from hasys.lease.granting import Granter
from hasys.model.timing import PROFILES
from hasys.resources.cgroup import Cgroup, base_of
from hasys.store.assigned import Assigned
from hasys.store.port import Authority
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2
from tests.unit.api.cluster import Cluster, running
from tests.unit.api.pki import CLUSTER_ID

NODE = "n1"


class StandInGuard:
    """Speaks the guard's protocol on a socket; ``allowed`` is what a grant would name."""

    def __init__(self) -> None:
        self.allowed: dict[str, int] = {}
        self.plans: dict[str, Plan] = {}
        self.released: dict[str, tuple[int, float]] = {}
        self.gated: set[str] = set()
        """Addresses of which the agent has told: it knows the groups that have them."""
        self.agents: list[int] = []
        self.news = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    def permit(self, group: str, epoch: int) -> None:
        self.allowed[group] = epoch
        self._push({"event": "permitted", "group": group, "epoch": epoch})

    def _push(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        with contextlib.suppress(ConnectionResetError):  # it ended with answers unread
            while line := await reader.readline():
                self._take(line)
        writer.close()

    def _take(self, line: bytes) -> None:
        id, request = protocol.parse_request(line)
        if not isinstance(request, Alive):
            self._push({"id": id, "ok": True, **self._answer(request)})
            self.news.set()

    def _answer(self, request: protocol.Request) -> dict[str, Any]:
        match request:
            case Hello(pid, _):
                self.agents.append(pid)
                return {
                    "instance": "demo-n1",
                    "lease": {"valid": True, "epoch": 1, "remaining_ms": 900},
                    "plans": [protocol.plan_to_json(p) for p in self.plans.values()],
                    "permitted": [[g, e] for g, e in self.allowed.items()],
                    "released": [[g, e] for g, (e, _) in self.released.items()],
                    "oaths": [],
                    "reports": [],
                }
            case Plan():
                self.plans[request.group] = request
                return {"state": self._state(request.group, request.epoch)}
            case Permit(group, epoch):
                return {"state": self._state(group, epoch)}
            case Release(group, epoch):
                self.released[group] = (epoch, time.monotonic())
                self.plans.pop(group, None)
                return {}
            case Gate(addresses):
                self.gated = {one.address for one in addresses}
                return {}
            case Stores() | Networks():
                return {}
            case _:
                raise AssertionError(request)

    def _state(self, group: str, epoch: int) -> str:
        return protocol.PERMITTED if self.allowed.get(group) == epoch else protocol.PENDING


class NodeCgroup(Cgroup):
    """The cgroups of the node."""

    def pids_of(self, group: str, resource: str) -> list[int]:
        return Cgroup(self.path / "groups" / group / resource).pids()


class Granting(asyncio.DatagramProtocol):
    """Grants what the state machine assigns, as a leader with an old and quiet majority would. ``silent``: answers
    nothing, as a store that was lost."""

    KEY = bytes(32)

    def __init__(self, cluster: Cluster) -> None:
        self.silent = False
        self._assigned = Assigned(cluster.machine)
        self._granter = Granter(CLUSTER_ID, "n2", ["n1", "n2"], PROFILES["default"])
        self._machine = cluster.machine
        self._begun = time.monotonic()
        self._peers: dict[str, Any] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._machine.subscribe(lambda index, changes: self._push())

    def datagram_received(self, data: bytes, addr: Any) -> None:
        message = wire.decode(data, CLUSTER_ID, lambda node: self.KEY)
        if self.silent or not isinstance(message, wire.KeepAlive):
            return
        self._peers[message.node] = addr
        now = time.monotonic()
        grant = self._granter.heard(message, now, self._authority(now), self._assigned())
        if grant is not None:
            self._send(grant)
        self._push()

    def _push(self) -> None:
        now = time.monotonic()
        for grant in self._granter.due(now, self._authority(now), self._assigned()):
            self._send(grant)

    def _send(self, grant: wire.Grant) -> None:
        if self._transport is not None and not self.silent:
            self._transport.sendto(wire.encode(grant, self.KEY), self._peers[grant.node])

    def _authority(self, now: float) -> Authority:
        return Authority(term=1, applied=self._machine.revision, t_q=now, silent_since=self._begun - 60)


class Node:
    """One node: stand-ins around the real agent process."""

    def __init__(self, folder: Path, cluster: Cluster, guard: StandInGuard) -> None:
        self.folder = folder
        self.cluster = cluster
        self.guard = guard
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.agent: asyncio.subprocess.Process | None = None
        self._commands = 0
        self._config = self._write_config()

    def put(self, *messages: Any) -> None:
        """Store objects as the leader would: specs, and the status of groups."""
        self._commands += 1
        mutations = []
        for message in messages:
            mutations.append(store_pb2.Mutation(put_spec=kinds.wrap(message)))
            if isinstance(message, pb.Group):
                mutations.append(store_pb2.Mutation(put_status=kinds.wrap(message)))
        command = store_pb2.Command(id=f"put-{self._commands}", actor="test", mutations=mutations)
        answer = self.cluster.members[NODE].engine.apply_now(command.SerializeToString())
        outcome = store_pb2.Outcome.FromString(answer.answer)
        assert outcome.done, outcome.message

    async def start_agent(self) -> None:
        self.agent = await self.start_process("agent")

    async def start_process(self, role: str) -> asyncio.subprocess.Process:
        """``hasys ROLE run``; its output goes to ROLE.log."""
        with (self.folder / f"{role}.log").open("ab") as log:
            started = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hasys", role, "run", "--config", str(self._config), stderr=log, stdout=log
            )
        self.processes[role] = started
        return started

    async def kill_all(self) -> None:
        """End every process that was started here."""
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def stop_agent(self, number: int = signal.SIGTERM) -> None:
        if self.agent is not None and self.agent.returncode is None:
            self.agent.send_signal(number)
            await self.agent.wait()
        self.agent = None

    def status(self, kind: str, name: str, group: str = "web") -> pb.ResourceStatus:
        obj = self.cluster.machine.get(kinds.Ref(kind, group, name))
        resource = kinds.resource(obj) if obj is not None else None
        return resource.status if resource is not None else pb.ResourceStatus()

    async def until(self, condition: Callable[[], object], what: str, within: float = 10) -> float:
        """Wait until something holds, looking after each change of the store or word to the guard; returns seconds."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(within):
                while not condition():
                    changed = asyncio.ensure_future(self.guard.news.wait())
                    await asyncio.wait([changed], timeout=0.002)
                    changed.cancel()
                    self.guard.news.clear()
        except TimeoutError:
            raise AssertionError(f"not within {within:g} s: {what}\n{self.log()}") from None
        return time.monotonic() - begun

    async def until_state(self, kind: str, name: str, state: str, group: str = "web", within: float = 10) -> float:
        return await self.until(lambda: self.status(kind, name, group).state == state, f"{name} {state}", within)

    def log(self) -> str:
        files = [self.folder / f"{role}.log" for role in self.processes]
        return "\n".join(f"{file.stem}: {file.read_text()[-4000:]}" for file in files)

    def _write_config(self) -> Path:
        members = [
            {"name": m.name, "addresses": list(m.addresses), "apiPort": m.api_port, "role": "Voter"}
            for m in self.cluster.specs
        ]
        files = self.cluster.authority.issue(NODE, "node")
        for file in (files.key, secret := self.folder / "node.secret"):
            if file == secret:
                file.write_text("00" * 32)
            file.chmod(0o600)
        config = {
            "cluster": f"t{os.getpid()}",
            "clusterId": CLUSTER_ID,
            "node": NODE,
            "members": members,
            "tls": {"ca": str(files.ca), "certificate": str(files.certificate), "key": str(files.key)},
            "nodeSecret": str(secret),
            "leaseSecret": str(secret),
            "runDir": str(self.folder / "run"),
        }
        path = self.folder / "node.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return path

    @property
    def base(self) -> NodeCgroup:
        return NodeCgroup(base_of(f"t{os.getpid()}-{NODE}"))

    @staticmethod
    def ref(kind: str, name: str, group: str = "web") -> kinds.Ref:
        return kinds.Ref(kind, group, name)


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[Node]:
    """A node whose agent is not started yet; nothing of it is left afterwards."""
    (folder / "run").mkdir()
    guard = StandInGuard()
    async with running(folder / "pki", ("n1", "n2")) as cluster:
        served = await asyncio.start_unix_server(guard.serve, folder / "run" / "guard.sock")
        made = Node(folder, cluster, guard)
        try:
            yield made
        finally:
            await made.kill_all()
            served.close()
            await made.base.empty()


@asynccontextmanager
async def guarded_node(folder: Path) -> AsyncIterator[tuple[Node, Granting]]:
    """A node with its real guard, which runs already and hears a granting store."""
    (folder / "run").mkdir()
    async with running(folder / "pki", ("n1", "n2")) as cluster:
        made = Node(folder, cluster, StandInGuard())
        loop = asyncio.get_running_loop()
        transport, granting = await loop.create_datagram_endpoint(
            lambda: Granting(cluster), local_addr=("127.0.0.2", LEASE_PORT)
        )
        try:
            await made.start_process("guard")
            yield made, granting
        finally:
            await made.kill_all()
            transport.close()
            await made.base.empty()
