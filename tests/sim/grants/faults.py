"""Seeded faults: each breaks one rule of the lease protocol. The checker must catch every one, or it proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from hasys.lease.assignments import GroupAssignment
from hasys.lease.granting import Granter
from hasys.lease.keeping import Effect, Keeper
from hasys.lease.wire import UNKNOWN_HEALTH, Grant, Health, KeepAlive
from hasys.model.timing import Timing
from hasys.store.port import Authority as Evidence
from tests.sim.grants.consensus import Store
from tests.sim.grants.history import Parts
from tests.sim.grants.kernel import MARGIN, Gate, LeaseOver

# ---------------------------------------------------------------------- the guard


class CountsFromReceipt(Keeper):
    """The lease counts from when the grant arrived, not from before the keep-alive was sent."""

    def received(self, grant: Grant, now: float) -> list[Effect]:
        if grant.nonce in self._sent:
            self._sent[grant.nonce] = (now, self._sent[grant.nonce][1])
        return super().received(grant, now)


class IgnoresAge(Keeper):
    """The age of ``t_q`` is not taken off."""

    def received(self, grant: Grant, now: float) -> list[Effect]:
        return super().received(replace(grant, age=0.0), now)


class AcceptsAnyNonce(Keeper):
    """A grant is counted from the newest keep-alive, whichever it echoes (a push with the wrong nonce is taken)."""

    def received(self, grant: Grant, now: float) -> list[Effect]:
        if self._sent:
            nonce = next(reversed(self._sent))
            grant = replace(grant, nonce=nonce, seq=self._sent[nonce][1])
        return super().received(grant, now)


class TakesOlderGrants(Keeper):
    """A deposed leader's grant is used after a newer leader's."""

    def received(self, grant: Grant, now: float) -> list[Effect]:
        self._newest = (-1, -1)
        return super().received(grant, now)


class ForgetsFloors(Keeper):
    """What was released, and said so, can be taken up again by a grant that was on its way."""

    _promised: dict[str, int]

    def released(self, group: str, epoch: int, now: float) -> list[Effect]:
        before = dict(self._floors)
        effects = super().released(group, epoch, now)
        self._promised = {**getattr(self, "_promised", {}), **self._floors}
        self._floors = before
        return effects

    def keepalive(self, now: float, health: Health = UNKNOWN_HEALTH) -> tuple[KeepAlive, tuple[str, ...]]:
        message, targets = super().keepalive(now, health)
        return replace(message, released=tuple(getattr(self, "_promised", {}).items())), targets


# ---------------------------------------------------------------------- the gate


class LooksAfterwards(Gate):
    """No fuse: the clock is read again after the transaction, and a late one is undone. Frozen before it and again
    right after it, the guard lets the address speak for too long."""

    def put(self, group: str, epoch: int, until: float, *, create: bool) -> Iterator[None]:
        k = self.kernel
        started = self.now()
        left = until - started - MARGIN
        if left <= 0:
            raise LeaseOver
        yield
        if not create and not k.alive(group):
            raise LeaseOver
        k.put(group, epoch, left)
        yield
        if self.now() - started > MARGIN:
            k.delete(group)
            raise LeaseOver


class CreatesFirst(LooksAfterwards):
    """A refresh is a plain add: it creates what had expired during a freeze."""

    def extend(self, group: str, epoch: int, until: float) -> Iterator[None]:
        yield from self.hold(group, epoch, until)


class MutesNever(Gate):
    """The kernel has no timer of its own: the address speaks until the guard says otherwise."""

    def put(self, group: str, epoch: int, until: float, *, create: bool) -> Iterator[None]:
        yield
        if create:
            self.kernel.put(group, epoch, 1e6)


# ---------------------------------------------------------------------- the leader


class IgnoresSilence(Granter):
    """A new leader does not wait for the grants of earlier ones."""

    def _earlier_over(self, outlives: float) -> float:
        return float("-inf")


class ReleaseFreesEarlier(Granter):
    """A release that this leader heard also counts against what earlier leaders granted to others."""

    def _earlier_over(self, outlives: float) -> float:
        if any(guard.last is not None and guard.last.released for guard in self._guards.values()):
            return float("-inf")
        return super()._earlier_over(outlives)


class ForgetsOwnGrants(Granter):
    """An assignment is named at once, whatever was granted before."""

    def _others_end(self, node: str, group: str, now: float, *, granted: bool = False) -> float:
        return float("-inf")


class CountsTooShort(Granter):
    """The leader counts a grant as over when four fifths of it have passed."""

    def _record(self, group: str, node: str, boot: str, epoch: int, t_q: float) -> None:
        super()._record(group, node, boot, epoch, t_q - 0.2 * self.timing.ttl)


class EndFreesUnrevoked(Granter):
    """The end of the previous holder's grant frees the group although its revocation is not committed, so that the
    next leader, to whom it reports the group held, goes on naming it."""

    def _released(self, node: str, group: str, a: GroupAssignment) -> bool:
        return True


class ForgetsOldTtl(Granter):
    """Only the present TTL counts after a change of timings."""

    def retime(self, timing: Timing, ttl_max: float) -> None:
        self.timing = timing
        self.ttl_max = self.timing.ttl


# ---------------------------------------------------------------------- the stores


class SilenceBeyondUptime(Store):
    """A voter that restarted claims a silence longer than it has been up."""

    def silence(self) -> float:
        restarted = self.world.now > 1.0 and self.last_ack == self.started
        return self.time() - self.last_ack + (10.0 if restarted else 0.0)


class SilentLeader(Store):
    """A former leader does not count the rounds that it sent itself."""

    def send_round(self) -> None:
        before = self.last_ack
        super().send_round()
        self.last_ack = before


class GrantsBeforeItsTerm(Store):
    """A leader answers before an entry of its own term is applied: its assignments may be old."""

    def authority(self) -> Evidence | None:
        lead = self.leading
        if lead is None:
            return None
        return Evidence(self.disk.term, self.applied, max(lead.t_q, self.time() - 0.01), lead.silent_since)


class GrantsWithoutRounds(Store):
    """A leader takes now for ``t_q``: nobody had to acknowledge it."""

    def authority(self) -> Evidence | None:
        evidence = super().authority()
        return None if evidence is None else replace(evidence, t_q=self.time())


FAULTS: Mapping[str, Callable[[], Parts]] = {
    "counts-from-receipt": lambda: Parts(keeper=CountsFromReceipt),
    "ignores-age": lambda: Parts(keeper=IgnoresAge),
    "any-nonce": lambda: Parts(keeper=AcceptsAnyNonce),
    "older-grants": lambda: Parts(keeper=TakesOlderGrants),
    "forgets-floors": lambda: Parts(keeper=ForgetsFloors),
    "looks-afterwards": lambda: Parts(gate=LooksAfterwards),
    "creates-first": lambda: Parts(gate=CreatesFirst),
    "mutes-never": lambda: Parts(gate=MutesNever),
    "ignores-silence": lambda: Parts(granter=IgnoresSilence),
    "release-frees-earlier": lambda: Parts(granter=ReleaseFreesEarlier),
    "forgets-own-grants": lambda: Parts(granter=ForgetsOwnGrants),
    "short-count": lambda: Parts(granter=CountsTooShort),
    "end-frees-unrevoked": lambda: Parts(granter=EndFreesUnrevoked),
    "forgets-old-ttl": lambda: Parts(granter=ForgetsOldTtl),
    "silence-beyond-uptime": lambda: Parts(store=SilenceBeyondUptime),
    "silent-leader": lambda: Parts(store=SilentLeader),
    "grants-before-its-term": lambda: Parts(store=GrantsBeforeItsTerm),
    "grants-without-rounds": lambda: Parts(store=GrantsWithoutRounds),
}
