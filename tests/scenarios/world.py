"""A cluster in virtual time: real decisions, real grants, real guards' keepers; agents that obey, and faults.

Only what moves between them is simulated: datagrams arrive at once or never, a write is applied at once, a resource
starts within 50 ms unless it was broken. After every step of 10 ms the invariants of :meth:`World.check` must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from hasys.api.outliving import stopped_after
from hasys.lease.assignments import Assignments, GroupAssignment
from hasys.lease.durable import TokenDropped, TokenTaken
from hasys.lease.facts import NodeFacts
from hasys.lease.granting import Granter
from hasys.lease.keeping import Keeper, Permit, Revoke
from hasys.lease.tokens import TokenGranter, TokenKeeper
from hasys.lease.wire import Health
from hasys.model import events
from hasys.model.networks import Trouble
from hasys.model.timing import PROFILES, Timing
from hasys.model.view import (
    Failure,
    GroupInfo,
    NodeInfo,
    OperationInfo,
    ResourceInfo,
    ResourceState,
    Role,
    View,
)
from hasys.placement.decide import decide
from hasys.placement.effects import (
    Effect,
    FinishOperation,
    Purge,
    Record,
    SetAlone,
    SetAssignment,
    SetCut,
    SetDrained,
    SetFailovers,
    SetFailure,
    SetFenceConfirmed,
    SetNetworks,
    SetNodeState,
    SetPaused,
    SetPhase,
    SetReboot,
    SetShutdown,
    SetWatchdog,
    StartOperation,
)
from hasys.store.port import Authority

STEP = 0.01
ELECTION = 0.5
"""Seconds without a leader after one was lost."""
ROUNDS = 20
"""A picture that needs more decisions in a row than this never comes to rest."""


@dataclass
class Machine:
    """One member: its guard's keeper, and what its agent has running."""

    name: str
    role: Role
    keeper: Keeper | None = None
    boot: int = 0
    up: bool = True
    silent: bool = False
    """Its datagrams and reports are lost."""
    deaf: bool = False
    """Grants and news of the store do not reach it."""
    agent: bool = True
    agent_gone_at: float | None = None
    armed: bool = True
    broken: dict[str, str] = field(default_factory=dict)
    """Resource -> what it says when it fails to start."""
    hanging: set[str] = field(default_factory=set)
    """Resources whose start never ends."""
    networks: dict[str, Trouble] = field(default_factory=dict)
    """Interface -> what is wrong with it."""
    full: bool = False
    """Its store's disk takes no writes."""
    stuck: set[str] = field(default_factory=set)
    """Resources that do not stop."""
    watchdog: float = 0.0
    """Seconds of its armed watchdog; 0: none."""
    reset_at: float | None = None
    """When that stops the machine: its guard hangs, and what runs goes on until then."""
    running: dict[str, dict[str, tuple[ResourceState, float]]] = field(default_factory=dict)
    """Group -> resource -> state and since when."""
    attempts: dict[str, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    """Group -> epoch for which it runs things."""


class World:
    """The store's content, its leader, and the members. ``tell`` receives one line per thing that happens."""

    def __init__(
        self, members: dict[str, Role], timing: Timing = PROFILES["default"], *, by_tokens: bool = False
    ) -> None:
        self.by_tokens = by_tokens
        """Two nodes without a third voter, policy safe; a token survives the power here."""
        self.tokens: dict[str, dict[str, int]] = {}
        self.now = 0.0
        self.timing = timing
        self.lines: list[str] = []
        self.machines = {name: Machine(name, role) for name, role in members.items()}
        self.nodes = {name: NodeInfo(name, role) for name, role in members.items()}
        self.groups: dict[str, GroupInfo] = {}
        self.operations: dict[str, OperationInfo] = {}
        self.index = 1
        self.term = 0
        self.leading = False
        self.elects_at: float | None = 0.0
        self.silent_since = 0.0
        self.leader_since = 0.0
        self.links: dict[str, tuple[bool, float | None]] = {}
        """Member -> whether its store answers, and since when."""
        self.quorum = True
        self._nonce = 0
        self._next_look = 0.0
        self._assignments = Assignments({})
        granter = TokenGranter if by_tokens else Granter
        self._granter = granter("c", "leader", [n for n, r in members.items() if r is not Role.WITNESS], timing)
        for name in members:
            self.boot(name)

    def tell(self, line: str) -> None:
        self.lines.append(f"{self.now:.2f}  {line}")

    # ------------------------------------------------------------ faults
    def boot(self, name: str) -> None:
        m = self.machines[name]
        m.up, m.agent, m.boot, m.reset_at = True, True, m.boot + 1, None
        m.running, m.epochs, m.agent_gone_at = {}, {}, None
        if m.role is not Role.WITNESS:
            make: Callable[..., Keeper] = Keeper
            if self.by_tokens:
                make = partial(TokenKeeper, tokens=self.tokens.setdefault(name, {}))
            m.keeper = make("c", name, ["leader"], self.timing, f"{name}-{m.boot}", self._next_nonce)

    def power_off(self, name: str) -> None:
        m = self.machines[name]
        m.up, m.keeper, m.running, m.epochs, m.reset_at = False, None, {}, {}, None

    def freeze(self, name: str) -> None:
        """Guard and agent hang; what runs goes on until the watchdog stops the machine."""
        m = self.machines[name]
        assert m.watchdog, "nothing is promised of a node whose guard hangs and that has no watchdog"
        m.keeper, m.reset_at = None, self.now + m.watchdog

    def lose_leader(self) -> None:
        """The leading store dies; another one leads after an election."""
        self.leading, self.silent_since, self.elects_at = False, self.now, self.now + ELECTION

    def set_quorum(self, there: bool) -> None:
        self.quorum = there
        if there:
            self.elects_at = self.now + ELECTION
        else:
            self.leading, self.silent_since, self.elects_at = False, self.now, None

    def _next_nonce(self) -> int:
        self._nonce += 1
        return self._nonce

    # ------------------------------------------------------------ time
    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until - STEP / 2:
            self.now = round(self.now + STEP, 4)
            self.step()

    def step(self) -> None:
        if not self.leading and self.elects_at is not None and self.now >= self.elects_at:
            self._elect()
        for m in self.machines.values():
            if m.keeper is not None:
                self._guard(m, m.keeper)
            elif m.reset_at is not None and self.now >= m.reset_at:
                self.tell(f"the watchdog of {m.name} stops it")
                self.power_off(m.name)
        self._push()
        for m in self.machines.values():
            for name in list(self.groups):
                self._agent(m, name)
        self.look()
        self.check()

    def _elect(self) -> None:
        self.term += 1
        self.leading, self.leader_since, self.elects_at = True, self.now, None
        self._granter.lead(self._evidence())
        self.groups = {
            name: replace(g, epoch_since=None, phase_since=None, attempt_version=0) for name, g in self.groups.items()
        }
        self.operations = {name: replace(op, since=None) for name, op in self.operations.items()}
        self._next_look = self.now
        if self.term > 1:
            self.tell(f"a new leader, term {self.term}")

    def _evidence(self) -> Authority:
        return Authority(self.term, self.index, self.now, self.silent_since)

    # ------------------------------------------------------------ guards
    def _guard(self, m: Machine, keeper: Keeper) -> None:
        self._obey(m, keeper, keeper.expire(self.now))
        if m.agent_gone_at is not None and self.now >= m.agent_gone_at + self.timing.agent_grace:
            self._obey(m, keeper, keeper.give_up_all("the agent stayed away"))
        if not keeper.keepalive_due(self.now):
            return
        message = "disk: No space left on device" if m.full else "" if m.armed else "its gate is missing"
        networks = tuple(m.networks.values())
        health = Health(armed=m.armed, agent=m.agent, message=message, networks=networks, disk_failed=m.full)
        keepalive, _ = keeper.keepalive(self.now, health)
        self._obey(m, keeper, keeper.renew(self.now))
        if m.silent or not self.leading:
            return
        grant = self._granter.heard(keepalive, self.now, self._evidence(), self._assignments)
        if self._granter.take_news():
            self._next_look = self.now
        if grant is not None and not m.deaf:
            self._obey(m, keeper, keeper.received(grant, self.now))

    def _push(self) -> None:
        if not self.leading:
            return
        for grant in self._granter.due(self.now, self._evidence(), self._assignments):
            m = self.machines[grant.node]
            if m.keeper is not None and not m.deaf and not m.silent:
                self._obey(m, m.keeper, m.keeper.received(grant, self.now))

    def _obey(self, m: Machine, keeper: Keeper, effects: Sequence[object]) -> None:
        for effect in effects:
            if isinstance(effect, Permit):
                self.tell(f"{m.name} may act for {effect.group}@{effect.epoch}")
            elif isinstance(effect, Revoke):
                self.tell(f"{m.name} fences {effect.group}@{effect.epoch}: {effect.reason}")
                m.running.pop(effect.group, None)
                keeper.released(effect.group, effect.epoch, self.now)
            elif isinstance(effect, TokenTaken):
                self.tokens[m.name][effect.group] = effect.epoch
            elif isinstance(effect, TokenDropped) and isinstance(keeper, TokenKeeper):
                self.tokens[m.name].pop(effect.group, None)
                keeper.token_gone(effect.group, effect.epoch, self.now)
                self.tell(f"{m.name} has no token of {effect.group} any more")

    # ------------------------------------------------------------ agents
    def _agent(self, m: Machine, name: str) -> None:
        if m.keeper is None or not m.agent or m.silent or m.deaf or not self.leading:
            return
        group = self.groups[name]
        a = group.assignment
        if a.node == m.name:
            self._run(m, m.keeper, group)
        elif a.previous_node == m.name and not a.revoked:
            self._stop(m, m.keeper, group)

    def _run(self, m: Machine, keeper: Keeper, group: GroupInfo) -> None:
        a = group.assignment
        if keeper.state().floors.get(group.name, -1) >= a.epoch:
            return
        _, effects = keeper.plan(group.name, a.epoch, 1, self.now)
        self._obey(m, keeper, effects)
        if keeper.permitted(group.name, a.epoch, self.now) != "permitted":
            return
        if m.epochs.get(group.name) != a.epoch:
            m.epochs[group.name], m.attempts[group.name] = a.epoch, a.attempt
        here = m.running.setdefault(group.name, {})
        if m.attempts[group.name] != a.attempt:
            m.attempts[group.name] = a.attempt
            for failed in [r for r, (state, _) in here.items() if state is ResourceState.FAILED]:
                del here[failed]
        for resource in group.resources:
            if not self._progress(m, group, resource):
                return

    def _progress(self, m: Machine, group: GroupInfo, resource: ResourceInfo) -> bool:
        """Start one resource; True when the next may start."""
        here, name = m.running[group.name], resource.name
        state, since = here.get(name, (None, self.now))
        if state is None:
            here[name] = (ResourceState.STARTING, self.now)
            self._report(m, group, name, ResourceState.STARTING)
        elif name in m.broken and state is not ResourceState.FAILED and self.now >= since + 0.05:
            here[name] = (ResourceState.FAILED, self.now)
            self._report(m, group, name, ResourceState.FAILED, m.broken[name])
        elif name in m.hanging or name in m.broken:
            pass
        elif state is ResourceState.STARTING and self.now >= since + 0.05:
            here[name] = (ResourceState.RUNNING, self.now)
            self._report(m, group, name, ResourceState.RUNNING)
        after = here[name][0]
        return after is ResourceState.RUNNING or (after is ResourceState.FAILED and not resource.vital)

    def _stop(self, m: Machine, keeper: Keeper, group: GroupInfo) -> None:
        here = m.running.get(group.name, {})
        epoch = group.assignment.previous_epoch
        for resource in reversed([r.name for r in group.resources if r.name in here]):
            if resource in m.stuck:
                if here[resource][0] is not ResourceState.STOPPING:
                    here[resource] = (ResourceState.STOPPING, self.now)
                    self._report(m, group, resource, ResourceState.STOPPING, "does not react", epoch)
                return
            del here[resource]
            self._report(m, group, resource, ResourceState.STOPPED, "", epoch)
            return
        if keeper.state().floors.get(group.name, -1) < epoch:
            m.running.pop(group.name, None)
            self.tell(f"{m.name} releases {group.name}@{epoch}")
            keeper.released(group.name, epoch, self.now)

    def _report(
        self, m: Machine, group: GroupInfo, name: str, state: ResourceState, message: str = "", epoch: int = 0
    ) -> None:
        epoch = epoch or group.assignment.epoch
        group = self.groups[group.name]
        self.index += 1
        self.groups[group.name] = replace(
            group,
            resources=tuple(
                replace(r, node=m.name, epoch=epoch, state=state, message=message, version=self.index)
                if r.name == name and r.epoch <= epoch
                else r
                for r in group.resources
            ),
        )
        self._next_look = self.now
        self.tell(f"{m.name}: {name} is {state.value}" + (f": {message}" if message else ""))

    # ------------------------------------------------------------ decisions
    def look(self) -> None:
        """Decide until there is nothing more to write."""
        if not self.leading or self.now < self._next_look:
            return
        for _ in range(ROUNDS):
            decision = decide(self.view(), self.now)
            if not decision.batches:
                self._next_look = decision.next_look or self.now + 5
                return
            for effect in decision.effects:
                self._write(effect)
            self._assignments = self._assigned()
        raise AssertionError(f"decisions do not come to rest: {decision.effects}")

    def view(self) -> View:
        facts = self._granter.facts(self.now)
        for name, machine in self.machines.items():
            there = machine.up and not machine.silent
            if self.links.setdefault(name, (there, None))[0] is not there:
                self.links[name] = there, self.now
        nodes = {
            name: replace(node, connected=self.links[name][0], connected_since=self.links[name][1])
            for name, node in self.nodes.items()
        }
        nodes |= {name: _known(nodes[name], of_guard) for name, of_guard in facts.items()}
        groups = {
            name: replace(group, may_hold=self._granter.may_hold(name, self.now)) for name, group in self.groups.items()
        }
        cold = self.term == 1
        return View(
            self.timing, self.leader_since, self.silent_since, cold, nodes, groups, tuple(self.operations.values()),
            self.by_tokens,
        )  # fmt: skip

    def _assigned(self) -> Assignments:
        groups = {}
        lingers = {m.name: stopped_after(m.watchdog) for m in self.machines.values() if m.watchdog}
        for name, group in self.groups.items():
            a = group.assignment
            groups[name] = GroupAssignment(
                a.node,
                a.epoch,
                1,
                a.previous_node,
                a.previous_epoch,
                a.revoked,
                lingers=lingers,
                earlier=dict(a.earlier),
            )
        fenced = {n.name: n.fence_boot_id for n in self.nodes.values() if n.fence_confirmed}
        return Assignments(groups, fenced)

    def _write(self, effect: Effect) -> None:
        self.index += 1
        match effect:
            case SetAssignment(name, a):
                before = self.groups[name]
                assert a.epoch >= before.assignment.epoch, "an epoch only grows"
                moved = a.epoch != before.assignment.epoch
                again = a.attempt != before.assignment.attempt and not moved
                self.groups[name] = replace(
                    before,
                    assignment=a,
                    epoch_since=self.now if moved else before.epoch_since,
                    attempt_version=self.index if again else 0 if moved else before.attempt_version,
                )
                self.tell(f"{name} -> {_shown(effect)}")
            case SetPhase(name, phase, reason):
                group = self.groups[name]
                since = group.phase_since if group.phase is phase else self.now
                self.groups[name] = replace(group, phase=phase, reason=reason, phase_since=since)
                self.tell(f"{name} is {phase.value}" + (f": {reason}" if reason else ""))
            case SetFailure(name, node, failure):
                self._failure(name, node, failure)
            case SetPaused(name, paused):
                self.groups[name] = replace(self.groups[name], paused=paused)
            case SetFailovers(name, epochs):
                known = self.groups[name].failovers
                self.groups[name] = replace(self.groups[name], failovers={e: known.get(e, self.now) for e in epochs})
                self.tell(f"{name}: {len(epochs)} failovers count")
            case SetAlone(name, cause):
                self.groups[name] = replace(self.groups[name], alone=cause)
            case Purge(name):
                del self.groups[name]
                self.tell(f"{name} is gone")
            case StartOperation(name, _, _, epoch):
                self.operations[name] = replace(self.operations[name], running=True, epoch=epoch)
            case FinishOperation(name, _, _, succeeded, message, _, took):
                del self.operations[name]
                self.tell(f"{name} {'succeeded' if succeeded else 'FAILED'} after {took:.2f} s: {message}")
            case Record(reason, message):
                self._check(effect)
                if not reason.startswith("Operation"):
                    self.tell(f"event {reason}: {message}")
            case SetNodeState(name, state, message):
                self.nodes[name] = replace(self.nodes[name], last_state=state, state_since=self.now)
            case SetCut(name, addresses):
                self.nodes[name] = replace(self.nodes[name], last_cut=addresses)
            case SetWatchdog(name, timeout):
                self.nodes[name] = replace(self.nodes[name], last_watchdog=timeout)
            case SetNetworks(name, networks):
                self.nodes[name] = replace(self.nodes[name], networks_told=networks)
            case SetReboot(name, reboot):
                self.nodes[name] = replace(self.nodes[name], reboot=reboot)
                if reboot is not None and reboot.due:
                    self.tell(f"{name} runs its reboot command")
            case SetDrained(name, drained):
                self.nodes[name] = replace(self.nodes[name], drained=drained)
            case SetShutdown(name, boot_id):
                self.nodes[name] = replace(self.nodes[name], shutdown_boot_id=boot_id)
            case SetFenceConfirmed(name, confirmed, boot_id):
                self.nodes[name] = replace(self.nodes[name], fence_confirmed=confirmed, fence_boot_id=boot_id)

    def _check(self, record: Record) -> None:
        """Every transition says why, by whom, in which epoch, and what took how long."""
        row = events.reason(record.reason)
        assert record.actor, record
        assert record.cause or "{cause}" not in row.template, f"no cause: {record}"
        assert not row.took or (record.duration is not None and record.duration >= 0), f"no duration: {record}"
        if record.group in self.groups and not record.reason.startswith("Operation"):
            assert record.epoch == self.groups[record.group].assignment.epoch, record

    def _failure(self, name: str, node: str, failure: Failure | None) -> None:
        failures = {n: f for n, f in self.groups[name].failures.items() if n != node}
        if failure is not None:
            failures[node] = failure
        self.groups[name] = replace(self.groups[name], failures=failures)
        self.tell(f"{name}: failures on {node}: {failure.count if failure else 'forgotten'}")

    # ------------------------------------------------------------ what users do
    def wake(self) -> None:
        self._next_look = self.now

    def operate(self, operation: OperationInfo) -> None:
        self.operations[operation.name] = replace(operation, since=self.now)
        self.wake()
        self.look()

    # ------------------------------------------------------------ invariants
    def check(self) -> None:
        """S1a by the guards' own counts, S1b by what runs."""
        for name in self.groups:
            holders = [
                m.name
                for m in self.machines.values()
                if m.keeper is not None
                and (h := m.keeper.holdings().get(name)) is not None
                and h.permitted is not None
                and h.until > self.now
            ]
            assert len(holders) <= 1, f"{self.now}: {name} is held by {holders}"
            runners = [m.name for m in self.machines.values() if m.running.get(name)]
            assert len(runners) <= 1, f"{self.now}: {name} runs on {runners}"


def _known(node: NodeInfo, facts: NodeFacts) -> NodeInfo:
    return replace(
        node,
        heard=facts.last_heard,
        confirmed=facts.confirmed,
        armed=facts.health.armed,
        agent_alive=facts.health.agent,
        message=facts.health.message,
        boot_id=facts.boot,
        networks=facts.health.networks,
        networks_since=facts.networks_since,
        disk_failed=facts.health.disk_failed,
        released=facts.released,
    )


def _shown(effect: SetAssignment) -> str:
    a = effect.assignment
    after = (
        f", after {a.previous_node}@{a.previous_epoch} {'revoked' if a.revoked else 'stops'}" if a.previous_node else ""
    )
    again = f", attempt {a.attempt}" if a.attempt else ""
    return f"{a.node or 'nobody'}@{a.epoch}{after}{again}"
