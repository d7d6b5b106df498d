"""A leader that was cut off with megabytes of entries that nobody else has comes back, in every case."""

from __future__ import annotations

import pytest

from hasys.store.raft.core import Core
from tests.sim.raft_world import World

ENTRY = 64 * 1024
"""Bytes of one entry of the tail."""
TAIL = 48
"""Entries of it: 3 MiB."""
REJOINED = 3.0
"""Seconds from the healing of the network until the old leader has, on disk, all that was written elsewhere."""


class Trial(World):
    """Three members, one of them cut off with a tail of its own. In half of the trials the others' logs soon begin
    with a snapshot behind the fork."""

    def __init__(self, seed: int) -> None:
        super().__init__(3, seed)
        self.compacts = self.rng.random() < 0.5

    def make_core(self, machine):  # type: ignore[no-untyped-def]  # as inherited
        core = super().make_core(machine)
        if not self.compacts:
            core.compact_bytes, core.compact_entries = 2**30, 2**30
        return core

    def core(self, name: str) -> Core:
        core = self.machines[name].core
        assert core is not None
        return core

    def diverge(self) -> str:
        """Cut the leader off, in one direction or both, in the middle of a burst; returns its name."""
        old = str(self.leader())
        machine, core = self.machines[old], self.core(old)
        others = [n for n in self.machines if n != old]
        kind = self.rng.choice(("both", "deaf", "mute"))
        for other in others:
            if kind != "mute":
                self.cut.add((other, old))
            if kind != "deaf":
                self.cut.add((old, other))
        for number in range(TAIL):
            core.propose(machine.local(self.now), b"tail %d " % number + b"." * ENTRY, lambda _: None)
            if number % 8 == 7:
                self._pump(machine)
        self._pump(machine)
        return old


@pytest.mark.parametrize("seed", range(40))
def test_a_diverged_old_leader_with_megabytes_of_tail_rejoins(seed: int) -> None:
    world = Trial(5000 + seed)
    world.start_all()
    world.settle()
    old = world.diverge()
    assert world.core(old)._journal.last >= TAIL
    world.run_until(lambda: world.leader() not in (None, old), 5.0)
    for _ in range(world.rng.choice((1, 30, 200))):
        new = world.leader()
        if new is not None:
            world.write(new)
        world.run(0.005)
    if world.rng.random() < 0.4:
        world.crash(old, power=world.rng.random() < 0.5)
        world.start(old)
    world.run(world.rng.uniform(0, 2.0))
    world.heal()
    wanted = max(world.acknowledged.values(), default=1)
    took = world.run_until(
        lambda: world.core(old)._journal.durable_index >= wanted and world.core(old).applied >= wanted, 20.0
    )
    assert took < REJOINED
    world.settle()
    forked = [c for c in world.machines[old].ledger.entries.values() if c.startswith(b"tail")]  # type: ignore[union-attr]
    others = next(m.ledger for n, m in world.machines.items() if n != old)
    assert others is not None
    assert all(c in others.entries.values() for c in forked), "what nobody committed was applied"
