"""Decisions become conditional writes of a leader, and of nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hasys.api.convert import duration
from hasys.api.kinds import wrap
from hasys.config import Member, NodeConfig
from hasys.lease.facts import NodeFacts
from hasys.lease.wire import Health
from hasys.model.timing import BY_NAME, PROFILES
from hasys.model.view import View
from hasys.store import controllers, picture
from hasys.store.assigned import Assigned
from hasys.store.controllers import Controllers
from hasys.store.machine import Machine
from hasys.store.memory import MemoryEngine
from hasys.store.status import StatusSource
from hasys.v1 import objects_pb2 as pb
from hasys.v1 import store_pb2
from tests.unit.store.build import delay

MEMBERS = (
    Member("n1", "Voter", ("10.0.0.1",)),
    Member("n2", "Voter", ("10.0.0.2",)),
    Member("w", "Witness", ("10.0.0.3",)),
)


def config() -> NodeConfig:
    here = Path("/nowhere")
    return NodeConfig(
        path=here, cluster="demo", cluster_id="id-1", name="n1", members=MEMBERS, profile="default", ca=here,
        certificate=here, key=here, lease_secret=here, node_secret=here, data_dir=here, run_dir=here,
    )  # fmt: skip


class FakeLeases:
    """Guards as the test wants them: heard at every look, or silent."""

    def __init__(self) -> None:
        self.alive = {"n1", "n2"}
        self.holding: dict[str, frozenset[str]] = {}
        self.released: dict[str, dict[str, int]] = {}
        self.granted: list[tuple[str, str, int, float]] = []

    def facts(self, now: float) -> Mapping[str, NodeFacts]:
        return {
            name: NodeFacts(
                0.0, last_heard=now, confirmed=now, boot="b1", confirming=True, lease_valid=True, remaining=0.9,
                released=self.released.get(name, {}), health=Health(agent=True, version="0.1.0"),
            )
            for name in self.alive
        }  # fmt: skip

    def may_hold(self, group: str, now: float) -> frozenset[str]:
        return self.holding.get(group, frozenset())

    def settled(self, now: float) -> bool:
        return True

    def handed(self) -> list[tuple[str, str, int, float]]:
        found, self.granted = self.granted, []
        return found


class Bench:
    """A machine, an engine in memory and controllers that run."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.engine = MemoryEngine(self.machine)
        self.leases = FakeLeases()
        self.controllers = Controllers(config(), self.machine, self.engine, self.leases)
        self.running = asyncio.create_task(self.controllers.run())

    async def write(self, *mutations: store_pb2.Mutation) -> None:
        command = store_pb2.Command(mutations=mutations)
        applied = await self.engine.propose(command.SerializeToString(), timeout=1)
        assert store_pb2.Outcome.FromString(applied.answer).done

    async def apply_group(self, name: str = "web", nodes: tuple[str, ...] = ("n1", "n2")) -> None:
        spec = pb.GroupSpec(nodes=[pb.GroupNode(name=n, priority=100 - i) for i, n in enumerate(nodes)])
        await self.write(store_pb2.Mutation(put_spec=wrap(pb.Group(metadata=pb.Metadata(name=name), spec=spec))))

    async def ask(self, name: str, kind: pb.OperationSpec.Type.ValueType, **spec: str) -> None:
        operation = pb.Operation(metadata=pb.Metadata(name=name), spec=pb.OperationSpec(type=kind, **spec))  # type: ignore[arg-type]
        await self.write(store_pb2.Mutation(put_spec=wrap(operation)))

    async def rest(self) -> None:
        """Until the controllers have nothing left to decide."""
        await asyncio.sleep(0)
        while not self.controllers.at_rest:
            assert not self.running.done(), self.running.exception()
            await asyncio.sleep(0)

    def status(self, name: str = "web") -> pb.GroupStatus:
        group = self.machine.group(name)
        assert group is not None
        return group.status

    def operation(self, name: str) -> pb.OperationStatus:
        return next(o.operation for o in self.machine.list("Operation") if o.operation.metadata.name == name).status

    def reasons(self) -> list[str]:
        return [o.event.reason for o in self.machine.list("Event")]


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    it = Bench()
    await it.rest()
    try:
        yield it
        assert not it.running.done(), it.running.exception()
    finally:
        it.running.cancel()


@pytest.mark.anyio
async def test_the_first_leader_writes_the_cluster_and_its_members_once() -> None:
    async with bench() as b:
        cluster = b.machine.cluster()
        assert cluster is not None
        assert (cluster.spec.profile, cluster.status.cluster_id) == ("default", "id-1")
        assert [o.node.metadata.name for o in b.machine.list("Node")] == ["n1", "n2", "w"]
        written = b.machine.revision
        b.controllers.wake()
        await b.rest()
        assert b.machine.revision == written


@pytest.mark.anyio
async def test_a_new_group_is_given_to_its_preferred_node_with_an_event() -> None:
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        assignment = b.status().assignment
        assert (assignment.node, assignment.epoch) == ("n1", 1)
        assert "GroupAssigned" in b.reasons()


@pytest.mark.anyio
async def test_a_member_that_does_not_lead_writes_nothing() -> None:
    async with bench() as b:
        b.engine.elect("n2")
        await b.rest()
        written = b.machine.revision
        b.engine.elect("n1")
        b.engine.elect("n2")
        b.controllers.wake()
        await b.rest()
        assert b.machine.revision == written
        assert b.controllers.view(asyncio.get_running_loop().time()) is None


@pytest.mark.anyio
async def test_a_switchover_is_written_with_its_start_in_one_transaction() -> None:
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        b.leases.holding["web"] = frozenset({"n1"})
        await b.ask("switchover-1", pb.OperationSpec.Switchover, group="web", node="n2", actor="admin")
        await b.rest()
        a = b.status().assignment
        assert (a.node, a.epoch, a.previous_node, a.previous_epoch, a.revoked) == ("n2", 2, "n1", 1, False)
        assert a.operation == "switchover-1"
        running = b.operation("switchover-1")
        assert (running.state, running.epoch) == ("Running", 2)

        b.leases.holding["web"] = frozenset({"n2"})
        b.controllers.wake()
        await b.rest()
        ended = b.operation("switchover-1")
        assert ended.state == "Succeeded"
        assert ended.HasField("duration")
        assert b.status().assignment.previous_node == "", "the old node is proven to be out of it"


@pytest.mark.anyio
async def test_a_refused_operation_ends_with_its_reason() -> None:
    async with bench() as b:
        await b.apply_group()
        await b.ask("switchover-1", pb.OperationSpec.Switchover, group="web", node="w", actor="admin")
        await b.rest()
        ended = b.operation("switchover-1")
        assert ended.state == "Failed"
        assert "w is not one of the nodes of web" in ended.message


@pytest.mark.anyio
async def test_draining_is_kept_in_the_spec_and_a_shutdown_in_the_status() -> None:
    async with bench() as b:
        await b.ask("drain-1", pb.OperationSpec.Drain, node="n1", actor="admin")
        await b.ask("drain-2", pb.OperationSpec.Drain, node="n2", reason="shutdown", actor="node/n2")
        await b.rest()
        n1, n2 = b.machine.node("n1"), b.machine.node("n2")
        assert n1 is not None
        assert n2 is not None
        assert n1.spec.drained
        assert not n2.spec.drained
        assert n2.status.shutdown_boot_id == "b1"
        assert b.operation("drain-1").state == b.operation("drain-2").state == "Succeeded"


@pytest.mark.anyio
async def test_a_deleted_group_is_purged_when_nobody_can_hold_it() -> None:
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        b.leases.holding["web"] = frozenset({"n1"})
        await b.write(store_pb2.Mutation(delete=pb.Key(kind="Group", name="web")))
        await b.rest()
        assert b.status().assignment.previous_node == "n1", "its node stops it in order"
        b.leases.holding["web"] = frozenset()
        b.controllers.wake()
        await b.rest()
        assert b.machine.group("web") is None
        assert "GroupDeleted" in b.reasons()


@pytest.mark.anyio
async def test_the_larger_ttl_counts_until_older_grants_are_over() -> None:
    async with bench() as b:
        cluster = pb.Cluster()
        known = b.machine.cluster()
        assert known is not None
        cluster.CopyFrom(known)
        cluster.spec.profile = "fast"
        cluster.spec.ClearField("timing")
        await b.write(store_pb2.Mutation(put_spec=wrap(cluster)))
        changed = b.machine.cluster()
        assert changed is not None
        assert changed.status.ttl_max == duration(BY_NAME["default"].ttl)
        view = b.controllers.view(0.0)
        assert view is not None
        assert view.timing == PROFILES["fast"].patient(BY_NAME["default"].ttl), "guards still keep the longer periods"
        await b.rest()
        lowered = b.machine.cluster()
        assert lowered is not None
        assert lowered.status.ttl_max == duration(PROFILES["fast"].ttl)


@pytest.mark.anyio
async def test_status_shows_what_the_contract_asks_for() -> None:
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        loop = asyncio.get_running_loop()
        source = StatusSource("n1", b.machine, b.engine, b.leases, Assigned(b.machine), b.controllers, loop.time)
        status = source()
        assert (status.cluster.name, status.cluster.leader, status.cluster.quorum) == ("demo", "n1", True)
        states = {n.name: (n.role, n.state) for n in status.nodes}
        assert states == {"n1": ("Voter", "Ready"), "n2": ("Voter", "Ready"), "w": ("Witness", "Lost")}
        web = status.groups[0]
        assert (web.active, web.epoch, web.phase, dict(web.nodes)) == (
            "n1", 1, "Running", {"n1": "Active", "n2": "Standby"},
        )  # fmt: skip
        assert not web.redundant, "without the witness, the loss of the Active would end the majority"


@pytest.mark.anyio
async def test_without_a_leader_status_claims_nothing_that_this_member_does_not_see() -> None:
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        loop = asyncio.get_running_loop()
        source = StatusSource("n1", b.machine, b.engine, b.leases, Assigned(b.machine), b.controllers, loop.time)
        b.engine.elect(None)
        status = source()
        assert not status.cluster.quorum
        assert {n.name: n.state for n in status.nodes} == {"n1": "NotReady", "n2": "Lost", "w": "Lost"}
        web = status.groups[0]
        assert (web.active, web.phase, dict(web.nodes)) == ("", "Blocked", {})
        assert web.reason == "n1 sees no majority; last recorded: Running on n1"


@pytest.mark.anyio
async def test_a_new_leader_of_a_large_store_reads_it_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats of the same process go on meanwhile."""
    monkeypatch.setattr(picture, "SLICE", 0.0)
    async with bench() as b:
        for number in range(20):
            await b.apply_group(f"g{number}")
        await b.rest()
        turns = 0

        async def heartbeat() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beating = asyncio.create_task(heartbeat())
        fresh = picture.Picture("n1", b.machine, b.engine, b.leases)
        await fresh.refresh()
        beating.cancel()
        assert turns >= 20
        assert list(fresh.read()) == []


@pytest.mark.anyio
async def test_of_two_nodes_status_names_the_policy_and_promises_no_bound() -> None:
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        loop = asyncio.get_running_loop()

        class ByTokens:
            read = b.controllers.read

            def view(self, now: float) -> View | None:
                seen = b.controllers.view(now)
                return None if seen is None else replace(seen, by_tokens=True)

        source = StatusSource("n1", b.machine, b.engine, b.leases, Assigned(b.machine), ByTokens(), loop.time, "safe")
        status = source()
        assert status.cluster.policy == "safe"
        assert not status.cluster.HasField("failover_bound")
        assert not status.groups[0].HasField("failover_bound")
        b.engine.elect(None)
        assert "nodes keep what they hold" in source().groups[0].reason


@pytest.mark.anyio
async def test_changes_of_resources_wait_for_one_another_and_an_operation_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controllers, "CALM", 3600.0)
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        looks: list[float] = []
        view = b.controllers.view

        def counted(now: float) -> View | None:
            looks.append(now)
            return view(now)

        monkeypatch.setattr(b.controllers, "view", counted)

        for seconds in (1, 2, 3):
            await b.write(store_pb2.Mutation(put_spec=delay("d", seconds=seconds)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert looks == []

        await b.ask("switchover-1", pb.OperationSpec.Switchover, group="web", node="w", actor="admin")
        await b.rest()
        assert looks
        assert b.operation("switchover-1").state == "Failed"


@pytest.mark.anyio
async def test_a_member_that_does_not_lead_leaves_news_of_resources_until_it_leads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, spacing in {"SPACING": 0.0, "CALM": 0.0, "FOLLOWING": 3600.0}.items():
        monkeypatch.setattr(controllers, name, spacing)
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        b.engine.elect("n2")
        await b.rest()
        for seconds in (1, 2, 3):
            await b.write(store_pb2.Mutation(put_spec=delay("d", seconds=seconds)))
        for _ in range(10):
            await asyncio.sleep(0)
        unread = list(b.controllers.read())
        assert len(unread) == 1

        b.engine.elect("n1")
        await b.rest()
        assert list(b.controllers.read()) == []


@pytest.mark.anyio
async def test_the_first_grant_of_an_epoch_is_recorded_at_its_time_with_what_it_waited_for() -> None:
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        a = b.status().assignment
        now = asyncio.get_running_loop().time()
        b.leases.granted = [("web", a.node, a.epoch, now - 3600.0), ("web", "n2", 77, now), ("gone", "n1", 1, now)]
        b.controllers.wake()
        await b.rest()
        (event,) = [o.event for o in b.machine.list("Event") if o.event.reason == "GroupGranted"]
        (given,) = [o.event for o in b.machine.list("Event") if o.event.reason == "GroupAssigned"]
        assert (event.node, event.epoch, event.cause, event.clock) == (a.node, a.epoch, "nobody else held it", "n1")
        assert 3000 < (given.time.ToNanoseconds() - event.time.ToNanoseconds()) / 1e9 <= 3600


@pytest.mark.anyio
async def test_what_comes_to_a_group_that_was_fenced_while_it_was_empty_can_be_deleted() -> None:
    async with bench() as b:
        await b.apply_group()
        await b.rest()
        b.leases.released["n1"] = {"web": 1}
        b.engine.elect("n2")
        await b.rest()
        b.engine.elect("n1")  # a majority was missing: a new leader finds it fenced
        await b.rest()
        assert (b.status().assignment.node, b.status().assignment.epoch, b.status().phase) == ("n1", 2, "Running")

        pause = delay("pause")
        await b.write(store_pb2.Mutation(put_spec=pause))
        for state, gone in (("Running", False), ("Stopped", True)):
            pause.delay.status.CopyFrom(pb.ResourceStatus(node="n1", epoch=2, state=state, gone=gone))
            await b.write(store_pb2.Mutation(put_status=pause))
            await b.rest()
            assert b.status().phase == "Running"
            if not gone:
                await b.write(store_pb2.Mutation(delete=pb.Key(kind="Delay", group="web", name="pause")))
        assert b.machine.list("Delay") == []
