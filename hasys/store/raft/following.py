"""A follower's side of replication, and applying what is committed.

A heartbeat that asks for an answer gets it at once; entries are acknowledged when they are on disk. Requests may
arrive twice or late (they travel over several networks): what the log already has is left alone, and it is cut only
where the terms differ.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from google.protobuf.message import DecodeError

from hasys.store.port import Applied
from hasys.store.raft.elections import Elections
from hasys.store.raft.foundation import ADMIT, BULK, MEMBERS, REGULAR, Route, SafetyViolated
from hasys.store.raft.frames import SnapshotFile
from hasys.store.raft.membership import Membership
from hasys.store.raft.progress import SnapshotReceipt
from hasys.store.raft.pysyncobj_shim import FAIL_REASON
from hasys.v1 import raft_pb2 as pb

MAX_SNAPSHOT_BYTES = 512 * 1024 * 1024
RECENT = 1024
"""Answers of applied entries that are kept for proposals whose place in the log becomes known late."""


class Failure(Enum):
    """Why a proposal has no answer."""

    NOT_ACCEPTED = "not accepted: nothing changed"
    UNKNOWN = "the outcome is unknown"


Done = Callable[[Applied | Failure], None]
"""Called once, when a proposal is applied here or has failed."""


@dataclass(slots=True)
class Forwarded:
    """A proposal that the leader has not answered yet."""

    command: bytes
    done: Done
    sent_at: float


def unreadable_entry(request: pb.Append) -> str:
    """Why entries of a leader cannot be taken: one of those that the engine itself must understand makes no sense.
    Empty: they can. (What the state machine cannot understand it answers when the entry is applied.)"""
    readers: dict[bytes, Callable[[bytes], object]] = {ADMIT: pb.Admission.FromString, MEMBERS: Membership.decode}
    for index, entry in enumerate(request.entries, request.prev_index + 1):
        try:
            if entry.command[:1] in readers:
                readers[entry.command[:1]](entry.command[1:])
        except (DecodeError, ValueError) as e:
            return f"cannot read the leader's entry {index}: {e}"
    return ""


class Following(Elections):
    """Takes entries and snapshots, acknowledges what is durable, applies what is committed."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self._verified = 0
        """Up to here our log is known to equal that of the present leader."""
        self._verified_term = 0
        """The term of that leader. Its loss undoes nothing of this: it believes what we have acknowledged, and does not
        ask again when we hear it again."""
        self._ack_due = False
        self._ack_network: int | None = None
        self._request = 0
        """Newest request of the present leader that our log matched."""
        self._receipt: SnapshotReceipt | None = None
        self._unreadable = ""
        """Why the leader's snapshot or entries were not taken."""
        self._acknowledged = 0
        self._recent: deque[tuple[int, int, bytes]] = deque(maxlen=RECENT)  # (index, term, answer)
        self._forwarded: dict[int, Forwarded] = {}
        self._forward_count = 1 << 60 | secrets.randbits(60)  # not the numbers of an earlier process, or boot
        super().__init__(*args, **named)

    def _leader_lost(self) -> None:
        super()._leader_lost()
        self._receipt = None
        waiting, self._forwarded = self._forwarded, {}
        for forwarded in waiting.values():
            forwarded.done(Failure.UNKNOWN)

    def _follow(self, peer: str, term: int) -> None:
        super()._follow(peer, term)
        if term != self._verified_term:
            self._verified_term = term
            self._verified = self._request = self._acknowledged = 0
            self._ack_due = False

    # ------------------------------------------------------------ from the leader
    def _on_heartbeat(self, peer: str, message: pb.Message, network: int) -> None:
        if message.term < self.term:
            self._refuse_old_term(peer)
            return
        self._follow(peer, message.term)
        self._last_ack = self.now
        if not message.heartbeat.quiet:
            answer = pb.HeartbeatAnswer(
                round=message.heartbeat.round, match=self._durable_match(), received=self._journal.last
            )
            self._send(peer, Route(network=network), heartbeat_answer=answer)
        self._commit_up_to(message.heartbeat.commit)
        self._repeat_forwarded()

    def _on_append(self, peer: str, message: pb.Message, network: int) -> None:
        if message.term < self.term:
            self._refuse_old_term(peer)
            return
        self._follow(peer, message.term)
        request = message.append
        self._unreadable = unreadable_entry(request)
        if self._unreadable:  # in the journal it would stop this member again at each start
            return
        match = self._take_entries(request)
        if match is None:
            answer = pb.AppendAnswer(request=request.request, refused=True, next=self._where_to_go_on(request))
            self._send(peer, Route(network=network), append_answer=answer)
            return
        self._verified = max(self._verified, match)
        self._request = max(self._request, request.request)
        self._ack_due = True
        self._ack_network = network
        self._commit_up_to(request.commit)

    def _take_entries(self, request: pb.Append) -> int | None:
        """Put the entries into the log; answer up to where it equals the leader's, or None when ``prev`` differs."""
        journal = self._journal
        prev, entries = request.prev_index, list(request.entries)
        end = prev + len(entries)
        if prev < journal.first:  # all of it, or its beginning, is in our snapshot, hence committed, hence equal
            if end <= journal.first:
                return end
            entries = entries[journal.first - prev :]
            prev = journal.first
        elif prev > journal.last or journal.term_at(prev) != request.prev_term:
            return None
        for index, entry in enumerate(entries, prev + 1):
            if index <= journal.last:
                if journal.term_at(index) == entry.term:
                    continue
                if index <= self.committed:
                    raise SafetyViolated(f"the leader's entry {index} differs from the committed one")
                self._truncate(index)
            self._append(entry.command, index, entry.term)
        return end

    def _where_to_go_on(self, request: pb.Append) -> int:
        """After a refusal: behind our log, or before all entries of the term that differs; never what is committed."""
        journal = self._journal
        if request.prev_index > journal.last:
            return journal.last + 1
        index = request.prev_index
        term = journal.term_at(index)
        while index - 1 > self.committed and journal.term_at(index - 1) == term:
            index -= 1
        return index

    def _durable_match(self) -> int:
        return min(self._verified, self._journal.durable_index)

    def _acknowledge(self) -> None:
        """Tell the leader what is on disk, once everything it sent is, or as far as it is."""
        if not self._ack_due or self.leader is None or self.leading:
            return
        match = self._durable_match()
        if match >= self._verified:
            self._ack_due = False
        elif self._journal.busy or match <= self._acknowledged:
            return
        self._acknowledged = match
        answer = pb.AppendAnswer(request=self._request, match=match)
        self._send(self.leader, Route(network=self._ack_network), append_answer=answer)

    def _commit_up_to(self, commit: int) -> None:
        self.committed = max(self.committed, min(commit, self._verified))

    # ------------------------------------------------------------ snapshot
    def _on_snapshot_chunk(self, peer: str, message: pb.Message, network: int) -> None:
        if message.term < self.term:
            self._refuse_old_term(peer)
            return
        self._follow(peer, message.term)
        chunk = message.snapshot_chunk
        if chunk.index <= self.committed or chunk.total > MAX_SNAPSHOT_BYTES:
            self._verified = max(self._verified, min(chunk.index, self.committed))
            self._ack_due = True
            return
        receipt = self._receipt
        if receipt is None or (receipt.index, receipt.total) != (chunk.index, chunk.total):
            receipt = self._receipt = SnapshotReceipt(chunk.index, chunk.index_term, chunk.total)
        receipt.add(chunk.offset, chunk.data)
        received = len(receipt.data)
        self._send(
            peer,
            Route(network=network, bulk=True),
            snapshot_answer=pb.SnapshotAnswer(index=chunk.index, received=received),
        )
        if receipt.complete:
            self._install(SnapshotFile(receipt.index, receipt.index_term, bytes(receipt.data)))

    def _install(self, snapshot: SnapshotFile) -> None:
        self._receipt = None
        try:
            self._restore(snapshot)
        except ValueError as e:  # nothing has changed; the leader, or the next one, sends it again
            self._unreadable = f"cannot read the leader's snapshot: {e}"
            return
        self._unreadable = ""
        self._journal.install(snapshot)
        self._read_memberships(snapshot.index)
        self._SyncObj__raftLastApplied = snapshot.index
        self.committed = snapshot.index
        self._verified = max(self._verified, snapshot.index)
        self._ack_due = True
        waiting = self._SyncObj__commandsWaitingCommit
        for index in [i for i in waiting if i <= snapshot.index]:
            for _, callback in waiting.pop(index):
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)

    # ------------------------------------------------------------ applying
    def _SyncObj__doApplyCommand(self, command: bytes) -> Applied:  # noqa: N802  # their name
        """Called by the inherited loop for each committed entry, in order."""
        index = self.applied + 1
        answer = b""
        if command[:1] == REGULAR:
            answer = self._machine.apply(index, command[1:])
        elif command[:1] == ADMIT:
            self._on_admission(command[1:])
        if not self.leading:
            self._recent.append((index, self._journal.term_at(index), answer))
        return Applied(index, answer)

    def _wait_for(self, index: int, term: int, done: Done) -> None:
        """Answer a proposal when its place in the log is applied."""

        def settled(result: Applied | None, error: int) -> None:
            if result is not None and error == FAIL_REASON.SUCCESS:
                done(result)
            else:  # another entry took its place: ours can never be committed
                done(Failure.NOT_ACCEPTED if error == FAIL_REASON.DISCARDED else Failure.UNKNOWN)

        self._SyncObj__commandsWaitingCommit[index].append((term, settled))

    # ------------------------------------------------------------ proposals that the leader must take
    def _forward(self, command: bytes, done: Done) -> None:
        assert self.leader is not None
        self._forward_count += 1
        self._forwarded[self._forward_count] = Forwarded(command, done, self.now)
        self._send(self.leader, BULK, proposal=pb.Proposal(request=self._forward_count, command=command))

    def _repeat_forwarded(self) -> None:
        """What has no answer went, or came back, over a network that is silent. The leader knows repetitions."""
        for request, forwarded in self._forwarded.items():
            if self.leader is not None and self.now - forwarded.sent_at > self.timing.leader_fallback:
                forwarded.sent_at = self.now
                route = Route(everywhere=True, bulk=True)
                self._send(self.leader, route, proposal=pb.Proposal(request=request, command=forwarded.command))

    def _on_proposal_answer(self, message: pb.Message) -> None:
        answer = message.proposal_answer
        forwarded = self._forwarded.pop(answer.request, None)
        if forwarded is None:
            return
        done = forwarded.done
        if not answer.accepted:
            done(Failure.NOT_ACCEPTED)
        elif answer.index > self.applied:
            self._wait_for(answer.index, answer.term, done)
        else:
            self._answer_late(answer.index, answer.term, done)

    def _answer_late(self, index: int, term: int, done: Done) -> None:
        """The entry was applied before its place was known here."""
        for i, t, result in self._recent:
            if i == index:
                done(Applied(index, result) if t == term else Failure.NOT_ACCEPTED)
                return
        done(Failure.UNKNOWN)
