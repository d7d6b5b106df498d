"""The one timing model: every duration that safety or liveness depends on, and the inequalities between them.

All durations are seconds of a monotonic clock. No two nodes share a clock; each clock's rate is assumed to be within
``RHO`` of true time. Sources: design "One timing model"; Gray and Cheriton, "Leases" (SOSP 1989), for counting a lease
from before its request was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

RHO = 0.01
"""Largest assumed rate error of a monotonic clock (1 %)."""


class TimingRefused(ValueError):
    """The timings contradict each other; the message carries both numbers and says which to change."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in seconds. ``check`` must pass before anything uses them."""

    ttl: float
    """Life of a grant, from the send time of the heartbeat round that proves the leader's majority."""
    heartbeat: float
    """The leader's period between heartbeat rounds."""
    keepalive: float
    """A guard's period between keep-alive datagrams; half of it (:attr:`retry`) while an answer is missing."""
    leader_fallback: float
    """A leader without a majority's answers for this long steps down; a node that confirms no grant for this long gets
    no more. Must stay below ``election_min``; above two keep-alive periods, for what a keep-alive confirms is one
    period old, and two when the next one comes."""
    election_min: float
    """A follower that hears no leader for this long may ask for votes (the first timeout slot)."""
    election_max: float
    """The last timeout slot: every voter has asked for votes by then."""
    rtt: float
    """Largest round trip between members that the bound accounts for."""
    fsync: float
    """Longest fsync that the bound accounts for."""
    fence_budget: float
    """Left of a lease when the guard must begin to give up, so that fencing ends before the lease."""
    agent_grace: float = 10.0
    """How long the guard keeps the lease without an agent before it fences."""

    def check(self) -> Timing:
        """Return self, or raise :class:`TimingRefused` naming the first inequality that does not hold."""
        for f in fields(self):
            if not getattr(self, f.name) > 0:
                raise TimingRefused(f"timing.{f.name} is {show(getattr(self, f.name))}: must be more than 0")
        _below("3 x heartbeat", 3 * self.heartbeat, "leader_fallback", self.leader_fallback)
        _below("leader_fallback", self.leader_fallback, "election_min", self.election_min)
        _below("election_min", self.election_min, "election_max", self.election_max)
        _below(
            "heartbeat + keepalive + election_max + 2 x (rtt + fsync) + one retry (keepalive / 2)",
            self.leader_change,
            "ttl - fence_budget",
            self.ttl - self.fence_budget,
        )
        return self

    def admit(self) -> Timing:
        """:meth:`check`, and what is asked of timings when they are chosen. What a version that asked less has stored
        goes on, and costs a keep-alive period now and then."""
        self.check()
        _below("2 x keepalive", 2 * self.keepalive, "leader_fallback", self.leader_fallback)
        return self

    def patient(self, ttl_max: float) -> Timing:
        """By which guards are judged while some may still keep the periods of a longer TTL of up to ``ttl_max``.

        A guard learns of other periods by the answer to its next keep-alive; nobody may take it for lost before. What
        they were a new leader does not know; the inequalities of :meth:`check` bound them: 1.5 x keepalive < ttl.
        """
        if ttl_max <= self.ttl:
            return self
        longest = ttl_max / 1.5
        return replace(
            self,
            ttl=ttl_max,
            keepalive=max(self.keepalive, longest),
            leader_fallback=max(self.leader_fallback, 2 * longest),
        )

    @property
    def leader_change(self) -> float:
        """Longest time from the last grant of a leader that dies to the first grant of the next one."""
        return self.heartbeat + self.keepalive + self.election_max + 2 * (self.rtt + self.fsync) + self.retry

    @property
    def retry(self) -> float:
        """After this long without an answer, or while a group waits to be granted, a guard asks again."""
        return self.keepalive / 2

    @property
    def grant_over(self) -> float:
        """After this long on another clock, a grant of ``ttl`` has ended on its holder's."""
        return over(self.ttl)

    @property
    def suspicion(self) -> float:
        """Silence of a guard after which its groups are assigned elsewhere: late enough to forgive a hiccup, early
        enough that the commit is done when the grant ends."""
        return self.ttl - 2 * (self.rtt + self.fsync) - self.heartbeat

    @property
    def failover_bound(self) -> float:
        """L1: longest time from the loss of an Active to its address being served elsewhere (addresses only).

        The grant ends (counted on the new side), then at most an election that began late, one push, one retry.
        """
        return max(self.grant_over, self.leader_change) + self.retry + 2 * (self.rtt + self.fsync)


def over(ttl: float) -> float:
    """Time that must pass on one clock until a duration ``ttl`` has passed on any other: ttl (1 + rho) / (1 - rho).

    TTL (1 + 2 rho) is 0.02 % too short when both clocks are at their limits: docs/decisions/0002.
    """
    return ttl * (1 + RHO) / (1 - RHO)


def show(seconds: float) -> str:
    """A duration in manifest spelling: ``500ms``, ``1.5s``, ``10m``, ``1h``."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    if seconds < 1:
        return f"{seconds * 1000:.6g}ms"
    return f"{seconds:.6g}s"


def _below(left: str, a: float, right: str, b: float) -> None:
    if not a < b:
        raise TimingRefused(f"timing: {left} = {show(a)} must be below {right} = {show(b)}")


PROFILES: dict[str, Timing] = {
    "default": Timing(
        ttl=1.1,
        heartbeat=0.14,
        keepalive=0.145,
        leader_fallback=0.43,
        election_min=0.45,
        election_max=0.57,
        rtt=0.01,
        fsync=0.02,
        fence_budget=0.1,
    ),
    "fast": Timing(
        ttl=0.5,
        heartbeat=0.04,
        keepalive=0.06,
        leader_fallback=0.13,
        election_min=0.15,
        election_max=0.24,
        rtt=0.005,
        fsync=0.01,
        fence_budget=0.05,
    ),
    "wan": Timing(
        ttl=5.0,
        heartbeat=0.4,
        keepalive=0.6,
        leader_fallback=1.4,
        election_min=1.6,
        election_max=2.6,
        rtt=0.3,
        fsync=0.1,
        fence_budget=0.25,
    ),
}
"""Named settings; ``default`` unless chosen at init. Each passes :meth:`Timing.admit`. Whoever chooses one stores its
figures: a later version may mean others by the name."""

BY_NAME: dict[str, Timing] = {
    **PROFILES,
    "default": Timing(
        ttl=1.0,
        heartbeat=0.115,
        keepalive=0.15,
        leader_fallback=0.35,
        election_min=0.37,
        election_max=0.49,
        rtt=0.01,
        fsync=0.02,
        fence_budget=0.1,
    ),
}
"""What the name of a profile means where it stands alone: in an object or a node.yaml of a version that wrote no
figures. Members of two versions must read the same there, so this never changes, whatever becomes of ``PROFILES``."""


def figures(timing: Timing) -> dict[str, tuple[str, float]]:
    """The spelling of each figure in manifests and node.yaml -> its name here, and its value."""
    names = [field.name for field in fields(timing)]
    spelled = [first + "".join(word.capitalize() for word in rest) for first, *rest in (n.split("_") for n in names)]
    return {key: (name, getattr(timing, name)) for key, name in zip(spelled, names, strict=True)}


def profile(name: str, own: Mapping[str, float], meaning: Mapping[str, Timing] = PROFILES) -> Timing:
    """The checked timing of a profile with own figures laid over. Raises :class:`TimingRefused`."""
    try:
        base = meaning[name]
    except KeyError:
        raise TimingRefused(f"profile {name!r} is unknown: use one of {', '.join(meaning)}") from None
    return replace(base, **own).check()
