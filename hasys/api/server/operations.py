"""The Operations service: every command of the operator is an object with an end state."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator

from hasys.api.convert import now
from hasys.api.errors import Denied, Fault, Invalid
from hasys.api.kinds import Ref
from hasys.api.server.calls import Call, Method, Writer
from hasys.api.validation import check_operation
from hasys.model import level
from hasys.model.errors import Conflict, NotFound
from hasys.store.machine import Machine
from hasys.v1 import api_pb2, store_pb2
from hasys.v1 import objects_pb2 as pb

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""For generated names: no vowels, no look-alikes."""
_OPERATORS_WORD = (pb.OperationSpec.FenceConfirm, pb.OperationSpec.Resolve)
"""What only people can know: that a node is off, whose data count."""
LISTED = 1_000
"""Most operations of one answer."""


class OperationsService:
    """Serves on the leader alone."""

    def __init__(self, machine: Machine, writer: Writer) -> None:
        self._machine = machine
        self._writer = writer

    def methods(self) -> Iterator[Method]:
        """This service's RPCs."""
        base = "/hasys.v1.Operations/"
        yield Method(base + "Create", api_pb2.CreateOperationRequest, pb.Operation, self.create)
        yield Method(base + "Get", api_pb2.GetOperationRequest, pb.Operation, self.get)
        yield Method(base + "List", api_pb2.ListOperationsRequest, api_pb2.ListOperationsResponse, self.list)

    async def create(self, request: api_pb2.CreateOperationRequest, call: Call) -> pb.Operation:
        """Store the operation as Pending; the controllers carry it out. The same request id again returns the first
        one."""
        spec = pb.OperationSpec()
        spec.CopyFrom(request.spec)
        spec.actor = call.caller.actor
        name = operation_name(spec.type, request.request_id)
        known = self._machine.get(Ref("Operation", "", name))
        if known is not None:
            return known.operation
        if spec.type == pb.OperationSpec.Run:
            call.caller.must_be_admin("run commands")
        if spec.type == pb.OperationSpec.RestartProcess:
            call.caller.must_be_admin("restart processes")
        if call.caller.role != "admin" and spec.node != call.caller.name:
            raise Denied(f"{call.caller.actor} may ask for operations about its own node alone")
        if call.caller.role != "admin" and (spec.type in _OPERATORS_WORD or spec.force):
            raise Denied(f"{call.caller.actor} cannot vouch for that: it takes an administrator")
        ref = Ref("Operation", "", name)
        faults = check_operation(ref, spec, self._machine) or self._too_early(ref, spec)
        if faults:
            raise Invalid(faults)
        wanted, status = pb.Object(), pb.Object()
        wanted.operation.metadata.name = name
        wanted.operation.spec.CopyFrom(spec)
        status.CopyFrom(wanted)
        status.operation.status.state = "Pending"
        status.operation.status.started.CopyFrom(now())
        mutations = [
            store_pb2.Mutation(put_spec=wanted, expect_absent=True),
            store_pb2.Mutation(put_status=status),
        ]
        try:
            await self._writer.write(call, mutations)
        except Conflict:
            if self._machine.get(Ref("Operation", "", name)) is None:
                raise
        return self._find(name)

    def _too_early(self, ref: Ref, spec: pb.OperationSpec) -> list[Fault]:
        kind = pb.OperationSpec.Type.Name(spec.type)
        needed = level.of_operation(kind)
        return [Fault(ref, "spec.type", level.refusal(kind, needed))] if needed > self._machine.level else []

    async def get(self, request: api_pb2.GetOperationRequest, call: Call) -> pb.Operation:
        """One operation. Raises ``NotFound``."""
        return self._find(request.name)

    async def list(self, request: api_pb2.ListOperationsRequest, call: Call) -> api_pb2.ListOperationsResponse:
        """The newest operations, newest first; all groups when none is named."""
        found = [obj.operation for obj in self._machine.list("Operation", request.group)]
        found.sort(key=lambda one: int(one.metadata.uid.partition("-")[0], 16), reverse=True)
        limit = min(request.limit or LISTED, LISTED)
        return api_pb2.ListOperationsResponse(operations=found[:limit])

    def _find(self, name: str) -> pb.Operation:
        obj = self._machine.get(Ref("Operation", "", name))
        if obj is None:
            raise NotFound(f"Operation {name[:80]!r} does not exist, or ended too long ago")
        return obj.operation


def operation_name(kind: pb.OperationSpec.Type.ValueType, request_id: str) -> str:
    """``switchover-x7k2qz``: the same for the same request id, random without one."""
    try:
        prefix = pb.OperationSpec.Type.Name(kind)
    except ValueError:
        prefix = "unknown"
    digest = hashlib.sha256(request_id.encode()).digest() if request_id else secrets.token_bytes(16)
    number = int.from_bytes(digest[:8], "big")
    letters = []
    for _ in range(7):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return f"{prefix.lower()}-{''.join(letters)}"
