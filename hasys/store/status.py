"""The answer of the Status service as the leader sees it now: stored objects, lease facts, placement's judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from google.protobuf.duration_pb2 import Duration

from hasys.api import convert
from hasys.api.kinds import RESOURCE_KINDS, Ref, inner, kind_name, resource
from hasys.api.monitors import watched
from hasys.lease.facts import NodeFacts
from hasys.model.view import GroupInfo, NodeInfo, NodeState, Phase, View
from hasys.placement import networks
from hasys.placement.redundancy import why_alone
from hasys.placement.roles import ACTIVE, role_of
from hasys.placement.standing import Standing, standing
from hasys.store.assigned import Assigned
from hasys.store.figures import Commits, Figures
from hasys.store.machine import Machine
from hasys.store.picture import Leases
from hasys.store.port import Engine, EngineStatus
from hasys.v1 import api_pb2 as api
from hasys.v1 import monitors_pb2 as mpb
from hasys.v1 import objects_pb2 as pb

_UNHEARD = NodeFacts(silent_for=0.0)


class Sight(Protocol):
    """What a leader sees of the cluster."""

    def read(self) -> Iterator[None]:
        """Take in what changed, in short steps."""
        ...

    def view(self, now: float) -> View | None:
        """The cluster as of now; None: this member does not lead."""
        ...


class StatusSource:
    """Builds the answer; ``sight`` is the controllers'."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        engine: Engine,
        leases: Leases,
        assigned: Assigned,
        sight: Sight,
        clock: Callable[[], float],
        policy: str = "",
    ) -> None:
        self._name = name
        self._machine = machine
        self._engine = engine
        self._leases = leases
        self._assigned = assigned
        self._sight = sight
        self._clock = clock
        self._policy = policy
        self.figures = Figures(clock)
        """What nodes told last beside the replicated state."""
        self.commits = Commits()
        """How long writes took here."""

    def __call__(self, group: str = "") -> api.StatusResponse:
        """The whole cluster, or one group with the nodes. A member that does not lead tells what it has stored."""
        answer = api.StatusResponse()
        for _ in self.fill(answer, group):
            pass
        return answer

    def fill(self, answer: api.StatusResponse, group: str = "") -> Iterator[None]:
        """The same in short steps: a process that must send heartbeats does other things in between."""
        yield from self._sight.read()
        now = self._clock()
        view = self._sight.view(now)
        engine = self._engine.status()
        answer.resource_version = self._machine.revision
        answer.cluster.CopyFrom(self._cluster(engine, view))
        facts = self._leases.facts(now) if view is not None else {}
        for obj in sorted(self._machine.list("Node"), key=lambda o: o.node.metadata.name):
            answer.nodes.append(self._node(obj.node, view, facts, now))
        for obj in self._machine.list("Group", group):
            answer.groups.append(self._group(obj.group, view, engine, now))
            yield

    # ------------------------------------------------------------ cluster
    def _cluster(self, engine: EngineStatus, view: View | None) -> api.ClusterView:
        cluster = self._machine.cluster()
        answer = api.ClusterView(
            name=cluster.metadata.name if cluster else "",
            leader=engine.leader or "",
            term=engine.term,
            quorum=engine.quorum,
            voters=len(engine.voters),
            profile=cluster.spec.profile if cluster else "",
            time=convert.now(),
            policy=self._policy,
            commits=self.commits.view() if view is not None else None,
        )
        if view is not None and not view.by_tokens:
            answer.failover_bound.CopyFrom(_milliseconds(view.timing.failover_bound))
        return answer

    # ------------------------------------------------------------ nodes
    def _node(self, node: pb.Node, view: View | None, facts: Mapping[str, NodeFacts], now: float) -> api.NodeView:
        name = node.metadata.name
        answer = api.NodeView(name=name, role=pb.NodeSpec.Role.Name(node.spec.role))
        info = view.nodes.get(name) if view is not None else None
        if view is None or info is None:
            answer.state, answer.message = self._seen_alone(name)
            return answer
        how = standing(info, now, view)
        answer.state, answer.message = how.state.value, how.why
        if not info.connected and not answer.message and info.role.value != "Observer":
            answer.message = "its store does not answer" + (f": {info.message}" if info.message else "")
        for trouble in networks.troubles(name, view, now):
            answer.networks[trouble.interface] = trouble.text
            answer.message = answer.message or trouble.text
        answer.cut.extend(info.cut or ())
        if answer.cut and not answer.message:
            answer.message = f"not reached at {', '.join(answer.cut)}"
        figures = self.figures.of(name)
        if figures is not None and not how.lost:
            answer.figures.CopyFrom(figures)
        if info.runs_groups:
            self._add_guard(answer, info, facts.get(name, _UNHEARD))
        return answer

    def _seen_alone(self, name: str) -> tuple[str, str]:
        """State and message of a member while there is no leader to say more."""
        engine = self._engine.status()
        if name == self._name and engine.message:
            return NodeState.NOT_READY.value, engine.message
        if name == self._name or name in engine.connected:
            return NodeState.NOT_READY.value, "there is no leader"
        return NodeState.LOST.value, f"{self._name} does not reach it"

    @staticmethod
    def _add_guard(answer: api.NodeView, info: NodeInfo, facts: NodeFacts) -> None:
        heard = facts.last_heard is not None
        answer.version = facts.health.version
        answer.lease.valid = facts.lease_valid
        answer.lease.epoch = facts.lease_epoch
        if facts.lease_valid:
            answer.lease.remaining.CopyFrom(_milliseconds(facts.remaining))
        answer.guard.armed = heard and facts.health.armed
        answer.guard.watchdog = facts.health.watchdog if heard else "unknown"
        answer.guard.message = facts.health.message
        answer.guard.lag.CopyFrom(_milliseconds(facts.health.lag))

    # ------------------------------------------------------------ groups
    def _group(self, group: pb.Group, view: View | None, engine: EngineStatus, now: float) -> api.GroupView:
        spec, status = group.spec, group.status
        answer = api.GroupView(
            name=group.metadata.name,
            mode=pb.GroupSpec.Mode.Name(spec.mode),
            failover_mode=pb.Failover.Mode.Name(spec.failover.mode),
            epoch=status.assignment.epoch,
            phase=status.phase,
            reason=status.reason,
            paused=status.paused,
        )
        for ref, obj in self._machine.members_of(group.metadata.name).items():
            if ref.kind in RESOURCE_KINDS:
                answer.resources.append(_resource(obj, status.assignment))
            elif obj.HasField("monitor"):
                answer.monitors.extend(_monitors(obj.monitor, status.assignment))
        info = view.groups.get(group.metadata.name) if view is not None else None
        reported: list[api.ResourceView | api.MonitorView] = [*answer.resources, *answer.monitors]
        for told in reported:
            node = view.nodes.get(told.node) if view is not None else None
            doubt(told, standing(node, now, view) if node is not None and view is not None else None)
        if view is None:
            where = f" on {status.assignment.node}" if status.assignment.node else ""
            answer.phase = Phase.BLOCKED.value
            held = "nodes keep what they hold; " if self._policy else ""
            answer.reason = f"{self._name} sees no majority; {held}last recorded: {status.phase or 'nothing'}{where}"
        if view is None or info is None:
            return answer
        for candidate in info.candidates:
            answer.nodes[candidate.node] = role_of(candidate.node, info, view, now)
        answer.active = next((node for node, role in sorted(answer.nodes.items()) if role == ACTIVE), "")
        answer.redundant = not why_alone(
            info, view, now, quorum_without=self._majority_without(info.assignment.node, engine)
        )
        if not view.by_tokens:  # else a lost node is replaced by its operator: nobody knows when
            answer.failover_bound.CopyFrom(_milliseconds(self._bound(info, view)))
        return answer

    def _majority_without(self, node: str, engine: EngineStatus) -> bool:
        """Would the voters that are connected now, without this node, still be a majority?"""
        voters = set(engine.voters)
        there = {self._name, *engine.connected} - {node}
        return len(voters & there) * 2 > len(voters)

    def _bound(self, group: GroupInfo, view: View) -> float:
        """L1: the longest time from the loss of its node until every resource runs elsewhere, as far as settings tell.

        An armed watchdog, the wait for a fence, or the time that a lost node has for its unmount, delays it; delays
        and start times of the flow come last.
        """
        assignment = self._assigned().groups.get(group.name)
        left = assignment.outliving(assignment.node) if assignment else 0.0
        fence = max(0.0, left - view.timing.grant_over)
        return view.timing.failover_bound + fence + start_time(self._machine.members_of(group.name))


def start_time(members: Mapping[Ref, pb.Object]) -> float:
    """Seconds that the longest path of a group's flow takes to start by its settings."""
    own: dict[str, float] = {}
    after: dict[str, list[str]] = {}
    for ref, obj in members.items():
        part = resource(obj)
        if part is not None:
            own[ref.name] = _own_start_time(obj)
            after[ref.name] = list(part.spec.after)
    done: dict[str, float] = {}

    def ready(name: str, seen: frozenset[str]) -> float:
        if name in seen or name not in own:  # the store refuses cycles; a stale one must not hang the status
            return 0.0
        if name not in done:
            before = max((ready(other, seen | {name}) for other in after[name]), default=0.0)
            done[name] = before + own[name]
        return done[name]

    return max((ready(name, frozenset()) for name in own), default=0.0)


def _own_start_time(obj: pb.Object) -> float:
    match inner(obj):
        case pb.Delay(spec=spec):
            return convert.seconds(spec.duration)
        case pb.Application(spec=spec) if spec.HasField("run"):
            return convert.seconds(spec.restart.start_time) if spec.restart.HasField("start_time") else 1.0
        case pb.Application(spec=spec):
            return convert.seconds(spec.start.timeout) or 60.0
        case pb.Database(spec=spec):
            return convert.seconds(spec.start_timeout) or 300.0
        case pb.CommandStep(spec=spec):
            return convert.seconds(spec.run.timeout) or 60.0
        case pb.SystemdUnit(spec=spec):
            return convert.seconds(spec.start_timeout) or 90.0
        case _:
            return 0.0


def _resource(obj: pb.Object, a: pb.Assignment) -> api.ResourceView:
    """A resource as last reported; a report of an older epoch says nothing about now."""
    part = resource(obj)
    assert part is not None, "members of a group are resources"
    answer = api.ResourceView(kind=kind_name(part), name=part.metadata.name)
    status = part.status
    current = status.epoch == a.epoch or (status.epoch == a.previous_epoch and a.previous_node)
    if not a.node and not a.previous_node:
        answer.state = "Stopped"
    elif current:
        answer.node, answer.state, answer.message = status.node, status.state or "Unknown", status.message
    else:
        answer.node, answer.state = a.node, "Unknown"
    return answer


def _monitors(monitor: pb.Monitor, a: pb.Assignment) -> list[api.MonitorView]:
    """A monitor as each node that looks last reported it."""
    spec = monitor.spec
    common = api.MonitorView(
        name=monitor.metadata.name, watches=watched(spec), action=mpb.MonitorSpec.Action.Name(spec.action)
    )
    told = []
    for node, result in sorted(monitor.status.nodes.items()):
        if result.state == "Idle" or (result.epoch and (node, result.epoch) != (a.node, a.epoch)):
            continue  # it does not look now, or what it saw was under another epoch
        told.append(api.MonitorView(node=node, state=result.state, message=result.message))
        told[-1].MergeFrom(common)
    if not told:
        told.append(api.MonitorView(state="Waiting", message="nobody looks yet" if a.node else "the group is stopped"))
        told[-1].MergeFrom(common)
    return told


def doubt(told: api.ResourceView | api.MonitorView, node: Standing | None) -> None:
    """What a node that is not heard any more (None: nobody can tell) reported last is not what is: its guard fences."""
    if told.node and told.state not in ("Stopped", "Unknown") and (node is None or node.lost):
        told.message = f"{told.state} as last reported" + (f"; {told.message}" if told.message else "")
        told.state = "Unknown"


def _milliseconds(value: float) -> Duration:
    return convert.duration(round(max(0.0, value), 3))
