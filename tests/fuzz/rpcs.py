"""The calls that change or read objects: any bytes as their request, from an administrator and from a node."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError

from hasys.api.auth import ADMIN, NODE, Caller
from hasys.api.server.calls import Call, Method, Writer
from hasys.api.server.maintenance import Maintenance
from hasys.api.server.operations import OperationsService
from hasys.api.server.resources import Resources
from hasys.api.server.streams import Streams
from hasys.config import Member, NodeConfig
from hasys.model.errors import HasysError
from hasys.store.directory import Directory
from hasys.store.figures import Figures
from hasys.store.machine import Machine
from hasys.store.memory import MemoryEngine
from hasys.store.raft.membership import Membership
from hasys.store.watch import WatchHub
from hasys.v1 import api_pb2
from hasys.v1 import objects_pb2 as pb

CALLERS = (Caller(ADMIN, "bob"), Caller(NODE, "n1"))
MOST_STEPS = 100
"""A call on an engine that answers at once ends after a few."""


def calls(machine: Machine, config: NodeConfig) -> Callable[[bytes], None]:
    """A target on this state: the first byte says who calls what, the request is behind it. The call is answered or
    refused, and the state after it can be kept and brought back."""
    kept = machine.snapshot()

    def target(data: bytes) -> None:
        machine = Machine()
        machine.restore(1000, kept)
        methods = _methods(machine, config)
        which, caller = divmod(data[0] if data else 0, len(CALLERS))
        method = methods[which % len(methods)]
        assert method.serve is not None
        with suppress(DecodeError, HasysError):
            request = method.request.FromString(data[1:])
            _end(method.serve(request, Call(CALLERS[caller], 5.0))).SerializeToString()
        again = Machine()
        again.restore(1001, machine.snapshot())
        assert again.snapshot() == machine.snapshot()

    return target


class _Engine(MemoryEngine):
    """Members come and go at once."""

    def learners(self) -> frozenset[str]:
        return frozenset()

    def living(self) -> frozenset[str]:
        return frozenset(("n1", "n2"))

    def settled(self) -> bool:
        return True

    async def add_member(self, member: Member, *, timeout: float) -> None:
        Membership((member,)).encode()

    async def remove_member(self, name: str, *, timeout: float) -> None:
        pass

    def check_removal(self, name: str) -> None:
        pass


def _methods(machine: Machine, config: NodeConfig) -> list[Method]:
    engine = _Engine(machine)
    engine._log.index = 1000
    writer = Writer(engine, "n1")
    resources = Resources(machine, WatchHub(machine), writer, Streams(), Figures(lambda: 1.0))
    members = Maintenance(config, machine, engine, Directory(config, machine, engine), writer)
    found = [*resources.methods(), *OperationsService(machine, writer).methods(), *members.methods()]
    return [method for method in found if method.serve is not None]


def _end(work: Any) -> Any:
    """Its result. It may give way to others, and must not wait."""
    assert isinstance(work, Coroutine)
    try:
        for _ in range(MOST_STEPS):
            work.send(None)
    except StopIteration as e:
        return e.value
    work.close()
    raise AssertionError("waits though the engine answers at once")


def seeds(objects: list[pb.Object]) -> list[bytes]:
    """One request for each call, as an administrator's and as a node's."""
    operation = pb.OperationSpec(type=pb.OperationSpec.Switchover, group="web", node="n2", reason="x")
    status = api_pb2.StatusReport(
        key=pb.Key(kind="Delay", group="web", name="pause"), status=pb.ResourceStatus(state="Running", epoch=1)
    )
    requests = (
        api_pb2.ApplyRequest(objects=objects, prune=True),
        api_pb2.GetRequest(key=pb.Key(kind="Group", name="web")),
        api_pb2.ListRequest(kind="VirtualIP", group="web", limit=3),
        api_pb2.DeleteRequest(key=pb.Key(kind="Delay", group="web", name="pause"), resource_version=1),
        api_pb2.ReportRequest(node="n1", session="s", statuses=[status], events=[pb.Event(reason="x")]),
        api_pb2.CreateOperationRequest(spec=operation, request_id="a"),
        api_pb2.GetOperationRequest(name="switchover-x"),
        api_pb2.ListOperationsRequest(group="web", limit=2),
        api_pb2.ListMembersRequest(),
        api_pb2.AddMemberRequest(name="n4", spec=pb.NodeSpec(addresses=["10.0.0.4", "fd00::4"], api_port=7411)),
        api_pb2.RemoveMemberRequest(name="w"),
    )
    return [
        bytes((len(CALLERS) * number + caller,)) + request.SerializeToString()
        for number, request in enumerate(requests)
        for caller in range(len(CALLERS))
    ]
