"""Registers in the store, and clients that read and change them through different servers and write down what they saw.

A register is a label of a group. A change names the resource version of the read before it: compare and set. Each
attempt is one RPC, never repeated, or a call of the client library; its outcome is *done*, *not done*, or unknown.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import grpc

from hasys.api.client import Client, Context
from hasys.api.errors import from_status
from hasys.api.tls import CHANNEL_OPTIONS, client_credentials
from hasys.model.errors import HasysError, NotFound, TimedOut, Unknown
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb
from tests.chaos.checker import NEVER, Operation
from tests.chaos.writers import group

LABEL = "value"
INITIAL = "none"
PAUSE = 0.05
"""Seconds, at most, after a read without an answer: connections and elections take their time."""
RPC = 1.5
"""Seconds that one attempt may take."""
AGAIN = 4.0
"""Seconds that the client library may send it again and again."""


class Register:
    """One server's view of the registers."""

    def __init__(self, context: Context) -> None:
        (target,) = context.servers
        credentials = client_credentials(context.ca, context.certificate, context.key)
        self._channel = grpc.aio.secure_channel(target, credentials, options=list(CHANNEL_OPTIONS))
        self._get = self._channel.unary_unary(
            "/hasys.v1.Resources/Get", api_pb2.GetRequest.SerializeToString, pb.Object.FromString
        )
        self._apply = self._channel.unary_unary(
            "/hasys.v1.Resources/Apply", api_pb2.ApplyRequest.SerializeToString, api_pb2.ApplyResponse.FromString
        )

    async def read(self, name: str, *, stale: bool = False) -> tuple[str, int]:
        """Value and resource version. ``stale``: whatever this server has. Raises ``hasys.model.errors``."""
        consistency = api_pb2.Stale if stale else api_pb2.Linearizable
        request = api_pb2.GetRequest(key=pb.Key(kind="Group", name=name), consistency=consistency)
        try:
            found = await self._get(request, timeout=RPC)
        except grpc.aio.AioRpcError as e:
            raise from_status(e) from None
        meta = found.group.metadata
        return meta.labels[LABEL], meta.resource_version

    async def change(self, name: str, version: int, value: str) -> bool | None:
        """Set the value if the version is still that one. None: it may have happened, or may still happen."""
        wanted = group(name, **{LABEL: value})
        wanted.group.metadata.resource_version = version
        try:
            await self._apply(api_pb2.ApplyRequest(objects=[wanted]), timeout=RPC)
        except grpc.aio.AioRpcError as e:
            return None if isinstance(from_status(e), Unknown | TimedOut) else False
        return True

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)


class Library:
    """The registers through hasys's own client, which sends again what got no answer, to whichever server it finds."""

    def __init__(self, context: Context) -> None:
        self._client = Client(context)

    async def read(self, name: str) -> tuple[str, int]:
        """Value and resource version. Raises ``hasys.model.errors``."""
        meta = (await self._client.get("Group", name, timeout=AGAIN)).group.metadata
        return meta.labels[LABEL], meta.resource_version

    async def change(self, name: str, version: int, value: str) -> bool | None:
        """As :meth:`Register.change`."""
        wanted = group(name, **{LABEL: value})
        wanted.group.metadata.resource_version = version
        try:
            await self._client.apply([wanted], timeout=AGAIN)
        except HasysError as e:
            return None if isinstance(e, Unknown) else False
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class Recorder:
    """Clients at work; ``history`` has what they saw. All times are of the one event loop's clock."""

    def __init__(self, servers: Mapping[str, Register | Library], names: Sequence[str], rng: random.Random) -> None:
        self.history: list[Operation] = []
        self.refused: list[Operation] = []
        """Changes that the store answered with an error which promises that they have no effect."""
        self.outcomes: dict[str, int] = {"read": 0, "done": 0, "not done": 0, "unknown": 0, "no answer": 0}
        self._servers, self._names, self._rng = servers, names, rng
        self._values = 0

    async def work(self, client: str) -> None:
        """Read and change registers for ever, now through this server, now through that one."""
        while True:
            answered = await self._one(client, self._rng.choice(self._names))
            await asyncio.sleep(self._rng.uniform(0, 0.01 if answered else PAUSE))

    async def _one(self, client: str, name: str) -> bool:
        read = await self._read(client, name, self._rng.choice(sorted(self._servers)))
        if read is not None and self._rng.random() < 0.5:
            await self._change(client, name, *read)
        return read is not None

    async def _read(self, client: str, name: str, server: str) -> tuple[str, int] | None:
        loop = asyncio.get_running_loop()
        called = loop.time()
        try:
            value, version = await self._servers[server].read(name)
        except NotFound:
            value, version = "", 0  # registers are never deleted: the checker must refuse this
        except HasysError:
            self.outcomes["no answer"] += 1
            return None
        self.outcomes["read"] += 1
        self.history.append(Operation(f"{client} at {server}", name, "read", called, loop.time(), value))
        return value, version

    async def _change(self, client: str, name: str, expected: str, version: int) -> None:
        loop = asyncio.get_running_loop()
        self._values += 1
        value, server = f"v{self._values}", self._rng.choice(sorted(self._servers))
        called = loop.time()
        done: bool | None = None
        try:
            done = await self._servers[server].change(name, version, value)
        finally:  # who is cancelled does not know either: the change may have happened, or may still happen
            self.outcomes[{True: "done", False: "not done", None: "unknown"}[done]] += 1
            returned = loop.time() if done else NEVER
            change = Operation(f"{client} at {server}", name, "change", called, returned, value, expected)
            (self.refused if done is False else self.history).append(change)

    async def read_everything(self, timeout: float) -> None:
        """Every register through every server, when all faults are over. Raises when one does not answer."""
        until = asyncio.get_running_loop().time() + timeout
        for server in sorted(self._servers):
            for name in self._names:
                while await self._read("last", name, server) is None:
                    if asyncio.get_running_loop().time() > until:
                        raise TimedOut(f"{server} gives no answer though nothing is wrong any more")
                    await asyncio.sleep(PAUSE)
