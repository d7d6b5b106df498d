"""What the strikes of a round have broken so far, and what may be expected of the cluster in that state. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

NETWORKS = ("public", "heartbeat")


@dataclass
class Damage:
    """Filled strike by strike; forgotten when everything is repaired."""

    members: tuple[str, ...]
    nodes: tuple[str, ...]
    off: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    """Machines that are partly frozen, deaf or mute: nothing is expected with their help."""
    unplugged: set[tuple[str, str]] = field(default_factory=set)
    """(machine, network) without any traffic."""
    unguarded: bool = False
    """A guard was killed or frozen: without a watchdog nothing is promised of processes meanwhile (S1b)."""
    unmended: set[str] = field(default_factory=set)
    """Machines whose guard is frozen: what root takes away from the kernel there, nobody puts back (not promised)."""
    cut: set[frozenset[str]] = field(default_factory=set)
    """Pairs of machines that do not reach each other."""

    def reaches(self, one: str, other: str) -> bool:
        """Some network carries traffic between the two, both ways."""
        if frozenset((one, other)) in self.cut:
            return False
        return any((one, n) not in self.unplugged and (other, n) not in self.unplugged for n in NETWORKS)

    def must_serve(self) -> bool:
        """Is there a majority of sound machines, each reaching each, with a node in it that clients reach? (L1)

        Deliberately narrow: in every state outside of it nothing is claimed, but that there are never two.
        """
        sound = [m for m in self.members if m not in self.off | self.doubtful]
        majority = len(self.members) // 2 + 1
        for size in range(majority, len(sound) + 1):
            for some in combinations(sound, size):
                if not all(self.reaches(a, b) for a, b in combinations(some, 2)):
                    continue
                if any(n in self.nodes and (n, "public") not in self.unplugged for n in some):
                    return True
        return False
