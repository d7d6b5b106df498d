"""The Resources service: apply, get, list, watch, delete, report."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence

from hasys.api.convert import seconds, settle_timing
from hasys.api.errors import Fault, Invalid, Relist, TooLarge
from hasys.api.kinds import KINDS, Ref, inner, ref_of
from hasys.api.rules import fill_defaults
from hasys.api.server.calls import Call, Method, Writer, told
from hasys.api.server.clocks import Delays
from hasys.api.server.reports import OLDEST, Receipt, plan_report
from hasys.api.server.streams import Streams
from hasys.api.validation import check_deletion, check_objects
from hasys.model import level
from hasys.model.errors import Conflict, NotFound, Unavailable
from hasys.store import watch
from hasys.store.figures import Figures
from hasys.store.machine import Machine
from hasys.v1 import api_pb2, store_pb2
from hasys.v1 import objects_pb2 as pb

OBJECTS = 5_000
"""Most objects of one apply."""
REREADS = 5
"""How often a report is worked out anew because the state changed in between."""


class Resources:
    """Serves on the leader alone; knows nothing of gRPC."""

    def __init__(
        self, machine: Machine, hub: watch.WatchHub, writer: Writer, streams: Streams, figures: Figures
    ) -> None:
        self._machine = machine
        self._hub = hub
        self._writer = writer
        self._streams = streams
        self._figures = figures
        self._delays = Delays(time.monotonic)

    def methods(self) -> Iterator[Method]:
        """This service's RPCs."""
        base = "/hasys.v1.Resources/"
        yield Method(base + "Apply", api_pb2.ApplyRequest, api_pb2.ApplyResponse, self.apply)
        yield Method(base + "Get", api_pb2.GetRequest, pb.Object, self.get)
        yield Method(base + "List", api_pb2.ListRequest, api_pb2.ListResponse, self.list)
        yield Method(base + "Watch", api_pb2.WatchRequest, api_pb2.WatchResponse, stream=self.watch)
        yield Method(base + "Delete", api_pb2.DeleteRequest, api_pb2.DeleteResponse, self.delete)
        yield Method(base + "Report", api_pb2.ReportRequest, api_pb2.ReportResponse, self.report)

    # ------------------------------------------------------------ reads

    async def get(self, request: api_pb2.GetRequest, call: Call) -> pb.Object:
        """One object. Raises ``NotFound``."""
        return self._find(Ref.of_key(request.key))

    async def list(self, request: api_pb2.ListRequest, call: Call) -> api_pb2.ListResponse:
        """Objects of a kind and group, and the version to watch from."""
        if request.kind and request.kind not in KINDS:
            raise Invalid((), f"kind {request.kind[:40]!r} is unknown: use one of {', '.join(KINDS)}")
        return api_pb2.ListResponse(
            objects=self._machine.list(request.kind, request.group, request.limit),
            resource_version=self._machine.revision,
        )

    async def watch(self, request: api_pb2.WatchRequest, call: Call) -> AsyncIterator[api_pb2.WatchResponse]:
        """Changes as they are committed. Raises ``Relist`` when the version is out of reach."""
        for kind in request.kinds:
            if kind not in KINDS:
                raise Invalid((), f"kind {kind[:40]!r} is unknown: use one of {', '.join(KINDS)}")
        try:
            start = getattr(request, "from")  # a keyword of Python
            with self._streams.opened(call.caller):
                async for answer in self._hub.watch(request.kinds, request.group, start):
                    yield answer
        except watch.Relist as e:
            raise Relist(str(e)) from None
        except watch.Ended as e:
            raise Unavailable(str(e)) from None

    def _find(self, ref: Ref) -> pb.Object:
        if ref.kind not in KINDS:
            raise Invalid((), f"kind {ref.kind[:40]!r} is unknown: use one of {', '.join(KINDS)}")
        obj = self._machine.get(ref)
        if obj is None:
            where = f" in group {ref.group!r}" if ref.group else ""
            raise NotFound(f"{ref.kind} {ref.name!r} does not exist{where}")
        return obj

    # ------------------------------------------------------------ apply and delete

    async def apply(self, request: api_pb2.ApplyRequest, call: Call) -> api_pb2.ApplyResponse:
        """Put all objects or none. Raises ``Invalid`` with every fault, ``Conflict`` when an object that named its
        resource version changed."""
        call.caller.must_be_admin("apply objects")
        if len(request.objects) > OBJECTS:
            raise TooLarge(f"{len(request.objects)} objects at once: at most {OBJECTS}")
        if (version := self._done_before(call)) is not None:
            return self._applied_before(request, version)
        for obj in request.objects:
            fill_defaults(obj)
            if obj.HasField("cluster"):
                stored = self._machine.cluster()
                settle_timing(obj.cluster.spec, stored.spec if stored is not None else None)
        response, mutations = self._plan_apply(request)
        if request.dry_run or not mutations:
            response.resource_version = self._machine.revision
        else:
            response.resource_version = await self._writer.write(call, mutations)
        return response

    def _done_before(self, call: Call) -> int | None:
        """The resource version by which this very request was done when it was sent before: its answer was lost, and
        what others have changed since then stays. Raises what it was refused with."""
        answer = self._machine.answered(call.id)
        if answer is None:
            return None
        call.committed = True
        return told(answer)

    def _applied_before(self, request: api_pb2.ApplyRequest, version: int) -> api_pb2.ApplyResponse:
        response = api_pb2.ApplyResponse(resource_version=version)
        for obj in request.objects:
            ref = ref_of(obj)
            now = self._machine.get(ref)
            created = now is not None and inner(now).metadata.uid.startswith(f"{version:x}-")
            response.results.add(key=ref.key(), action="created" if created else "configured")
        return response

    def _plan_apply(self, request: api_pb2.ApplyRequest) -> tuple[api_pb2.ApplyResponse, Sequence[store_pb2.Mutation]]:
        pruned = self._pruned(request) if request.prune else []
        faults = check_objects(request.objects, self._machine, removed=frozenset(pruned))
        faults = faults or [
            Fault(ref_of(obj), "kind", level.refusal(f"kind {ref_of(obj).kind}", level.of_kind(ref_of(obj).kind)))
            for obj in request.objects
            if level.of_kind(ref_of(obj).kind) > self._machine.level
        ]
        if faults:
            raise Invalid(faults)
        response, mutations, conditions = api_pb2.ApplyResponse(), [], []
        for obj in request.objects:
            ref = ref_of(obj)
            action, mutation = self._plan_put(ref, obj)
            response.results.add(key=ref.key(), action=action)
            if action != "unchanged":
                mutations.append(mutation)
            elif mutation.expect_version:  # changes nothing, but must still hold when the others are committed
                conditions.append(mutation)
        if mutations:
            mutations += conditions
        mutations.sort(key=_groups_first)
        for ref in pruned:
            response.results.add(key=ref.key(), action="pruned")
            mutations.append(store_pb2.Mutation(delete=ref.key()))
        return response, mutations

    def _plan_put(self, ref: Ref, obj: pb.Object) -> tuple[str, store_pb2.Mutation]:
        """What happens to one object. Only a version that the client names makes the write conditional: what must hold
        between two that race, the state machine checks anyway."""
        old = self._machine.get(ref)
        asked = inner(obj).metadata.resource_version
        if old is None:
            if asked:
                raise Conflict(f"{ref}: was deleted since version {asked}: take resourceVersion out to create it")
            return "created", store_pb2.Mutation(put_spec=obj)
        before = inner(old)
        if asked and asked != before.metadata.resource_version:
            raise Conflict(
                f"{ref}: changed since version {asked} (now {before.metadata.resource_version}): read it again,"
                " or take resourceVersion out"
            )
        if before.metadata.HasField("deleting"):
            raise Conflict(f"{ref}: is being deleted: wait until it is gone")
        action = "unchanged" if same_intent(old, obj) else "configured"
        return action, store_pb2.Mutation(put_spec=obj, expect_version=asked)

    def _pruned(self, request: api_pb2.ApplyRequest) -> Sequence[Ref]:
        """Resources of the groups that the input names as ``Group``, which the input does not name."""
        named = {ref_of(obj) for obj in request.objects if obj.WhichOneof("kind")}
        return sorted(
            member
            for ref in named
            if ref.kind == "Group"
            for member, obj in self._machine.members_of(ref.name).items()
            if member not in named and not inner(obj).metadata.HasField("deleting")
        )

    async def delete(self, request: api_pb2.DeleteRequest, call: Call) -> api_pb2.DeleteResponse:
        """Ask for deletion; the object goes when no node can have it any more."""
        call.caller.must_be_admin("delete objects")
        if (version := self._done_before(call)) is not None:
            return api_pb2.DeleteResponse(resource_version=version)
        ref = Ref.of_key(request.key)
        old = self._find(ref)
        if not KINDS[ref.kind].applied or ref.kind == "Cluster":
            raise Invalid((), f"{ref}: {KINDS[ref.kind].plural} cannot be deleted")
        if inner(old).metadata.HasField("deleting"):
            return api_pb2.DeleteResponse(resource_version=self._machine.revision)
        faults = check_deletion(ref, self._machine)
        if faults:
            raise Invalid(faults)
        mutation = store_pb2.Mutation(delete=ref.key(), expect_version=request.resource_version)
        return api_pb2.DeleteResponse(resource_version=await self._writer.write(call, [mutation]))

    # ------------------------------------------------------------ report

    async def report(self, request: api_pb2.ReportRequest, call: Call) -> api_pb2.ReportResponse:
        """Record what a node sees. Stale items are refused one by one; the rest is stored."""
        call.caller.must_speak_for(request.node, "report")
        if request.HasField("figures") and self._machine.node(request.node) is not None:
            self._figures.put(request.node, request.figures)
        receipt = self._receipt(request, call)
        for attempt in range(REREADS):
            refused, mutations = plan_report(request, call.caller, self._machine, receipt)
            if not mutations:
                return api_pb2.ReportResponse(resource_version=self._machine.revision, refused=refused)
            try:
                version = await self._writer.write(call, mutations, part=attempt)
            except (Conflict, NotFound):
                if attempt == REREADS - 1:
                    raise
                continue
            return api_pb2.ReportResponse(resource_version=version, refused=refused)
        raise AssertionError("unreachable")

    def _receipt(self, request: api_pb2.ReportRequest, call: Call) -> Receipt:
        delay = 0.0
        known = self._machine.node(request.node) is not None
        if known and request.session and call.time_left is not None:
            spent = min(seconds(request.patience), OLDEST) - call.time_left
            delay = self._delays.of(request.node, request.session[:64], seconds(request.sent), spent)
        return Receipt(self._writer.name, delay)


def _groups_first(mutation: store_pb2.Mutation) -> bool:
    """Sorts what creates groups before what goes into them."""
    return not mutation.put_spec.HasField("group")


def same_intent(old: pb.Object, new: pb.Object) -> bool:
    """Nothing that users write differs: spec and labels."""
    before, after = inner(old), inner(new)
    if isinstance(before, pb.Event) or isinstance(after, pb.Event):
        return False
    return before.spec == after.spec and before.metadata.labels == after.metadata.labels
