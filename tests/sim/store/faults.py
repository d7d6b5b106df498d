"""Seeded faults: each breaks one rule of the store on purpose. The checker catches every one, or it proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

from hasys.store.machine import Changed
from hasys.store.machine import Machine as StateMachine
from hasys.store.raft.core import Core
from hasys.store.raft.foundation import BEST, Outgoing, Route
from hasys.store.raft.journal import JOURNAL, SNAPSHOT, Opened, open_journal
from hasys.store.raft.progress import Progress, majority_index
from hasys.store.watch import WatchHub
from hasys.v1 import raft_pb2 as pb
from tests.sim.grants.faults import CountsFromReceipt, IgnoresSilence
from tests.sim.store.disk import FailingDisk
from tests.sim.store.world import Member, Parts, StoreWorld

# ---------------------------------------------------------------------- disk


class SkipsTheFsync(FailingDisk):
    """Entries are written and announced, and never synced."""

    def sync(self, name: str) -> None:
        if name != JOURNAL:
            super().sync(name)


class SkipsTheSnapshotsFsync(FailingDisk):
    """A snapshot is put in place without a sync of its content."""

    def sync(self, name: str) -> None:
        if not name.startswith(SNAPSHOT):
            super().sync(name)


class SkipsTheNamesSync(FailingDisk):
    """A replaced journal is used before its name is on disk."""

    def sync_names(self) -> None:
        """Nothing is promised: a power cut may bring any earlier folder back."""


def trusts_the_page_cache(disk: FailingDisk) -> Opened:
    """What a process finds after its predecessor died is announced as durable at once, synced or not."""
    opened = open_journal(disk)
    journal = opened.journal
    journal.durable, journal.durable_index = journal.seq, journal.last
    return opened


class AcknowledgesBeforeTheDisk(Core):
    """A follower acknowledges entries that are in memory."""

    def _durable_match(self) -> int:
        return self._verified


class CountsItselfBeforeTheDisk(Core):
    """A leader counts its own log before it is durable."""

    def _advance_commit(self) -> None:
        durable, self._journal.durable_index = self._journal.durable_index, self._journal.last
        super()._advance_commit()
        self._journal.durable_index = durable


class VotesBeforeTheDisk(Core):
    """Votes leave before term and vote are durable."""

    def _send(self, peer: str, route: Route = BEST, **body: Any) -> None:
        message = pb.Message(term=self.term, incarnation=self._journal.incarnation, voting=self.voting, **body)
        self._outbox.append(Outgoing(peer, message, route.network, route.everywhere, route.bulk))


# ---------------------------------------------------------------------- elections


class CountsAVoteTwice(Core):
    """A vote that comes over two networks counts as two."""

    def _on_vote(self, peer: str, message: pb.Message) -> None:
        self._votes.discard(peer)
        super()._on_vote(peer, message)


class ForgetsItsVote(Core):
    """Votes again in the same term."""

    def _on_vote_request(self, peer: str, message: pb.Message) -> None:
        if not self.candidate and not self.leading:
            self._SyncObj__votedForNodeId = None
        super()._on_vote_request(peer, message)


class VotesForAnyLog(Core):
    """Votes for a candidate whose log is behind."""

    def _on_pre_vote(self, peer: str, message: pb.Message) -> None:
        message.pre_vote.last_term, message.pre_vote.last_index = 10**9, 10**9
        super()._on_pre_vote(peer, message)

    def _on_vote_request(self, peer: str, message: pb.Message) -> None:
        message.vote_request.last_term, message.vote_request.last_index = 10**9, 10**9
        super()._on_vote_request(peer, message)


class IgnoresTheVotersSilence(Core):
    """A new leader counts earlier proofs from what it heard itself."""

    def _on_vote(self, peer: str, message: pb.Message) -> None:
        message.vote.silence = 1e6
        super()._on_vote(peer, message)


class FakesItsSilence(Core):
    """A voter says that it was silent for longer than it was."""

    def _send(self, peer: str, route: Route = BEST, **body: Any) -> None:
        if "vote" in body:
            body["vote"] = pb.Vote(silence=body["vote"].silence + 0.4)
        super()._send(peer, route, **body)


class SilentBeyondItsUptime(Core):
    """After a restart a voter says that it heard no leader for ever."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._last_ack -= 100.0


class MisreadsOlderVotes(Core):
    """A vote without ``silence``, as an older version gives it, counts as one of a voter that never heard a leader."""

    def _on_vote(self, peer: str, message: pb.Message) -> None:
        message.vote.silence = message.vote.silence or 1e6
        super()._on_vote(peer, message)


class RefusesNewerMessages(Core):
    """What has fields that this version does not know is not read."""

    def receive(self, now: float, peer: str, message: pb.Message, network: int = 0) -> None:
        if not len(UnknownFieldSet(message)):
            super().receive(now, peer, message, network)


# ---------------------------------------------------------------------- replication


class SkipsTheTermTag(Core):
    """Answers of an earlier term count as if they were of this one."""

    def _progress_of(self, peer: str, message: pb.Message) -> Progress | None:
        message.term = max(message.term, self.term)
        return super()._progress_of(peer, message)


class CommitsByCount(Core):
    """An entry of an earlier term is committed by counting where it is (figure 8 of the Raft paper)."""

    def _advance_commit(self) -> None:
        matches = [self._journal.durable_index]
        matches += [p.match for p in self._progress.values() if p.voting]
        index = min(majority_index(matches, self.majority), self._journal.last)
        self.committed = max(self.committed, index)


class CutsOnEveryRequest(Core):
    """A follower drops whatever follows the entries of a request, though nothing differs."""

    def _take_entries(self, request: pb.Append) -> int | None:
        end = super()._take_entries(request)
        if end is not None and self._journal.first < end < self._journal.last:
            self._journal.truncate(end + 1)
        return end


class CommitsWhatItNeverCompared(Core):
    """A follower takes the leader's commit index for its own log, equal or not."""

    def _commit_up_to(self, commit: int) -> None:
        self.committed = max(self.committed, min(commit, self._journal.last))


# ---------------------------------------------------------------------- state, watches, reads, leases


class ForgetsCommandIds(StateMachine):
    """Restored from a snapshot, it does not know which commands were applied."""

    def restore(self, index: int, data: bytes) -> None:
        super().restore(index, data)
        self._recent.clear()


class SkipsAChange(WatchHub):
    """Every 20th change reaches no watcher."""

    _count = 0

    def _changed(self, index: int, changes: Sequence[Changed]) -> None:
        kept = []
        for change in changes:
            self._count += 1
            if self._count % 20:
                kept.append(change)
        if kept or not changes:
            super()._changed(index, kept)


class ResumesOneLate(WatchHub):
    """A resumed watch leaves out the first change it should bring."""

    def _position_after(self, version: int) -> int:
        return min(super()._position_after(version) + 1, self._next)


def read_from_memory(world: StoreWorld, member: Member, done: Callable[[int | None], None]) -> None:
    """Whoever believes that it leads answers at once."""
    leads = member.core is not None and member.core.authority() is not None
    done(member.state.revision if leads else None)


@dataclass(frozen=True)
class Fault:
    """What is broken, and what catches it."""

    parts: Parts
    caught_by: str
    """How the message of the violation begins."""
    focus: tuple[str, ...] = ()
    """Kinds of steps that reach it soon; none: any."""


FAULTS: Mapping[str, Fault] = {
    "skip the fsync": Fault(Parts(disk=SkipsTheFsync), "durability"),
    "snapshot without fsync": Fault(Parts(disk=SkipsTheSnapshotsFsync), "durability"),
    "rename without sync": Fault(Parts(disk=SkipsTheNamesSync), "durability"),
    "trust the page cache": Fault(Parts(opening=trusts_the_page_cache), "durability", ("crash_twice", "load")),
    "acknowledge before disk": Fault(Parts(core=AcknowledgesBeforeTheDisk), "durability"),
    "leader counts itself before disk": Fault(Parts(core=CountsItselfBeforeTheDisk), "durability"),
    "vote before disk": Fault(Parts(core=VotesBeforeTheDisk), "durability|election safety"),
    "count a vote twice": Fault(Parts(core=CountsAVoteTwice), "election safety"),
    "vote twice": Fault(Parts(core=ForgetsItsVote), "election safety"),
    "vote for any log": Fault(Parts(core=VotesForAnyLog), "leader completeness"),
    "silence ignored": Fault(Parts(core=IgnoresTheVotersSilence), "term|leases"),
    "silence faked": Fault(Parts(core=FakesItsSilence), "term|leases"),
    "silence beyond uptime": Fault(Parts(core=SilentBeyondItsUptime), "term|leases"),
    "an older version's vote misread": Fault(Parts(core=MisreadsOlderVotes), "term|leases", ("isolate",)),
    "a newer version's messages refused": Fault(Parts(core=RefusesNewerMessages), "not within"),
    "skip the term tag": Fault(
        Parts(core=SkipsTheTermTag), "term|durability|leader|log|leases", ("late_answers", "cut_one_way", "burst")
    ),
    "commit an older term's entry by count": Fault(
        Parts(core=CommitsByCount), "durability|leader completeness", ("figure_8",)
    ),
    "cut committed entries": Fault(Parts(core=CutsOnEveryRequest), "n[0-9]|durability|leader"),
    "commit what was not compared": Fault(
        Parts(core=CommitsWhatItNeverCompared), "log matching|state-machine|durability"
    ),
    "snapshot forgets command ids": Fault(Parts(state=ForgetsCommandIds), "state-machine safety"),
    "watch skips one change": Fault(Parts(hub=SkipsAChange), "watch"),
    "watch resumes one late": Fault(Parts(hub=ResumesOneLate), "watch"),
    "stale read": Fault(Parts(read=read_from_memory), "stale read", ("depose", "hand_over", "isolate", "load")),
    "lease counted from receipt": Fault(Parts(keeper=CountsFromReceipt), "leases", ("late_grants", "hand_over")),
    "leader does not wait for earlier grants": Fault(
        Parts(granter=IgnoresSilence), "leases", ("moves_at_election", "hand_over")
    ),
}
