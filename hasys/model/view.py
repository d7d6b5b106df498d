"""What a placement decision looks at: one frozen picture of the cluster, without clocks, sockets or protobuf.

The store's controllers build it from the replicated objects and the leader's lease facts; scenarios build it from text.
All times are seconds of the leader's monotonic clock; ``None`` means "never under this leader".
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum

from hasys.model.networks import LostNetworks, Trouble
from hasys.model.timing import Timing


class Role(StrEnum):
    """What a member is for."""

    VOTER = "Voter"
    WITNESS = "Witness"
    OBSERVER = "Observer"


class NodeState(StrEnum):
    """The contract's node states."""

    READY = "Ready"
    NOT_READY = "NotReady"
    LOST = "Lost"
    DRAINED = "Drained"


class Phase(StrEnum):
    """The contract's group phases."""

    STOPPED = "Stopped"
    STARTING = "Starting"
    RUNNING = "Running"
    DEGRADED = "Degraded"
    STOPPING = "Stopping"
    FAILING_OVER = "FailingOver"
    FAILED = "Failed"
    BLOCKED = "Blocked"


class ResourceState(StrEnum):
    """The contract's resource states."""

    STOPPED = "Stopped"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Reboot:
    """A group that asks for it has failed over from this node."""

    boot_id: str
    """With another one the node has been started again."""
    group: str
    epoch: int
    """Of the group there: its release must be confirmed first."""
    cause: str
    due: bool = False
    """Its agent runs the reboot command."""


@dataclass(frozen=True, slots=True)
class FencingInfo:
    """How a node is switched off from outside."""

    agent: str
    delay: float = 5.0
    """Seconds that the node must have been lost."""
    nodes: tuple[str, ...] = ()
    """Who may do it; empty: every other node."""
    operation: str = ""
    """Under way."""
    failed: str = ""
    """Why the last attempt failed: an operator is needed."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A member and what the leader knows of its guard."""

    name: str
    role: Role = Role.VOTER
    drained: bool = False
    """An operator drained it."""
    heard: float | None = None
    """When its last authentic keep-alive came."""
    confirmed: float | None = None
    """When it last proved that it hears us: a keep-alive that names a recent grant. Heard without this: deaf."""
    armed: bool = False
    """Its guard can fence (gate installed, cgroups usable)."""
    agent_alive: bool = False
    message: str = ""
    """What its guard says: why it is not armed, or why it last fenced."""
    boot_id: str = ""
    """Of the guard that is heard now."""
    released: Mapping[str, int] = field(default_factory=dict)
    """Group -> epoch up to which this guard will never act again."""
    fence_confirmed: bool = False
    fence_boot_id: str = ""
    shutdown_boot_id: str = ""
    """Not empty: this boot of the node left in order and gets nothing."""
    last_state: NodeState | None = None
    """As recorded before, to see the change."""
    state_since: float | None = None
    """When this leader first saw that state recorded; None: it was before."""
    networks: tuple[Trouble, ...] = ()
    """Its interfaces that are not well, by its own word."""
    networks_since: float | None = None
    """When this leader last heard another word about them."""
    networks_told: Mapping[str, str] = field(default_factory=dict)
    """Interface -> what is recorded as wrong with it, to see the change."""
    connected: bool = True
    """Its store answers the leader's: all there is to know of a witness."""
    connected_since: float | None = None
    """When this leader first saw that, or that it does not; None: from the beginning."""
    cut: tuple[str, ...] | None = None
    """Addresses of its store that the leader's store does not reach, while it reaches another; None: not known."""
    last_cut: tuple[str, ...] = ()
    """As recorded before, to see the change."""
    watchdog: float = 0.0
    """Seconds of the armed watchdog that its guard reports; 0: none."""
    fencing: FencingInfo | None = None
    last_watchdog: float = 0.0
    """As recorded before: what a leader goes by when the guard is silent."""
    disk_failed: bool = False
    """By its own word its store's disk takes no writes; ``message`` says why."""
    reboot: Reboot | None = None

    @property
    def runs_groups(self) -> bool:
        return self.role is not Role.WITNESS

    @property
    def leaving(self) -> bool:
        """Takes no groups, and gives away what it has."""
        return self.drained or bool(self.shutdown_boot_id)


Holder = tuple[str, int]
"""A node and the epoch at which it had a group."""
NOBODY: Holder = ("", 0)


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who should run a group. Never authority to act: that is the grant."""

    node: str = ""
    epoch: int = 0
    previous_node: str = ""
    previous_epoch: int = 0
    revoked: bool = False
    cause: str = ""
    operation: str = ""
    attempt: int = 0
    retry_step: str = ""
    last_node: str = ""
    """Nobody has it: the node that had it last."""
    earlier: tuple[Holder, ...] = ()
    """Before the previous holder, newest first, each node once: not proven to be out either. None without a previous
    one, which is all that the state machine and older versions look at."""

    @property
    def before(self) -> tuple[Holder, ...]:
        """All who had it before, newest first, and are not proven to be out."""
        return ((self.previous_node, self.previous_epoch), *self.earlier) if self.previous_node else ()

    def moved(self, node: str, cause: str, *, operation: str = "", revoke: bool) -> Assignment:
        """The next epoch, on ``node`` (empty: nobody); the present holder becomes the previous one.

        With ``revoke`` the previous holder gets no more grants for it; without, it may stop in order first. Who had it
        earlier and is not proven to be out stays recorded, as long as it is another node.
        """
        assert node != self.node or revoke, "a move to the same node has nobody to wait for"
        before = [(n, epoch) for n, epoch in self.before if n not in (node, self.node)]
        if self.node:
            before.insert(0, (self.node, self.epoch))
        previous, *earlier = before or [NOBODY]
        return Assignment(
            node=node,
            epoch=self.epoch + 1,
            previous_node=previous[0],
            previous_epoch=previous[1],
            revoked=revoke or not self.node,
            cause=cause,
            operation=operation,
            last_node="" if node else self.last,
            earlier=tuple(earlier),
        )

    @property
    def last(self) -> str:
        """The node that has the group, or had it last; empty: it never ran."""
        return self.node or self.last_node

    def adopted(self, node: str, oath: int, cause: str) -> Assignment:
        """The node that holds the group by an operator's oath keeps it, at an epoch above the oath's."""
        moved = self.moved(node, cause, revoke=True)
        return replace(moved, epoch=max(moved.epoch, oath + 1))

    def let_go(self, may_hold: Set[str]) -> Assignment:
        """Without those who had it before and are proven to be out: all but ``may_hold``. When the previous holder
        goes, the newest that is left takes its place, and has nothing to stop in order any more."""
        previous, *earlier = [(n, e) for n, e in self.before if n != self.node and n in may_hold] or [NOBODY]
        stays = previous in (NOBODY, (self.previous_node, self.previous_epoch))
        return replace(
            self,
            previous_node=previous[0],
            previous_epoch=previous[1],
            revoked=self.revoked or not stays,
            earlier=tuple(earlier),
        )

    def revoke_previous(self) -> Assignment:
        """The previous holder gets no more grants."""
        return replace(self, revoked=True)

    def again(self, cause: str, *, step: str = "", operation: str = "") -> Assignment:
        """The same node tries again what failed, at the same epoch."""
        return replace(self, attempt=self.attempt + 1, retry_step=step, cause=cause, operation=operation)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may run a group; the highest priority is preferred, then the name."""

    node: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a group could not run on a node, and how often in a row."""

    epoch: int
    message: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class ResourceInfo:
    """A resource as its agent last reported it."""

    kind: str
    name: str
    node: str = ""
    epoch: int = 0
    state: ResourceState = ResourceState.UNKNOWN
    message: str = ""
    vital: bool = True
    """False: its failure degrades the group and moves nothing (``onStartFailure: Continue``)."""
    version: int = 0
    """Log index of its last change, status included."""
    deleting: bool = False

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Limit:
    """Anti ping-pong. Seconds."""

    failovers: int
    within: float
    quiet: float
    """From the last failover until it may fail over by itself again."""


class MonitorAction(StrEnum):
    """What follows when a monitor has failed and a restart is not, or no longer, tried."""

    ALERT = "Alert"
    FAILOVER = "Failover"
    STOP = "Stop"


@dataclass(frozen=True, slots=True)
class Finding:
    """A monitor that has failed on a node."""

    monitor: str
    node: str
    action: MonitorAction
    message: str = ""
    epoch: int = 0
    """Of the group when it looks on the Active only; 0: it looks on every node, whoever is Active."""
    since: float | None = None
    """When this leader first saw it."""
    patience: float = 0.0
    """Seconds that other nodes may take to find the same: what all have lost is nobody's fault."""


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group: what is wanted, what was decided, what is known."""

    name: str
    candidates: tuple[Candidate, ...] = ()
    manual: bool = False
    farm: bool = False
    paused: bool = False
    stop_timeout: float = 60.0
    assignment: Assignment = Assignment()
    phase: Phase = Phase.STOPPED
    reason: str = ""
    failures: Mapping[str, Failure] = field(default_factory=dict)
    resources: tuple[ResourceInfo, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Monitors that have failed."""
    interfaces: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Node -> interfaces that its addresses use there."""
    lost_networks: LostNetworks = LostNetworks.ANY
    needs_gateway: bool = True
    """A node that does not reach its gateway serves worse than one that does."""
    may_hold: frozenset[str] = frozenset()
    """Nodes that may still hold it: no release of theirs is known, and their last grant for it may be running, or
    something of it may linger there after that."""
    claims: Mapping[str, int] = field(default_factory=dict)
    """Node -> epoch of an operator's oath by which it holds the group, and which this leader keeps alive for now."""
    unheard: frozenset[str] = frozenset()
    """Nodes that held it by an oath which no leader limits: nobody else may hold it before they are heard or
    fence-confirmed."""
    deleting: bool = False
    epoch_since: float | None = None
    """When this leader first saw the present epoch."""
    phase_since: float | None = None
    """When this leader first saw the present phase."""
    limit: Limit | None = None
    failovers: Mapping[int, float | None] = field(default_factory=dict)
    """Epoch of a failover that counts for the limit -> when this leader first saw it."""
    alone: str = ""
    """Why the loss of its node would not be survived, as the alert told; empty: it would, or nothing was told."""
    failback: float | None = None
    """Seconds of quiet after which it goes back to a better node; None: it stays."""
    closed: Mapping[str, str] = field(default_factory=dict)
    """Node -> what its gates wait for there; a node that is not named has none closed."""
    reboots: bool = False
    """The node that a failover leaves is rebooted."""
    attempt_version: int = 0
    """Log index at which this leader saw the present attempt begin: failures before it were of an earlier one. 0:
    unknown."""

    @property
    def moving(self) -> bool:
        """A planned move is under way: the previous holder stops in order and has not let go."""
        a = self.assignment
        return (
            bool(a.previous_node) and not a.revoked and a.previous_node != a.node and a.previous_node in self.may_hold
        )

    @property
    def sworn_to(self) -> str:
        """The node that holds it by an operator's oath and will be assigned to it once everybody was heard; until then
        the assignment is of the time before the oath. Empty: none."""
        a = self.assignment
        claims = {node: epoch for node, epoch in self.claims.items() if not (node == a.node and a.epoch > epoch)}
        node = min(claims, key=lambda n: (n != a.node, n), default="")
        return "" if self.candidate(node) is None or self.deleting else node

    def candidate(self, node: str) -> Candidate | None:
        return next((c for c in self.candidates if c.node == node), None)

    def unfit(self, node: str, action: MonitorAction = MonitorAction.FAILOVER) -> str:
        """What monitors with this action have against the node now; empty: nothing."""
        return "; ".join(f"monitor {f.monitor}: {f.message or 'failed'}" for f in self.against(node, action))

    def against(self, node: str, action: MonitorAction = MonitorAction.FAILOVER) -> list[Finding]:
        """The findings with this action that count against the node now."""
        a = self.assignment
        epoch = a.epoch if node == a.node else 0
        return [f for f in self.findings if f.node == node and f.action is action and f.epoch in (0, epoch)]

    def current(self, resource: ResourceInfo) -> bool:
        """Does its last report speak of the present epoch, and a failure of the present attempt?"""
        a = self.assignment
        before = resource.state is ResourceState.FAILED and resource.version < self.attempt_version
        return resource.node == a.node and resource.epoch == a.epoch and not before


class OperationType(StrEnum):
    """What an operator may ask for."""

    SWITCHOVER = "Switchover"
    FAILOVER = "Failover"
    RESOLVE = "Resolve"
    FENCE_CONFIRM = "FenceConfirm"
    PAUSE = "Pause"
    RESUME = "Resume"
    RETRY = "Retry"
    DRAIN = "Drain"
    UNDRAIN = "Undrain"
    RUN = "Run"
    RESTART_PROCESS = "RestartProcess"
    FENCE = "Fence"
    """Asked for by the leader, not by an operator."""


@dataclass(frozen=True, slots=True)
class OperationInfo:
    """An operator's command that has not ended yet."""

    name: str
    type: OperationType
    group: str = ""
    node: str = ""
    step: str = ""
    reason: str = ""
    role: str = ""
    actor: str = "admin"
    running: bool = False
    """Begun; False: pending."""
    epoch: int = 0
    """The epoch it made, once begun."""
    since: float | None = None
    """When this leader first saw it: its deadline counts from here."""
    command: str = ""
    """RUN, RESTART_PROCESS: what is done, in one line."""
    timeout: float = 0.0
    """RUN, FENCE: seconds that it may take."""
    by: str = ""
    """FENCE: the node whose agent does it."""
    outcome: str = ""
    """RUN, RESTART_PROCESS, FENCE: how it ended, as its node reported; empty until then."""
    succeeded: bool = False

    @property
    def cause(self) -> str:
        """For history: who asked for what, and why."""
        said = f": {self.reason}" if self.reason else ""
        return f"{self.type.value.lower()} by {self.actor}{said}"


@dataclass(frozen=True, slots=True)
class View:
    """Everything that :func:`hasys.placement.decide` looks at."""

    timing: Timing
    leader_since: float
    """When this leader's authority began."""
    silent_since: float
    """No earlier leader granted anything after this."""
    cold: bool = False
    """This leader never saw another one: the cluster is starting, absence proves little yet."""
    nodes: Mapping[str, NodeInfo] = field(default_factory=dict)
    groups: Mapping[str, GroupInfo] = field(default_factory=dict)
    operations: tuple[OperationInfo, ...] = ()
    """Oldest first."""
    by_tokens: bool = False
    """Two nodes without a third voter: silence alone lets no leader move anything (docs/two-nodes.md)."""
    taking_over: bool = False
    """Of two nodes the one that is left takes over by itself, without a leader: policies arbiter and alone-allowed."""
