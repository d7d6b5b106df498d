"""The consensus core under every fault at once, in virtual time: what must never happen, and what must in the end.

Each seed is one history. Every step of it is checked: one leader per term, equal logs, equal order of applied commands,
and no proof of an earlier leader younger than a later one believes. In the end: no acknowledged write is lost.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim.raft_world import World


def stop_or_start(world: World, name: str, power: bool) -> None:
    if world.machines[name].core is None:
        world.start(name)
    else:
        world.crash(name, power=power and world.rng.random() < 0.7)


def blackout(world: World, name: str, power: bool) -> None:
    """All at once; some are back at once."""
    for machine in world.machines.values():
        if machine.core is not None:
            world.crash(machine.name, power=power)
    for machine in world.machines.values():
        if world.rng.random() < 0.7:
            world.start(machine.name)


def cut_one_way(world: World, name: str, power: bool) -> None:
    other = world.rng.choice([m for m in world.machines if m != name])
    world.cut |= {(name, other)} | ({(other, name)} if world.rng.random() < 0.6 else set())


def weather(world: World, name: str, power: bool) -> None:
    world.loss = world.rng.choice((0.0, 0.0, 0.05, 0.3))
    world.delay = world.rng.choice(((0.0002, 0.003), (0.0002, 0.003), (0.001, 0.06), (0.01, 0.12)))


def disk(world: World, name: str, power: bool) -> None:
    delays = ((0.0001, 0.004), (0.005, 0.05), (0.02, 0.2), (0.5, 2.0))
    if world.rng.random() < 0.4:
        for machine in world.machines.values():
            machine.disk_delay = world.rng.choice(delays[:3])
    world.machines[name].disk_delay = world.rng.choice(delays)


def freeze(world: World, name: str, power: bool) -> None:
    world.freeze(name, world.rng.uniform(0.05, 1.5))


def isolate(world: World, name: str, power: bool) -> None:
    world.isolate(name)


def heal(world: World, name: str, power: bool) -> None:
    world.heal()


FAULTS: dict[Callable[[World, str, bool], None], int] = {
    stop_or_start: 30, blackout: 8, cut_one_way: 14, weather: 12, disk: 14, freeze: 10,
    isolate: 10, heal: 25,
}  # fmt: skip


def trouble(world: World, *, power: bool) -> None:
    """One fault or one repair; the leader is hit more often than others."""
    rng = world.rng
    name = world.leader() if rng.random() < 0.4 else None
    (fault,) = rng.choices(list(FAULTS), list(FAULTS.values()))
    fault(world, name or rng.choice(list(world.machines)), power)
    if all(m.core is None for m in world.machines.values()):
        world.start(rng.choice(list(world.machines)))


def history(world: World, seconds: float, *, power: bool) -> None:
    """Writes from everywhere while one fault follows the other."""
    world.start_all()
    history_goes_on(world, seconds, power=power)


def history_goes_on(world: World, seconds: float, *, power: bool) -> None:
    until = world.now + seconds
    next_trouble = world.now + 1.0
    while world.now < until:
        world.run(world.rng.expovariate(40))
        for _ in range(world.rng.choice((1, 1, 1, 20))):
            world.write(world.rng.choice(list(world.machines)))
        if world.now >= next_trouble:
            trouble(world, power=power)
            next_trouble = world.now + world.rng.uniform(0.02, 0.7)


def wipe(world: World) -> None:
    """Somebody replaces the disk of one member, at most once in a history: that member is a minority of its own."""
    name = world.rng.choice(list(world.machines))
    if world.machines[name].core is not None:
        world.crash(name, power=True, wipe=True)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
@pytest.mark.parametrize(("count", "power", "seeds"), [(3, False, 6), (3, True, 16), (5, True, 4)])
def test_no_acknowledged_write_is_lost_and_no_term_has_two_leaders(
    block: int, count: int, power: bool, seeds: int
) -> None:
    acknowledged = 0
    for seed in range(block * seeds, (block + 1) * seeds):
        world = World(count, seed)
        history(world, 12.0, power=power)
        world.settle()
        acknowledged += len(world.acknowledged)
    assert acknowledged > 100


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_a_wiped_member_costs_no_acknowledged_write_and_votes_again_in_the_end(block: int) -> None:
    for seed in range(block * 6, (block + 1) * 6):
        world = World(3, 1000 + seed)
        history(world, 4.0, power=True)
        world.settle()
        wipe(world)
        history_goes_on(world, 4.0, power=True)
        world.settle()
