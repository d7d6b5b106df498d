"""One history from its plan to its end; and the smallest one that fails in the same way."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.sim.store.schedule import KINDS, Plan, Step, smaller, target
from tests.sim.store.world import Parts, StoreWorld, small_messages


@dataclass(frozen=True, slots=True)
class Counted:
    """What happened in a history: silence of the checker means little when nothing does."""

    acknowledged: int = 0
    reads: int = 0
    elections: int = 0
    crashes: int = 0
    compactions: int = 0
    handovers: int = 0
    relists: int = 0
    resumed: int = 0
    members: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(*(getattr(self, f) + getattr(other, f) for f in self.__slots__))


class Failed(Exception):
    """A history broke a promise, or did not recover, or a member raised. ``world`` has the trace."""

    def __init__(self, plan: Plan, world: StoreWorld, cause: BaseException) -> None:
        super().__init__(f"seed {plan.seed}: {type(cause).__name__}: {cause}")
        self.plan, self.world, self.cause = plan, world, cause

    def sort(self) -> str:
        """Failures of one sort begin alike."""
        return f"{type(self.cause).__name__}: {str(self.cause).partition(':')[0][:40]}"


def play(plan: Plan, parts: Parts | None = None, *, trace: bool = False) -> Counted:
    """Let a history happen. Raises :class:`Failed`."""
    world = StoreWorld(plan.count, plan.seed, parts, trace=trace)
    with small_messages(random.Random(f"messages of {plan.seed}")):
        try:
            world.begin()
            start = world.now
            for step in plan.steps:
                world.run(max(0.0, start + step.at - world.now))
                happen(world, step)
            world.run(max(0.0, start + plan.seconds - world.now))
            world.settle()
        except Exception as e:
            raise Failed(plan, world, e) from e
    return counted(world)


def happen(world: StoreWorld, step: Step) -> None:
    member = target(world, step)
    world.say(f"- {step.kind} {member.name}")
    KINDS[step.kind][0](world, member, step.numbers)
    if member.core is not None:
        world._pump(member)


def counted(world: StoreWorld) -> Counted:
    compactions = sum(m.core._journal.snapshot is not None for m in world.members() if m.core is not None)
    return Counted(
        acknowledged=world.load.done,
        reads=world.load.reads,
        elections=world.elections,
        crashes=world.crashes,
        compactions=compactions + world.snapshots,
        handovers=world.leases.handovers,
        relists=sum(w.relists for w in world.watchers),
        resumed=sum(w.resumed for w in world.watchers),
        members=world.changes,
    )


def shrink(failed: Failed, parts: Parts | None = None, *, tries: int = 200) -> Failed:
    """Leave out steps as long as it fails in the same way; the last one is traced."""
    sort, best = failed.sort(), failed
    end = max(0.0, failed.world.now)
    plan = replace(failed.plan, steps=tuple(s for s in failed.plan.steps if s.at <= end))
    again = True
    while again and tries > 0:
        again = False
        for steps in smaller(plan.steps):
            tries -= 1
            if tries <= 0:
                break
            found = fails(replace(plan, steps=steps), parts)
            if found is not None and found.sort() == sort:
                plan, best, again = found.plan, found, True
                break
    return fails(plan, parts, trace=True) or best


def fails(plan: Plan, parts: Parts | None = None, *, trace: bool = False) -> Failed | None:
    try:
        play(plan, parts, trace=trace)
    except Failed as e:
        return e
    return None
