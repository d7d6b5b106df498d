"""What happens in a history, drawn from its seed beforehand: a list of steps, each complete in itself.

A step ends what it began (a crashed member starts again, a cut heals), so that any step can be left out of a history:
that is how a failing one is made small. The mix is biased towards rare places: a power cut between a vote and its
disk, elections right after restarts, followers that are deaf to a leader that then dies, partial partitions of five.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from hasys.config import Member as ClusterMember
from tests.sim.store.world import QUICK_DISK, QUICK_NETWORK, Member, StoreWorld

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """``numbers`` are uniform in [0, 1): their meaning is the kind's own."""

    at: float
    kind: str
    who: str
    """``leader``, ``follower`` or a place in the list of members."""
    numbers: Numbers

    def __str__(self) -> str:
        return f"{self.at:7.3f} {self.kind} {self.who} {' '.join(f'{n:.2f}' for n in self.numbers)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A history before it happens."""

    seed: int
    count: int
    seconds: float
    steps: tuple[Step, ...]


def _between(low: float, high: float, number: float) -> float:
    return low + (high - low) * number


def _pick(world: StoreWorld, number: float, *, but: str = "") -> str:
    names = [n for n in sorted(world.present) if n != but]
    return names[int(number * len(names))]


def target(world: StoreWorld, step: Step) -> Member:
    """Who is meant, at the time of the step."""
    names = sorted(world.present)
    leading = [m.name for m in world.members() if m.core is not None and m.core.leading]
    if step.who == "leader" and leading:
        return world.machines[leading[-1]]
    if step.who == "follower":
        names = [n for n in names if n not in leading] or names
    place = int(step.who) if step.who.isdigit() else int(step.numbers[-1] * 97)
    return world.machines[names[place % len(names)]]


# ---------------------------------------------------------------------- processes
def crash(world: StoreWorld, member: Member, n: Numbers) -> None:
    world.crash(member.name, power=n[0] < 0.7)
    world.restart_later(member.name, _between(0.001, 0.1, n[1]) if n[2] < 0.5 else _between(0.2, 4.0, n[1]))


def blackout(world: StoreWorld, member: Member, n: Numbers) -> None:
    """All at once; they are back one after the other."""
    power = n[0] < 0.8
    for name in sorted(world.present):
        world.crash(name, power=power)
    spread = (0.0, 0.05, 1.0)[int(n[1] * 3)]
    for other in world.members():
        world.restart_later(other.name, 0.01 + world.clients.uniform(0.0, spread))


def crash_twice(world: StoreWorld, member: Member, n: Numbers) -> None:
    """The process dies while its disk is slow, comes back, and soon the machine loses its power: what the new process
    found may only have been in the kernel's memory."""
    name = member.name
    _slow_disk(world, member, 0.2, 1.0)
    for _ in range(4):
        world.load.send(member, world.load.mutation(member))
    dies = _between(0.002, 0.05, n[0])

    def comes_back() -> None:
        world.crash(name, power=False)
        world.restart_later(name, 0.001)

    world.at(dies, comes_back)
    world.at(dies + _between(0.003, 0.15, n[1]), lambda: world.crash(name, power=True))
    world.at(dies + 0.2 + n[2], lambda: world.start(name))


def trap(world: StoreWorld, member: Member, n: Numbers) -> None:
    """Whoever sends the next vote, request for votes or acknowledgement loses its power right afterwards."""
    kind = ("vote", "vote_request", "append_answer", "vote")[int(n[0] * 4)]
    for other in world.members():
        if n[1] < 0.7:
            _slow_disk(world, other, 0.02, 2.0)
    world.traps.append((kind, n[2] * 0.004))
    if "vote" in kind and n[1] < 0.8:
        depose(world, member, n)


def freeze(world: StoreWorld, member: Member, n: Numbers) -> None:
    world.freeze(member.name, _between(0.02, 1.5, n[0]))


def depose(world: StoreWorld, member: Member, n: Numbers) -> None:
    """The leader's process is stopped long enough for an election; a read is the first that it sees afterwards."""
    leader = world.machines[world.leader() or member.name]
    seconds = _between(0.4, 1.2, n[0])
    world.freeze(leader.name, seconds)
    world.at(seconds, lambda: world.load.read(leader))


def hand_over(world: StoreWorld, member: Member, n: Numbers) -> None:
    leader = world.leader()
    core = world.machines[leader].core if leader is not None else None
    if leader is not None and core is not None:
        core.hand_over(world.machines[leader].local(world.now))


# ---------------------------------------------------------------------- network
def _cut(world: StoreWorld, pairs: set[tuple[str, str]], seconds: float, why: str) -> None:
    world.say(f"{why}: {' '.join(f'{a}>{b}' for a, b in sorted(pairs))} cut for {seconds:.2f} s")
    world.cut |= pairs
    world.at(seconds, lambda: world.cut.difference_update(pairs))


def cut_one_way(world: StoreWorld, member: Member, n: Numbers) -> None:
    other = _pick(world, n[0], but=member.name)
    pairs = {(member.name, other)} | ({(other, member.name)} if n[1] < 0.5 else set())
    _cut(world, pairs, _between(0.1, 4.0, n[2]), "cut")


def isolate(world: StoreWorld, member: Member, n: Numbers) -> None:
    others = [o for o in world.machines if o != member.name]
    pairs = {(member.name, o) for o in others}
    if n[0] < 0.8:
        pairs |= {(o, member.name) for o in others}
    _cut(world, pairs, _between(0.2, 4.0, n[1]), "isolation")


def split(world: StoreWorld, member: Member, n: Numbers) -> None:
    """Two sides; sometimes one member hears both (a partial partition)."""
    names = sorted(world.present)
    side = {name for i, name in enumerate(names) if int(n[0] * 32) >> i & 1}
    bridge = {_pick(world, n[1])} if n[2] < 0.4 else set()
    pairs = {(a, b) for a in side - bridge for b in set(names) - side - bridge}
    _cut(world, pairs | {(b, a) for a, b in pairs}, _between(0.3, 3.0, n[3]), "partition")


def deaf_then_dead(world: StoreWorld, member: Member, n: Numbers) -> None:
    """All but one follower hear the leader; then it dies, and the deaf one is among those who elect."""
    leader = world.leader()
    if leader is None:
        return
    deaf = _pick(world, n[0], but=leader)
    others = {o for o in world.machines if o not in (leader, deaf)}
    wait = _between(0.15, 0.6, n[1])
    rate, world.load.rate = world.load.rate, 0.2  # nothing is written: else the deaf one could not win
    _cut(world, {(leader, deaf)} | {(o, deaf) for o in others}, wait, "deaf")

    def dies() -> None:
        world.load.rate = rate
        if n[2] < 0.5 and world.machines[leader].core is not None:
            world.crash(leader, power=True)
            world.restart_later(leader, 1.0)
        else:
            _cut(world, {(leader, o) for o in world.machines} | {(o, leader) for o in world.machines}, 1.5, "its end")

    world.at(wait, dies)


def bridge_dies(world: StoreWorld, member: Member, n: Numbers) -> None:
    """The leader reaches one follower alone, writes, and dies; soon after another round of the same."""
    leader = world.leader()
    if leader is None:
        return
    only = _pick(world, n[0], but=leader)
    rest = {o for o in world.machines if o not in (leader, only)}
    _cut(world, {(leader, o) for o in rest} | {(o, leader) for o in rest}, 0.6, "one follower left")
    for _ in range(1 + int(n[1] * 4)):
        world.load.send(world.machines[leader], world.load.mutation(world.machines[leader]))

    def dies() -> None:
        if world.machines[leader].core is not None:
            world.crash(leader, power=n[2] < 0.5)
            world.restart_later(leader, _between(0.02, 1.2, n[3]))

    world.at(_between(0.01, 0.35, n[2]), dies)


def figure_8(world: StoreWorld, member: Member, n: Numbers) -> None:
    """Two leaders, one after the other, write what nobody else gets; then the first leads again and goes on with its
    old entries (figure 8 of the Raft paper)."""
    first = world.leader()
    if first is None or world.cut:  # one trouble at a time: else it seldom comes to its end
        return
    back = world.now + 0.9
    _cut(world, _both_ways(world, {first}), 0.9, "isolation")
    for _ in range(3 + int(n[0] * 6)):
        world.load.send(world.machines[first], world.load.mutation(world.machines[first]))

    def second(left: int) -> None:
        """Whom others are about to vote for is heard no more, and alone once the first is back."""
        voters = [m.core for m in world.members() if m.name != first and m.core is not None]
        names = [c.name for c in voters if c.candidate and any(o is not c and o.term == c.term for o in voters)]
        if names:
            rest = max(0.0, back - world.now) + 0.001
            _cut(world, {(names[0], o) for o in world.machines if o != names[0]}, rest, "mute")
            world.at(rest, lambda: _cut(world, _both_ways(world, {names[0]}), 2.0, "isolation"))
        elif left:
            world.at(0.001, lambda: second(left - 1))

    second(900)


def _both_ways(world: StoreWorld, side: set[str]) -> set[tuple[str, str]]:
    """Every way between these members and the others."""
    pairs = {(a, b) for a in side for b in world.machines if b not in side}
    return pairs | {(b, a) for a, b in pairs}


def moves_at_election(world: StoreWorld, member: Member, n: Numbers) -> None:
    """The leader is cut off together with the node that holds the group; the next leader moves the group at once."""
    leader = world.machines[world.leader() or member.name]
    lost = {leader.name, world.load.holder(leader) or leader.name}
    _cut(world, _both_ways(world, lost), 2.0, "isolation")

    def moves(left: int) -> None:
        new = world.leader()
        if new is not None and new not in lost:
            for at in (0.0, 0.03, 0.06):
                world.at(at, lambda: world.load.move(world.machines[new]))
        elif left:
            world.at(0.01, lambda: moves(left - 1))

    moves(200)


def late_answers(world: StoreWorld, member: Member, n: Numbers) -> None:
    """Answers come a second late, while one leader follows the other: some meet a leader of another term."""
    share, gap = _between(0.1, 0.6, n[0]), _between(0.3, 0.9, n[1])
    world.late_answers = share
    world.say(f"{share:.0%} of the answers come late")

    def next_leader(left: int) -> None:
        leader = world.leader()
        if left == 0:
            world.late_answers = 0.0
        elif leader is not None:
            others = [name for name in sorted(world.present) if name != leader]
            _cut(world, {(leader, o) for o in others} | {(o, leader) for o in others}, 0.5, "isolation")
        if left > 0:
            world.at(gap, lambda: next_leader(left - 1))

    next_leader(6)


def weather(world: StoreWorld, member: Member, n: Numbers) -> None:
    loss, delay = (0.0, 0.0, 0.05, 0.3)[int(n[0] * 4)], (QUICK_NETWORK, (0.001, 0.06), (0.01, 0.12))[int(n[1] * 3)]
    late = (0.0, 0.01, 0.1)[int(n[2] * 3)]
    world.loss, world.delay, world.late = loss, delay, late
    world.say(f"weather: loss {loss}, delay {delay}, late {late}")

    def clears() -> None:
        if (world.loss, world.delay, world.late) == (loss, delay, late):
            world.loss, world.delay, world.late = 0.0, QUICK_NETWORK, 0.0

    world.at(_between(0.5, 5.0, n[3]), clears)


def slow_link(world: StoreWorld, member: Member, n: Numbers) -> None:
    way = (member.name, _pick(world, n[0], but=member.name))
    world.slow[way] = _between(0.05, 1.5, n[1])
    world.say(f"{way[0]}>{way[1]} is slow: up to {world.slow[way]:.2f} s")

    def recovers() -> None:
        world.slow.pop(way, None)

    world.at(_between(0.5, 4.0, n[2]), recovers)


def late_grants(world: StoreWorld, member: Member, n: Numbers) -> None:
    """The node that holds the group gets its grants late; then it is cut off, and the group moves."""
    leader = world.machines[world.leader() or member.name]
    holder = world.load.holder(leader)
    if holder in ("", leader.name):
        return
    way, most = (leader.name, holder), _between(0.1, 0.8, n[0])
    world.slow[way] = most
    world.say(f"grants from {leader.name} to {holder} come up to {most:.2f} s late")

    def moves() -> None:
        _cut(world, _both_ways(world, {holder}), 2.5, "isolation")
        world.slow.pop(way, None)
        for at in (0.01, 0.2):
            world.at(at, lambda: world.load.move(leader))

    world.at(_between(0.5, 1.5, n[1]), moves)


def drop_line(world: StoreWorld, member: Member, n: Numbers) -> None:
    world.drop_line(member.name, _pick(world, n[0], but=member.name), _between(0.005, 1.0, n[1] ** 2))


# ---------------------------------------------------------------------- disks
def _slow_disk(world: StoreWorld, member: Member, most: float, seconds: float) -> None:
    member.disk_delay = slow = (most / 10, most)
    world.at(seconds, lambda: setattr(member, "disk_delay", QUICK_DISK) if member.disk_delay == slow else None)


def slow_disk(world: StoreWorld, member: Member, n: Numbers) -> None:
    most = (0.05, 0.2, 2.0)[int(n[0] * 3)]
    world.say(f"slow disk: {member.name} up to {most} s")
    for other in world.members() if n[1] < 0.3 and most < 1.0 else (member,):
        _slow_disk(world, other, most, _between(0.5, 5.0, n[2]))


def disk_fails(world: StoreWorld, member: Member, n: Numbers) -> None:
    """The next sync gives an error, or there is no space left."""
    if n[0] < 0.5:
        member.disk.sync_fails = 1
    else:
        member.disk.full_after = int(n[1] * 2000)
    if n[2] < 0.5:
        name = member.name
        world.at(_between(0.01, 0.5, n[1]), lambda: crash(world, world.machines[name], (0.0, n[3], 0.0)))


def wipe(world: StoreWorld, member: Member, n: Numbers) -> None:
    """A new disk. One at a time: two at once may be more than the cluster promises to bear."""
    members = [world.machines[name] for name in world.membership()]
    for other in members:
        other.wiped = other.wiped and not world.votes(other)
    if world.leader() is not None and all(world.votes(o) and not o.wiped for o in members) and member in members:
        member.seed = world.membership()  # who sets a machine up anew gives it a node.yaml of today
        world.crash(member.name, power=True, wipe=True)
        world.restart_later(member.name, _between(0.01, 2.0, n[0]))


# ---------------------------------------------------------------------- members
def joins(world: StoreWorld, member: Member, n: Numbers) -> None:
    """A machine that was no member, with an empty disk, becomes one: first a learner, then a voter."""
    outside = [name for name in world.machines if name not in world.membership()]
    if world.leader() is None or not outside:
        return
    name = outside[int(n[0] * len(outside))]
    world.say(f"{name} joins")
    world.present.add(name)
    world.machines[name].seed = (*world.membership(), name)
    world.start(name)
    world.change_members(lambda core, now: core.add_member(now, ClusterMember(name, "Voter", ())))
    world.at(4.0, lambda: world.retire(name))


def leaves(world: StoreWorld, member: Member, n: Numbers) -> None:
    """A voter is let go, and switched off; never fewer than three stay."""
    leader = world.leader()
    core = world.machines[leader].core if leader is not None else None
    if core is None or len(core.voters) <= 3 or member.name == leader:
        return
    name = member.name
    world.say(f"{name} leaves")
    if world.change_members(lambda core, now: core.remove_member(now, name)):
        world.at(_between(0.05, 2.0, n[0]), lambda: world.retire(name))


def compact(world: StoreWorld, member: Member, n: Numbers) -> None:
    """A snapshot now."""
    if member.core is not None and not world.is_frozen(member):
        world.snapshots += 1
        before = member.core.compact_entries
        member.core.compact_entries = 1
        world._pump(member)
        if member.core is not None:
            member.core.compact_entries = before


# ---------------------------------------------------------------------- load
def load(world: StoreWorld, member: Member, n: Numbers) -> None:
    world.load.rate = (0.5, 3.0, 6.0, 20.0)[int(n[0] * 4)]


def burst(world: StoreWorld, member: Member, n: Numbers) -> None:
    """Many writes at once, through one member."""
    for _ in range(5 + int(n[0] * 40)):
        world.load.send(member, world.load.mutation(member))


Happening = Callable[[StoreWorld, Member, Numbers], None]
KINDS: dict[str, tuple[Happening, int]] = {
    f.__name__: (f, weight)
    for f, weight in (
        (crash, 16), (blackout, 6), (crash_twice, 8), (trap, 12), (freeze, 6), (depose, 8), (hand_over, 4),
        (cut_one_way, 8), (isolate, 8), (split, 10), (deaf_then_dead, 8), (bridge_dies, 8), (weather, 8),
        (slow_link, 6), (drop_line, 5), (late_answers, 8), (late_grants, 6),
        (figure_8, 4), (moves_at_election, 4), (slow_disk, 8), (disk_fails, 5), (wipe, 3),
        (joins, 6), (leaves, 6), (compact, 8), (load, 8), (burst, 4),
    )
}  # fmt: skip


def draw(seed: int, seconds: float = 60.0, focus: tuple[str, ...] = ()) -> Plan:
    """The plan of a seed; with a focus, of these kinds of steps alone."""
    rng = random.Random(f"plan of {seed}")
    count = 3 if rng.random() < 0.6 else 5
    kinds = sorted(rng.sample(sorted(KINDS), rng.choice((5, 9, len(KINDS)))))  # each history has its own troubles
    return Plan(seed, count, seconds, tuple(_steps(rng, sorted(focus) or kinds, count, seconds)))


def _steps(rng: random.Random, kinds: list[str], count: int, seconds: float) -> Iterator[Step]:
    at = 0.5
    hectic = rng.random() < 0.6
    while at < seconds:
        (kind,) = rng.choices(kinds, [KINDS[k][1] for k in kinds])
        who = rng.choice(("leader", "leader", "follower", str(rng.randrange(count))))
        yield Step(at, kind, who, tuple(rng.random() for _ in range(4)))
        if rng.random() < 0.1:
            hectic = not hectic
        at += rng.uniform(0.01, 0.6) if hectic else rng.uniform(0.5, 4.0)


def smaller(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """The same without some of them: first large parts, then single steps, then pairs when few are left."""
    size = len(steps) // 2
    while size >= 1:
        for start in range(0, len(steps), size):
            yield steps[:start] + steps[start + size :]
        size //= 2
    if len(steps) <= 8:
        for a, b in combinations(range(len(steps)), 2):
            yield tuple(s for i, s in enumerate(steps) if i not in (a, b))
