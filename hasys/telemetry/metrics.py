"""Every metric that hasys exports: one table, from which the instruments, the tests and docs/reference/metrics.md come.

Gauges and counters are read from one status of the cluster; histograms are fed by what was recorded since this process
began. Names end in their unit, as Prometheus has it. Nothing here imports OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from hasys.api.convert import seconds
from hasys.v1 import api_pb2 as api

Sample = tuple[tuple[str, ...], float]
"""Values of the labels, and the value."""
Read = Callable[[api.StatusResponse], Iterator[Sample]]


class Kind(StrEnum):
    """Of a metric, as Prometheus names them."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    read: Read | None = None
    """From a status; None: fed by events."""

    @property
    def unit(self) -> str:
        """In the notation of OpenTelemetry (UCUM); empty for counts, ratios and what is just true or false."""
        return "s" if self.name.endswith("_seconds") else ""


# ---------------------------------------------------------------- cluster
def _quorum(status: api.StatusResponse) -> Iterator[Sample]:
    yield (), float(status.cluster.quorum)


def _leader(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        yield (node.name,), float(node.name == status.cluster.leader)


def _term(status: api.StatusResponse) -> Iterator[Sample]:
    yield (), float(status.cluster.term)


def _voters(status: api.StatusResponse) -> Iterator[Sample]:
    yield (), float(status.cluster.voters)


def _commits(status: api.StatusResponse) -> Iterator[Sample]:
    if status.cluster.HasField("commits"):
        yield (status.cluster.leader,), float(status.cluster.commits.count)


def _commit_latency(status: api.StatusResponse) -> Iterator[Sample]:
    told = status.cluster.commits
    if told.count:
        for quantile, value in (("0.5", told.median), ("0.9", told.p90), ("0.99", told.p99), ("1", told.longest)):
            yield (status.cluster.leader, quantile), seconds(value)


# ---------------------------------------------------------------- nodes
def _node_state(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        yield (node.name, node.role, node.state), 1.0


def _node_ready(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        yield (node.name,), float(node.state == "Ready")


def _lease_valid(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        if node.HasField("lease"):
            yield (node.name,), float(node.lease.valid)


def _lease_remaining(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        if node.HasField("lease"):
            yield (node.name,), seconds(node.lease.remaining)


def _guard_armed(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        if node.HasField("guard"):
            yield (node.name,), float(node.guard.armed)


def _guard_lag(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        if node.HasField("guard"):
            yield (node.name,), seconds(node.guard.lag)


def _cpu(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        if node.HasField("figures"):
            yield (node.name,), node.figures.cpu / 100


def _memory(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        if node.HasField("figures"):
            yield (node.name,), node.figures.memory / 100


def _processes(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        if node.HasField("figures"):
            yield (node.name,), float(node.figures.processes)


def _received(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        for interface, traffic in sorted(node.figures.traffic.items()):
            yield (node.name, interface), traffic.received


def _sent(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        for interface, traffic in sorted(node.figures.traffic.items()):
            yield (node.name, interface), traffic.sent


def _networks(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        yield (node.name,), float(len(node.networks) + len(node.cut))


# ---------------------------------------------------------------- groups
def _group_active(status: api.StatusResponse) -> Iterator[Sample]:
    for group in status.groups:
        for node, role in sorted(group.nodes.items()):
            yield (group.name, node), float(role == "Active")


def _group_phase(status: api.StatusResponse) -> Iterator[Sample]:
    for group in status.groups:
        yield (group.name, group.phase), 1.0


def _group_epoch(status: api.StatusResponse) -> Iterator[Sample]:
    for group in status.groups:
        yield (group.name,), float(group.epoch)


def _group_redundant(status: api.StatusResponse) -> Iterator[Sample]:
    for group in status.groups:
        yield (group.name,), float(group.redundant)


def _group_paused(status: api.StatusResponse) -> Iterator[Sample]:
    for group in status.groups:
        yield (group.name,), float(group.paused)


def _group_bound(status: api.StatusResponse) -> Iterator[Sample]:
    for group in status.groups:
        if group.HasField("failover_bound"):
            yield (group.name,), seconds(group.failover_bound)


def _resource_state(status: api.StatusResponse) -> Iterator[Sample]:
    for group in status.groups:
        for one in group.resources:
            yield (group.name, one.kind, one.name, one.node, one.state), 1.0


def _monitor_ok(status: api.StatusResponse) -> Iterator[Sample]:
    for group in status.groups:
        for one in group.monitors:
            if one.node:
                yield (group.name, one.name, one.node, one.watches), float(one.state == "Ok")


def _monitor_value(status: api.StatusResponse) -> Iterator[Sample]:
    for node in status.nodes:
        for figure in node.figures.monitors:
            yield (figure.group, figure.name, node.name, figure.unit), figure.value


G, K, H = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM

UP = Metric("hasys_up", G, (), "1: a server of the cluster answered just now. Without it there are no other figures.")
FAILOVERS = Metric(
    "hasys_failover_duration_seconds", H, ("group", "what", "served"),
    "From the last sign of life (or the order) to the word that the group runs, or does not; what: failover, move, "
    "restart, start, adoption.",
)  # fmt: skip
DETECTIONS = Metric(
    "hasys_failover_detection_seconds", H, ("group", "what"),
    "The part of it until the decision: how long the trouble lasted before it counted.",
)  # fmt: skip
EVENTS = Metric(
    "hasys_events_total", K, ("type", "reason"), "Events of docs/reference/events.md, counted since this process began."
)

TABLE = (
    UP,
    Metric("hasys_cluster_quorum", G, (), "1: a majority answers the leader.", _quorum),
    Metric("hasys_cluster_leader", G, ("node",), "1 for the Raft leader, 0 for the others.", _leader),
    Metric("hasys_cluster_term", G, (), "Raft term: it grows with each election.", _term),
    Metric("hasys_cluster_voters", G, (), "Members that vote.", _voters),
    Metric("hasys_raft_commits_total", K, ("node",), "Writes since this leader's process began.", _commits),
    Metric(
        "hasys_raft_commit_latency_seconds", G, ("node", "quantile"),
        "From the proposal of a write until it is on the disks of a majority and applied: of the last 512.",
        _commit_latency,
    ),
    Metric("hasys_node_state", G, ("node", "role", "state"), "1 for the state that the node is in.", _node_state),
    Metric("hasys_node_ready", G, ("node",), "1: the node is Ready.", _node_ready),
    Metric("hasys_node_lease_valid", G, ("node",), "1: the node's lease runs.", _lease_valid),
    Metric("hasys_node_lease_remaining_seconds", G, ("node",), "How long it runs if nothing renews it.",
           _lease_remaining),
    Metric("hasys_node_networks_lost", G, ("node",), "Networks of the node that are not well.", _networks),
    Metric("hasys_guard_armed", G, ("node",), "1: the guard can fence.", _guard_armed),
    Metric("hasys_guard_lag_seconds", G, ("node",), "How late the guard's loop ran at worst, lately.", _guard_lag),
    Metric("hasys_node_cpu_ratio", G, ("node",), "Of all processors, 0 to 1.", _cpu),
    Metric("hasys_node_memory_ratio", G, ("node",), "Of the memory, 0 to 1.", _memory),
    Metric("hasys_node_processes", G, ("node",), "Processes on the node.", _processes),
    Metric("hasys_network_received_bytes_per_second", G, ("node", "interface"), "Traffic in.", _received),
    Metric("hasys_network_sent_bytes_per_second", G, ("node", "interface"), "Traffic out.", _sent),
    Metric("hasys_group_active", G, ("group", "node"), "1 on the node that is Active for the group.", _group_active),
    Metric("hasys_group_phase", G, ("group", "phase"), "1 for the phase that the group is in.", _group_phase),
    Metric("hasys_group_epoch", G, ("group",), "It grows with each assignment.", _group_epoch),
    Metric("hasys_group_redundant", G, ("group",), "1: the loss of its node would be survived.", _group_redundant),
    Metric("hasys_group_paused", G, ("group",), "1: automatic failover is off.", _group_paused),
    Metric("hasys_group_failover_bound_seconds", G, ("group",), "A failover takes no longer.", _group_bound),
    Metric("hasys_resource_state", G, ("group", "kind", "resource", "node", "state"),
           "1 for the state that the resource is in.", _resource_state),
    Metric("hasys_monitor_ok", G, ("group", "monitor", "node", "watches"), "1: the monitor is content.", _monitor_ok),
    Metric("hasys_monitor_value", G, ("group", "monitor", "node", "unit"), "What it measured last.", _monitor_value),
    FAILOVERS,
    DETECTIONS,
    EVENTS,
)  # fmt: skip
"""All metrics, in the order of the reference page."""
