"""Monitors as objects: what is refused and where, what a report of them does, what status shows."""

from __future__ import annotations

import pytest

from hasys.api import monitors
from hasys.api.auth import Caller
from hasys.api.kinds import Ref
from hasys.api.manifest import load
from hasys.api.rules import fill_defaults
from hasys.api.server.reports import plan_report
from hasys.api.validation import check_deletion, check_objects
from hasys.model.errors import Refused
from hasys.model.view import MonitorAction
from hasys.store.figures import FRESH, Figures
from hasys.store.picture import group_info
from hasys.v1 import api_pb2 as api
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb
from hasys.v1.store_pb2 import Mutation
from tests.unit.store.build import Log, group, vip

HEAD = "apiVersion: hasys/v1\nkind: Monitor\nmetadata: {name: m, group: web}\n"


@pytest.fixture
def log() -> Log:
    log = Log()
    for number, name in enumerate(("n1", "n2"), start=1):
        node = pb.Object()
        node.node.metadata.name = name
        node.node.spec.addresses.append(f"10.77.0.{number}")
        log.must(node)
    log.must(group("web"), vip())
    return log


def faults(spec: str, log: Log) -> list[str]:
    """What the client, or else the server, finds wrong with a monitor of this spec."""
    try:
        loaded = load([("f", f"{HEAD}spec: {spec}\n")])
    except Refused as e:
        return str(e).splitlines()
    for obj in loaded.objects:
        fill_defaults(obj)
    return [loaded.where(fault) for fault in check_objects(loaded.objects, log.machine)]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{}", "f:4: spec: must have one of process or"),
        ("{cpu: {limit: 9}, memory: {limit: 9}}", "f:4: spec: has both cpu and memory: give one of them"),
        ("{cpu: {limit: 101}}", "f:4: spec.cpu.limit: 101 is too large: at most 100"),
        ("{cpu: {}}", "f:4: spec.cpu.limit: is missing"),
        ("{cpu: {limit: 9}, failures: 0}", "f:4: spec.failures: 0 is too small: at least 1"),
        ("{cpu: {limit: 9}, interval: 10ms}", "f:4: spec.interval: 10ms is too short: at least 200ms"),
        ("{process: {}}", "f:4: spec.process: names nothing to watch: give names or patterns"),
        ("{network: {need: Any}}", "f:4: spec.network: names nothing to watch: give interfaces or addresses"),
        ("{ping: {}}", "f:4: spec.ping: names nothing to ask: give addresses, or gateway: true"),
        ("{processCount: {name: a}}", "f:4: spec.processCount: has no limit: give minimum, maximum or both"),
        (
            "{traffic: {interface: eth0, minimum: 2, maximum: 1}}",
            "f:4: spec.traffic.minimum: 2 is more than the maximum, 1",
        ),
        ("{volume: {device: /dev/sda, write: true}}", "f:4: spec.volume.device: a device has no files"),
        ("{tcp: {port: 80, send: x}}", "f:4: spec.tcp.send: nothing is expected in return: give expect too"),
        ("{http: {url: ftp://a}}", "f:4: spec.http.url: is no URL of a web server"),
        ("{http: {url: 'http://me:secret@a'}}", "f:4: spec.http.url: must not hold a password"),
        ("{http: {url: 'http://a', statuses: [99]}}", "f:4: spec.http.statuses[0]: 99 is no HTTP status: 100 to 599"),
        ("{group: {name: web, phases: [Up]}}", "f:4: spec.group.phases[0]: 'Up' is unknown: use Stopped"),
        ("{hasys: {processes: [Stare]}}", "f:4: spec.hasys.processes[0]: 'Stare' is unknown: use one of"),
        ("{http: {url: 'http://a', statuses: [ok]}}", "f:4: spec.http.statuses[0]: expected a whole number, got"),
        ("{group: {name: none}}", "f:4: spec.group.name: group 'none' does not exist"),
        ("{virtualIP: {resources: [app]}}", "f:4: spec.virtualIP.resources[0]: the group has no 'app': it has ip"),
        ("{replication: {volume: ip}}", "f:4: spec.replication.volume: the group has no 'ip': it has none"),
        ("{replication: {}}", "f:4: spec.replication.volume: is missing"),
        ("{replication: {volume: ip, inSync: 101}}", "f:4: spec.replication.inSync: 101 is too large: at most 100"),
        ("{cpu: {limit: 9}, on: Standby, action: Stop}", "f:4: spec.action: the group does not run on a Standby"),
        ("{script: {command: [a], minimum: 2, maximum: 1}}", "f:4: spec.script.minimum: 2 is more than the maximum, 1"),
        (
            "{mount: {paths: [/a], unmounted: true, readOnlyAllowed: true}}",
            "f:4: spec.mount.unmounted: what is not mounted is not read-only either",
        ),
        ("{virtualIP: {}, on: All}", "f:4: spec.on: a virtual IP is on the Active only: take out on: All"),
        (
            "{cpu: {limit: 9}, action: Restart}",
            "f:4: spec.restart: is missing: action Restart needs a resource or a command",
        ),
        ("{cpu: {limit: 9}, restart: {resource: ip}}", "f:4: spec.restart: is never used: set action: Restart"),
        (
            "{cpu: {limit: 9}, action: Restart, restart: {resource: x}}",
            "f:4: spec.restart.resource: the group has no 'x': it has ip",
        ),
        (
            "{cpu: {limit: 9}, action: Restart, restart: {resource: ip, retries: 100}}",
            "f:4: spec.restart.retries: 100 is too large: at most 99",
        ),
        (
            "{cpu: {limit: 9}, action: Restart, restart: {resource: ip, startTime: 2h}}",
            "f:4: spec.restart.startTime: 2h is too long: at most 1h",
        ),
        (
            "{cpu: {limit: 9}, action: Restart, on: All, restart: {command: [a]}}",
            "f:4: spec.on: a restart happens where the group runs",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(spec: str, fault: str, log: Log) -> None:
    found = faults(spec, log)
    assert any(line.startswith(fault) for line in found), found


@pytest.mark.parametrize(
    "spec",
    [
        "{cpu: {limit: 90}, failures: 5, startDelay: 1m, action: Failover}",
        "{virtualIP: {}, action: Restart, restart: {resource: ip}}",
        "{service: {unit: a.service, crashed: Restart}, restart: {command: [systemctl, restart, a]}}",
        "{hasys: {processes: [Store, Guard]}, on: All}",
        "{http: {url: 'http://a/', statuses: [200, 204]}}",
    ],
)
def test_what_can_work_is_accepted(spec: str, log: Log) -> None:
    assert faults(spec, log) == []


def monitor(name: str = "m", **spec: object) -> pb.Object:
    obj = pb.Object()
    obj.monitor.metadata.name, obj.monitor.metadata.group = name, "web"
    obj.monitor.spec.CopyFrom(mpb.MonitorSpec(cpu=mpb.LoadMonitor(limit=90), **spec))  # type: ignore[arg-type]
    return obj


GATED = """apiVersion: hasys/v1
kind: Group
metadata: {name: web}
spec: {nodes: [{name: n1}, {name: n2}], failover: {gates: [m]}}
"""


@pytest.mark.parametrize(
    ("monitor", "fault"),
    [
        ("", "f:4: spec.failover.gates[0]: the group has no monitor 'm': apply it together with the group"),
        (
            "{cpu: {limit: 9}}",
            "f:4: spec.failover.gates[0]: monitor 'm' looks on the Active alone: give it on: Standby",
        ),
        ("{cpu: {limit: 9}, on: Standby}", ""),
        ("{cpu: {limit: 9}, on: All}", ""),
    ],
)
def test_a15_a_gate_is_a_monitor_of_the_group_that_looks_where_the_group_is_not(
    monitor: str, fault: str, log: Log
) -> None:
    text = GATED + (f"---\n{HEAD}spec: {monitor}\n" if monitor else "")
    loaded = load([("f", text)])
    for obj in loaded.objects:
        fill_defaults(obj)
    found = [loaded.where(one) for one in check_objects(loaded.objects, log.machine)]
    assert [line[: len(fault)] for line in found] == ([fault] if fault else [])


def test_a_monitor_shares_the_names_of_its_group_and_changes_no_plan(log: Log) -> None:
    before = log.machine.group("web")
    log.must(monitor())
    after = log.machine.group("web")
    assert before is not None
    assert after is not None
    assert after.status.resources_version == before.status.resources_version
    assert [f.field for f in check_objects([monitor("ip")], log.machine)] == ["metadata.name"]
    assert not log.put(monitor("ip")).done


def test_a_monitor_is_gone_at_once_when_it_or_its_group_is_deleted(log: Log) -> None:
    log.must(monitor())
    log.assign(node="n1", epoch=1)
    assert check_deletion(Ref("Monitor", "web", "m"), log.machine) == []
    assert log.apply(Mutation(delete=Ref("Monitor", "web", "m").key())).done
    assert log.machine.get(Ref("Monitor", "web", "m")) is None
    log.must(monitor())
    assert log.apply(Mutation(delete=Ref("Group", "", "web").key())).done
    assert log.machine.get(Ref("Monitor", "web", "m")) is None
    assert log.machine.group("web") is not None  # its resources have to be stopped first


def report(log: Log, node: str, **result: object) -> list[str]:
    """Report a result and write what follows; returns what was refused."""
    request = api.ReportRequest(node=node)
    request.monitors.add(key=Ref("Monitor", "web", "m").key(), result=mpb.MonitorResult(**result))  # type: ignore[arg-type]
    refused, mutations = plan_report(request, Caller("node", node), log.machine)
    if mutations:
        assert log.apply(*mutations).done
    return refused


def stored(log: Log) -> dict[str, str]:
    obj = log.machine.get(Ref("Monitor", "web", "m"))
    assert obj is not None
    return {node: result.state for node, result in obj.monitor.status.nodes.items()}


def test_results_of_several_nodes_stand_beside_each_other(log: Log) -> None:
    log.must(monitor())
    assert report(log, "n1", state="Ok") == []
    assert report(log, "n2", state="Failed", action="Failover", message="two\nlines") == []
    assert stored(log) == {"n1": "Ok", "n2": "Failed"}
    before = log.machine.revision
    report(log, "n1", state="Ok")
    assert log.machine.revision == before  # nothing new is not written


def test_two_reports_that_race_do_not_undo_each_other(log: Log) -> None:
    log.must(monitor())
    requests = []
    for node in ("n1", "n2"):
        request = api.ReportRequest(node=node)
        request.monitors.add(key=Ref("Monitor", "web", "m").key(), result=mpb.MonitorResult(state="Ok"))
        requests.append(plan_report(request, Caller("node", node), log.machine)[1])
    assert log.apply(*requests[0]).done
    late = log.apply(*requests[1])
    assert (late.done, late.code) == (False, "Conflict")  # the server reads again and repeats


@pytest.mark.parametrize(
    ("node", "result", "why"),
    [
        ("n1", {"state": "Fine"}, "state 'Fine' is none of"),
        ("n1", {"state": "Failed", "action": "Explode"}, "action 'Explode' is none of"),
        ("n3", {"state": "Ok"}, "node n3 is none of the nodes of its group"),
        ("n1", {"state": "Ok", "epoch": 9}, "epoch 9 was never assigned"),
    ],
)
def test_a_result_that_cannot_be_is_refused(node: str, result: dict[str, object], why: str, log: Log) -> None:
    log.must(monitor())
    (refused,) = report(log, node, **result)
    assert why in refused


def test_placement_sees_what_failed_and_nothing_else(log: Log) -> None:
    log.must(monitor(on=mpb.MonitorSpec.All, interval={"seconds": 5}, timeout={"seconds": 3}))
    report(log, "n1", state="Ok")
    report(log, "n2", state="Failed", action="Failover", message="busy")
    web = log.machine.group("web")
    assert web is not None
    info = group_info(web, log.machine.members_of("web"))
    (finding,) = info.findings
    assert (finding.monitor, finding.node, finding.action) == ("m", "n2", MonitorAction.FAILOVER)
    assert finding.patience == 8.0
    assert [r.name for r in info.resources] == ["ip"]


def test_figures_grow_old_and_are_bounded() -> None:
    now = 0.0
    figures = Figures(lambda: now)
    assert figures.of("n1") is None
    many = mpb.NodeFigures(cpu=5.0, monitors=[mpb.MonitorFigure(name="m")] * 10_000)
    figures.put("n1", many)
    kept = figures.of("n1")
    assert kept is not None
    assert (kept.cpu, len(kept.monitors)) == (5.0, 4000)
    now = FRESH
    assert figures.of("n1") is None


def test_every_monitor_of_the_schema_says_what_it_watches() -> None:
    spec = mpb.MonitorSpec(virtual_ip=mpb.VirtualIPMonitor())
    assert monitors.watched(spec) == "virtualIP"
    assert monitors.watched(mpb.MonitorSpec()) == ""
    assert len(monitors.WATCHES) == 18
