"""Changes of the members, by the leader: one voter at a time, none that would lose the majority that lives.

A new member is a learner first: it copies the log and does not count. Once it has caught up and its journal is admitted
(see standing), the leader makes it a voter by a second entry. So adding a member costs no redundancy while it copies.
"""

from __future__ import annotations

from hasys.config import Member
from hasys.model.errors import Refused, Unavailable
from hasys.store.raft.foundation import MEMBERS
from hasys.store.raft.leading import NEARLY, Leading
from hasys.store.raft.membership import Membership


class Changing(Leading):
    """Adding, promoting, removing. Refusals come before anything has changed."""

    def add_member(self, now: float, member: Member) -> int:
        """Take a member in as learner, or change a member's addresses; returns the entry to wait for (the newest
        change, when there is nothing to do). Raises ``Refused`` with the reason, ``Unavailable`` without authority."""
        self._enter(now)
        self._check_ready()
        known = self.membership.get(member.name)
        if known == member:
            return self._memberships[-1][0]
        if known is not None and known.role != member.role:
            raise Refused(f"{member.name} is a {known.role}: remove it before it returns as a {member.role}")
        if known is not None:
            return self._change(self.membership.with_addresses(member))
        if self.membership.learners:
            joining = ", ".join(sorted(self.membership.learners))
            raise Refused(f"{joining} has not caught up yet: one change at a time (or remove it again)")
        return self._change(self.membership.with_learner(member))

    def remove_member(self, now: float, name: str) -> int:
        """Let a member go; returns the entry to wait for. Raises as ``add_member`` does."""
        wanted = self._without(now, name)
        if name == self.name:
            raise Unavailable(f"{name} leads: it hands over first")
        return self._change(wanted)

    def check_removal(self, now: float, name: str) -> None:
        """Raises what ``remove_member`` would, of the leader too: who hands over first, and is refused by the next
        leader, has moved the leadership for nothing, and lost the answer with it."""
        self._without(now, name)

    def _without(self, now: float, name: str) -> Membership:
        self._enter(now)
        self._check_ready()
        if name not in self.membership.names:
            raise Refused(f"{name} is no member of the store")
        wanted = self.membership.without(name)
        if name not in self.membership.learners:
            self._check_majority(wanted, f"remove {name}")
        return wanted

    def living(self) -> frozenset[str]:
        """Voters that count and have answered one of the last rounds; meaningful on a leader."""
        alive = {
            peer
            for peer, progress in self._progress.items()
            if progress.voting and progress.connected and progress.answered_round >= self._round - 2
        }
        return frozenset(alive | {self.name}) if self.leading else frozenset()

    def members_settled(self) -> bool:
        """The newest change of the members is committed. It is in force before that, and may still be undone."""
        return self._memberships[-1][0] <= self.committed

    def _check_ready(self) -> None:
        """An entry of the own term is committed, and no other change is under way."""
        if self.authority() is None:
            raise Unavailable(f"{self.name} does not lead with a majority")
        if not self.members_settled():
            raise Unavailable("another change of the members is not committed yet: one at a time")

    def _check_majority(self, wanted: Membership, what: str) -> None:
        if not wanted.voters:
            raise Refused(f"cannot {what}: it is the only voter")
        alive = sorted(self.living() & set(wanted.voters))
        if len(alive) < wanted.majority:
            answering = f"only {', '.join(alive)} answer" if alive else "none answers"
            raise Refused(
                f"cannot {what}: of the voters {', '.join(wanted.voters)} that remain {answering},"
                f" and a majority of {wanted.majority} is needed"
            )

    def _change(self, wanted: Membership) -> int:
        index = self._take(MEMBERS + wanted.encode())
        if index is None:
            raise Unavailable(f"{self.name} takes no changes now: it hands over, or its followers are far behind")
        return index

    def _promote(self) -> None:
        """Called while leading: a learner that has caught up, and whose journal is admitted, becomes a voter."""
        if not self.membership.learners or self._memberships[-1][0] > self.committed or self.authority() is None:
            return
        for name in sorted(self.membership.learners):
            progress = self._progress[name]
            wanted = self.membership.with_voter(name)
            ready = progress.match + NEARLY >= self.committed and name in self.living()
            if ready and len(self.living() & set(wanted.voters)) >= wanted.majority:
                self._take(MEMBERS + wanted.encode())
                return
