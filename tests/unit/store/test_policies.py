"""What the store keeps for the policies of a group, and what placement sees of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hasys.api.kinds import Ref
from hasys.lease.facts import NodeFacts
from hasys.lease.wire import Health
from hasys.model.view import Assignment, Limit, Reboot
from hasys.placement.effects import Batch, SetAlone, SetAssignment, SetFailovers, SetReboot
from hasys.store.picture import group_info, node_info
from hasys.store.writing import command_of
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb
from tests.unit.store.build import Log, group


@pytest.fixture
def log() -> Log:
    made = Log()
    node = pb.Object()
    node.node.metadata.name = "n1"
    made.must(node, group("web"))
    return made


def decided(log: Log, kind: str, name: str, *effects: SetAlone | SetAssignment | SetFailovers | SetReboot) -> None:
    command = command_of(Batch(kind, name, effects), log.machine)
    assert command is not None
    assert log.apply(*command.mutations).done


def test_what_was_decided_is_read_back_as_it_was_written(log: Log) -> None:
    left = Assignment("", 4, cause="no node", last_node="n1")
    decided(log, "Group", "web", SetAssignment("web", left), SetFailovers("web", (2, 3)), SetAlone("web", "n2: Lost"))
    web = log.machine.group("web")
    assert web is not None
    info = group_info(web, {})
    assert (info.assignment.last, sorted(info.failovers), info.alone) == ("n1", [2, 3], "n2: Lost")
    twice = Assignment("n1", 1).moved("n2", "lost", revoke=True).moved("n3", "lost", revoke=True)
    decided(log, "Group", "web", SetAssignment("web", replace(twice, epoch=7)))
    assert group_info(log.machine.group("web") or pb.Group(), {}).assignment == replace(twice, epoch=7)
    for wanted in (Reboot("b.7", "web", 3, "it failed"), Reboot("b.7", "web", 3, "it failed", due=True), None):
        decided(log, "Node", "n1", SetReboot("n1", wanted))
        stored = log.machine.get(Ref("Node", "", "n1"))
        assert stored is not None
        assert node_info(stored.node, NodeFacts(0.0), connected=True).reboot == wanted


def test_settings_that_an_older_client_left_out_have_their_defaults() -> None:
    web = group("web").group
    assert (group_info(web, {}).limit, group_info(web, {}).failback) == (None, None)
    web.spec.failover.limit.SetInParent()
    web.spec.failover.failback.SetInParent()
    info = group_info(web, {})
    assert (info.limit, info.failback) == (Limit(3, 600.0, 3600.0), 600.0)


def test_a_disk_that_takes_no_writes_reaches_placement() -> None:
    facts = NodeFacts(0.0, health=Health(disk_failed=True, message="disk: No space left on device"))
    assert node_info(pb.Node(), facts, connected=False).disk_failed


RESULTS = {
    "it has not looked yet": None,
    "": mpb.MonitorResult(state="Ok", observed_generation=1),
    "less than 95": mpb.MonitorResult(state="Failed", message="less than 95", observed_generation=1),
    "Restarting": mpb.MonitorResult(state="Restarting", observed_generation=1),
}


@pytest.mark.parametrize("why", RESULTS)
def test_a15_a_gate_is_open_while_its_monitor_is_well(why: str) -> None:
    web, gate = group("web").group, pb.Object()
    del web.spec.nodes[:]
    web.spec.nodes.add(name="n2")
    web.spec.failover.gates.append("replica")
    gate.monitor.metadata.name, gate.monitor.metadata.group, gate.monitor.metadata.generation = "replica", "web", 1
    if (result := RESULTS[why]) is not None:
        gate.monitor.status.nodes["n2"].CopyFrom(result)
    members = {Ref("Monitor", "web", "replica"): gate}
    assert group_info(web, members).closed == ({"n2": f"gate replica: {why}"} if why else {})
    assert group_info(web, {}).closed == {"n2": "gate replica: there is no such monitor"}


def test_a15_what_a_gate_said_under_other_settings_does_not_count() -> None:
    web, gate = group("web").group, pb.Object()
    web.spec.failover.gates.append("replica")
    gate.monitor.metadata.generation = 2
    for node in web.spec.nodes:
        gate.monitor.status.nodes[node.name].CopyFrom(mpb.MonitorResult(state="Ok", observed_generation=1))
    closed = group_info(web, {Ref("Monitor", "web", "replica"): gate}).closed
    assert closed == {node.name: "gate replica: it has not looked yet" for node in web.spec.nodes}
