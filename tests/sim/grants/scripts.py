"""Histories written by hand: the one order of events in which a certain rule is all that stands between two holders.

Each is played without a seeded fault (nothing may happen) and with it (the checker must see it). All begin alike: three
voters n1, n2, w with perfect clocks and network; n1 leads, and n2 holds the group by 2.9 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from hasys.lease.wire import Grant
from tests.sim.grants.consensus import Store
from tests.sim.grants.history import TIMINGS, History, Parts
from tests.sim.grants.state import Assign, Command, Retime
from tests.sim.grants.world import Clock

START = 3.0


class Script(History):
    """A history without chance, but for the phases of timers."""

    profile = "default"

    def __init__(self, seed: int, parts: Parts | None = None, *, trace: bool = False) -> None:
        super().__init__(seed, parts, "everything", trace=trace)

    def draw(self) -> None:
        """Instead of what the seed would choose."""
        self.timing = TIMINGS[self.profile]
        self.nodes, self.voters, self.groups = ("n1", "n2"), ("n1", "n2", "w"), ("web",)
        self.lag = self.freezes = 0.0

    def clock(self) -> Clock:
        return Clock(1.0, 0.0)

    def wanted(self, store: Store, group: str) -> Command | None:
        if group not in store.state.groups:
            return Assign(group, 0, "n2", True)
        return super().wanted(store, group)

    def stop_takes(self) -> float:
        return 2.0

    def at(self, when: float, call: Callable[[], None]) -> None:
        self.world.at(when, call)

    def cut_off(self, *pairs: tuple[str, str]) -> None:
        self.world.cuts |= {*pairs, *((b, a) for a, b in pairs)}

    def join(self, *pairs: tuple[str, str]) -> None:
        self.world.cuts -= {*pairs, *((b, a) for a, b in pairs)}

    def store(self, name: str) -> Store:
        return self.stores[name]

    def script(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        self.script()
        self.world.run(START - 0.1)
        assert self.world.holder("web") == "n2", "the script does not begin as it says"
        self.world.run(START + 3.0)


class BothOthersRestart(Script):
    """n2 is cut off with a fresh grant; the two other voters restart, forget that they acknowledged its round, and
    elect one of themselves."""

    def script(self) -> None:
        self.at(START, lambda: self.cut_off(("n2", "n1"), ("n2", "w")))
        for name in ("n1", "w"):
            self.at(START + 0.03, self.store(name).stop)
            self.at(START + 0.04, partial(self.start_store, name))


class TheLeaderVotes(Script):
    """w heard nothing for a second; the leader n1, which granted a moment ago, votes for it."""

    def script(self) -> None:
        self.at(START - 1.0, lambda: self.cut_off(("w", "n1"), ("w", "n2")))

        def elect() -> None:
            self.cut_off(("n2", "n1"), ("n2", "w"))
            self.join(("w", "n1"))
            self.store("w").campaign()

        self.at(START, elect)


class ShorterTtlThenElection(Script):
    """The TTL is lowered while n2 holds a grant of the longer one; a new leader knows the new TTL only."""

    profile = "slow"

    def script(self) -> None:
        def change() -> None:
            self.store("n1").propose(Retime(TIMINGS["default"]))
            self.cut_off(("n2", "n1"), ("n2", "w"))

        self.at(START, change)
        self.at(START + 0.2, lambda: self.store("w").campaign())


class DeposedWhileMoving(Script):
    """A planned move from n2 to n1 is under way. n1 leads, hears n2 no more, and is deposed without knowing. The new
    leader w lets n2 stop in order, because it reports the group held; n1, frozen until n2's grant from n1 has ended by
    n1's count, grants the group to itself. Only the rule that without a committed revocation nothing but n2's release
    frees the group keeps n1 from it."""

    def script(self) -> None:
        n1 = self.store("n1")
        self.at(START, lambda: n1.propose(Assign("web", 1, "n1", False)))
        self.at(START + 0.1, lambda: self.world.cuts.add(("n2", "n1")))

        def depose() -> None:
            self.cut_off(("n1", "n2"), ("n1", "w"))
            self.store("w").campaign()

        self.at(START + 0.82, depose)
        self.at(START + 0.88, lambda: n1.freeze(0.25))


class GrantArrivesAfterTheRelease(Script):
    """A planned move: n2 released the group and said so, then a copy of an earlier grant arrives, of the very version
    that its guard knows, while its agent still sees a store that was frozen before the move."""

    def script(self) -> None:
        self.at(START - 0.1, lambda: self.store("n2").freeze(3.0))
        self.at(START, lambda: self.store("n1").propose(Assign("web", 1, "n1", False)))

    def stop_takes(self) -> float:
        return 0.15

    def deliver(self, leader: str, grant: Grant) -> None:
        super().deliver(leader, grant)
        if grant.node == "n2" and self.world.now >= START:
            self.world.at(self.world.now + 0.25, partial(super().deliver, leader, grant))


class ReleasedByOneHeldByAnother(Script):
    """Two moves in a row: n2 holds epoch 1 and is cut off, n3 got epoch 2 and released it unused, n1 is to have 3.
    A new leader hears the release; what n2 was granted by the old one it cannot know."""

    def draw(self) -> None:
        super().draw()
        self.nodes = self.voters = ("n1", "n2", "n3")

    def stop_takes(self) -> float:
        return 0.03

    def script(self) -> None:
        n1 = self.store("n1")
        self.at(START, lambda: n1.propose(Assign("web", 1, "n3", False)))
        self.at(START + 0.01, lambda: self.cut_off(("n2", "n1"), ("n2", "n3")))
        self.at(START + 0.02, lambda: n1.propose(Assign("web", 2, "n1", False)))
        self.at(START + 0.3, lambda: self.store("n3").campaign())


SCRIPTS: Mapping[str, type[Script]] = {
    "silence-beyond-uptime": BothOthersRestart,
    "silent-leader": TheLeaderVotes,
    "forgets-old-ttl": ShorterTtlThenElection,
    "end-frees-unrevoked": DeposedWhileMoving,
    "forgets-floors": GrantArrivesAfterTheRelease,
    "release-frees-earlier": ReleasedByOneHeldByAnother,
}
"""Seeded fault -> the history in which only the rule that it breaks prevents two holders."""
