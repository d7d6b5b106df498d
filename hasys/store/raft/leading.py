"""The leader's side: heartbeat rounds, replication, commit, evidence of authority, handing over.

Rounds prove the majority and never wait for the disk. The leader counts its own log only as far as it is durable; any
durable majority commits, so that a slow disk of the leader alone delays nobody.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from hasys.store.port import Authority
from hasys.store.raft.elections import NEVER
from hasys.store.raft.following import Done, Failure, Following
from hasys.store.raft.foundation import ADMIT, BEST, BULK, EVERYWHERE, REGULAR, Route
from hasys.store.raft.progress import (
    BATCH_BYTES,
    CHUNK_BYTES,
    Progress,
    SnapshotTransfer,
    majority_index,
    majority_time,
)
from hasys.store.raft.pysyncobj_shim import Node
from hasys.v1 import raft_pb2 as pb

ROUNDS_KEPT = 256
TAKEN_KEPT = 16_384
"""Proposals of followers that are remembered, in case they are repeated."""
EVERYWHERE_EACH = 1.3
"""Seconds at most between two rounds that go over every network, so that a silent network is noticed before it is
needed. Less than ``SILENT`` of the transport: what is answered on a network makes its path suspect until the next."""
MAX_UNCOMMITTED_BYTES = 32 * 1024 * 1024
"""More is refused: memory is bounded when a majority's disks do not keep up."""
NEARLY = 256
"""A follower that lacks no more entries than these has caught up; under load it never has all."""
ADMISSION_RETRY = 2.0
"""Seconds after which an admission that did not work is proposed again."""


Confirmed = Callable[[bool], None]
"""Called once: did a majority confirm the leadership after it was asked?"""


class Leading(Following):
    """What only a leader does."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self._progress: dict[str, Progress] = {}
        self._connected: set[str] = set()
        self._round = 0
        self._round_times: OrderedDict[int, float] = OrderedDict()
        self._next_round = self._everywhere_by = 0.0
        self._requests = 0
        self._elected_silent_since = 0.0
        self._admitting: dict[str, float] = {}
        self._taken: OrderedDict[tuple[str, int], tuple[int | None, int]] = OrderedDict()
        self._uncommitted = 0
        self._handing_over_until: float | None = None
        self._told_to_lead = NEVER
        """When a follower was asked to lead."""
        self._unsent_reads: list[Confirmed] = []
        self._reads: deque[tuple[int, Confirmed]] = deque()
        super().__init__(*args, **named)

    # ------------------------------------------------------------ coming and going
    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802  # their name
        start = self._journal.last + 1
        self._progress = {p: Progress(next=start, connected=p in self._connected) for p in self.peers}
        self._round = 0
        self._round_times.clear()
        self._next_round = self._everywhere_by = self.now
        self._requests = 0
        self._elected_silent_since = self._silent_since
        self._admitting.clear()
        self._uncommitted = 0
        self._handing_over_until = None
        super()._SyncObj__onBecomeLeader()

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802  # their name
        """Called by inherited code after an election; :meth:`_lead` does the sending."""

    def _members_changed(self) -> None:
        super()._members_changed()
        if not self.leading:
            return
        start = self._journal.last + 1
        kept = {p: self._progress.get(p) or Progress(next=start, connected=p in self._connected) for p in self.peers}
        self._progress = kept
        heard = self._SyncObj__lastResponseTime
        for node in self._SyncObj__otherNodes:
            heard.setdefault(node, self.now)

    def _counted(self) -> list[Progress]:
        """The followers whose answers count."""
        return [p for peer, p in self._progress.items() if p.voting and peer in self.voters]

    def _stopped_leading(self) -> None:
        self._progress = {}
        waiting = [*(done for _, done in self._reads), *self._unsent_reads]
        self._reads.clear()
        self._unsent_reads.clear()
        for done in waiting:
            done(False)
        self._handing_over_until = None

    def _fall_back(self) -> None:
        """Step down when no majority has answered for too long. Runs before anything else at each entry: a leader that
        overslept must not act on what it believed."""
        if not self.leading:
            return
        heard = self._SyncObj__lastResponseTime
        times: list[float | None] = [self.now]
        times += [heard[node] for node in self._SyncObj__otherNodes]
        latest = majority_time(times, self.majority)
        if latest is not None and self.now - latest > self.timing.leader_fallback:
            self._step_down(self.term)

    # ------------------------------------------------------------ rounds
    def _send_round(self) -> None:
        if self.now < self._next_round:
            return
        self._next_round = self.now + self.timing.heartbeat
        self._round += 1
        self._round_times[self._round] = self._last_ack = self.now
        self._reads.extend((self._round, done) for done in self._unsent_reads)
        self._unsent_reads.clear()
        if len(self._round_times) > ROUNDS_KEPT:
            self._round_times.popitem(last=False)
        everywhere = self._next_round > self._everywhere_by
        if everywhere:
            self._everywhere_by = self.now + EVERYWHERE_EACH
        asked = set(self._progress) if everywhere else self._asked()
        for peer, progress in self._progress.items():
            route = EVERYWHERE if everywhere or progress.owes_answer else BEST
            quiet = peer not in asked
            self._send(peer, route, heartbeat=pb.Heartbeat(round=self._round, commit=self.committed, quiet=quiet))
            progress.told_commit = self.committed
            if not quiet:
                progress.asked_round = self._round

    def _asked(self) -> set[str]:
        """Who is to answer the round that leaves now. At rest as many as make a majority, by turns: more prove no more.
        Every voter while one owes an answer, so that a lost one costs no more than a round, or while a read waits."""
        voters = {peer: p for peer, p in self._progress.items() if peer in self.voters}
        asked = {peer for peer, p in self._progress.items() if p.sent or p.transfer or p.owes_answer}
        if self._reads or any(p.owes_answer or not p.voting for p in voters.values()):
            return asked | voters.keys()
        return asked.union(sorted(voters, key=lambda peer: voters[peer].answered_round)[: self.majority - 1])

    # ------------------------------------------------------------ reads
    def confirm(self, now: float, done: Confirmed) -> None:
        """Call ``done(True)`` when a majority has answered a round that was sent after this call, so that nobody else
        led and wrote before it; ``done(False)`` when this member does not lead, or leads no longer."""
        self._enter(now)
        if self.authority() is None:
            done(False)
        else:
            self._unsent_reads.append(done)

    def _confirm_reads(self) -> None:
        """A round serves every read that came before it was sent. One is under way for them at a time; when it is lost,
        the next regular one serves."""
        answered = [self._round, *(p.answered_round for p in self._counted())]
        confirmed = majority_index(answered, self.majority)
        while self._reads and self._reads[0][0] <= confirmed:
            self._reads.popleft()[1](True)
        if self._unsent_reads and not self._reads:
            self._next_round = self.now

    def _progress_of(self, peer: str, message: pb.Message) -> Progress | None:
        """The sender of an answer to this leader in this term; None when the answer is of another time."""
        if message.term > self.term:
            self._step_down(message.term)
        if not self.leading or message.term != self.term or peer not in self._progress:
            return None
        progress = self._progress[peer]
        progress.heard_from(message.incarnation, self._requests)
        progress.voting = message.voting
        if message.voting:
            self._SyncObj__lastResponseTime[Node(peer)] = self.now
        return progress

    def _on_heartbeat_answer(self, peer: str, message: pb.Message, network: int) -> None:
        progress = self._progress_of(peer, message)
        answer = message.heartbeat_answer
        if progress is None:
            return
        sent = self._round_times.get(answer.round)
        if sent is not None and message.voting:
            progress.round_time = max(progress.round_time or sent, sent)
        progress.answered_round = max(progress.answered_round, answer.round)
        progress.received = answer.received
        if answer.match:
            progress.acknowledged(answer.match)
        if network != progress.network:
            progress.network = network
            if progress.lost(self.now, self.timing.heartbeat):  # it went with the network that has fallen silent
                progress.start_over(self._requests)

    def authority(self) -> Authority | None:
        """Evidence for grants; see the port."""
        if not self.leading or not self.voting:
            return None
        noop = self._SyncObj__noopIDx
        if noop is None or self.applied < noop:
            return None
        newest = self._round_times[self._round] if self._round else None
        t_q = majority_time([newest, *(p.round_time for p in self._counted())], self.majority)
        if t_q is None:
            return None
        return Authority(self.term, self.applied, t_q, self._elected_silent_since)

    # ------------------------------------------------------------ replication
    def _on_append_answer(self, peer: str, message: pb.Message) -> None:
        progress = self._progress_of(peer, message)
        answer = message.append_answer
        if progress is None:
            return
        if answer.refused:
            progress.refused(answer.request, answer.next, self._requests)
        else:
            progress.acknowledged(answer.match)

    def _replicate(self) -> None:
        for peer, progress in self._progress.items():
            if progress.lost(self.now, self.timing.leader_fallback):
                progress.start_over(self._requests)
            while progress.may_send(self._journal.last):
                if progress.next <= self._journal.first:
                    progress.transfer = SnapshotTransfer(self._newest_snapshot())
                    break
                self._send_entries(peer, progress)
            if progress.transfer is not None:
                self._send_chunk(peer, progress.transfer)
            if progress.wants_commit and progress.told_commit < self.committed:
                self._tell_commit(peer, progress)

    def _send_entries(self, peer: str, progress: Progress) -> None:
        prev = progress.next - 1
        items = self._journal.slice(progress.next, BATCH_BYTES)
        self._requests += 1
        append = pb.Append(
            request=self._requests,
            prev_index=prev,
            prev_term=self._journal.term_at(prev),
            entries=[pb.Entry(term=term, command=command) for command, _, term in items],
            commit=self.committed,
        )
        progress.sending(prev + len(items), sum(len(command) for command, _, _ in items), self.now)
        progress.told_commit = self.committed
        self._send(peer, BULK, append=append)

    def _tell_commit(self, peer: str, progress: Progress) -> None:
        """An empty request, outside of the window: only the commit index matters, and losing it costs one heartbeat."""
        progress.wants_commit = False
        progress.told_commit = self.committed
        prev = min(max(progress.match, self._journal.first), self._journal.last)
        append = pb.Append(
            request=self._requests, prev_index=prev, prev_term=self._journal.term_at(prev), commit=self.committed
        )
        self._send(peer, BULK, append=append)

    def _newest_snapshot(self) -> Any:
        assert self._journal.snapshot is not None, "the log has a base without a snapshot"
        return self._journal.snapshot

    def _send_chunk(self, peer: str, transfer: SnapshotTransfer) -> None:
        late = transfer.sent_at is not None and self.now - transfer.sent_at > self.timing.leader_fallback
        if transfer.sent_at is not None and not late:
            return
        transfer.sent_at = self.now
        snapshot = transfer.snapshot
        offset = min(transfer.offset, max(0, len(snapshot.data) - 1))
        chunk = pb.SnapshotChunk(
            index=snapshot.index,
            index_term=snapshot.term,
            total=len(snapshot.data),
            offset=offset,
            data=snapshot.data[offset : offset + CHUNK_BYTES],
        )
        self._send(peer, BULK, snapshot_chunk=chunk)

    def _on_snapshot_answer(self, peer: str, message: pb.Message) -> None:
        progress = self._progress_of(peer, message)
        answer = message.snapshot_answer
        transfer = progress.transfer if progress is not None else None
        if transfer is None or transfer.snapshot.index != answer.index:
            return
        total = len(transfer.snapshot.data)
        if answer.received != transfer.offset and answer.received < total:
            transfer.offset = answer.received
            transfer.sent_at = None

    # ------------------------------------------------------------ commit
    def _advance_commit(self) -> None:
        """Only an entry of the own term is committed by counting; it takes the earlier ones along."""
        matches = [self._journal.durable_index]
        matches += [p.match for p in self._counted()]
        index = min(majority_index(matches, self.majority), self._journal.last)
        if index > self.committed and self._journal.term_at(index) == self.term:
            newly = self._journal.items[self.committed + 1 - self._journal.first : index + 1 - self._journal.first]
            self._uncommitted = max(0, self._uncommitted - sum(len(command) for command, _, _ in newly))
            self.committed = index

    # ------------------------------------------------------------ proposals
    def _take(self, command: bytes) -> int | None:
        """Append a command; None when it cannot be taken now."""
        if not self.leading or self._handing_over_until is not None:
            return None
        if self._uncommitted + len(command) > MAX_UNCOMMITTED_BYTES:
            return None
        self._uncommitted += len(command)
        index = self._journal.last + 1
        self._append(command, index, self.term)
        return index

    def takes_proposals(self) -> bool:
        """Would :meth:`propose` do anything with a command now?"""
        if self.leading:
            return self._handing_over_until is None and self._uncommitted < MAX_UNCOMMITTED_BYTES
        return self.leader is not None and self.leader in self._connected

    def propose(self, now: float, command: bytes, done: Done) -> None:
        """Bring a command into the log. ``done`` is called once, maybe at once."""
        self._enter(now)
        if self.leading:
            index = self._take(REGULAR + command)
            if index is None:
                done(Failure.NOT_ACCEPTED)
            else:
                self._wait_for(index, self.term, done)
        elif self.leader is not None and self.leader in self._connected:
            self._forward(command, done)
        else:
            done(Failure.NOT_ACCEPTED)

    def _on_proposal(self, peer: str, message: pb.Message) -> None:
        """A follower's. It may come more than once: it gets the first answer again, be it yes or no."""
        proposal = message.proposal
        known = (peer, proposal.request)
        if known not in self._taken:
            self._taken[known] = (self._take(REGULAR + proposal.command), self.term)
            if len(self._taken) > TAKEN_KEPT:
                self._taken.popitem(last=False)
        index, term = self._taken[known]
        answer = pb.ProposalAnswer(request=proposal.request, accepted=index is not None)
        if index is not None:
            answer.index, answer.term = index, term
            if peer in self._progress:
                self._progress[peer].wants_commit = True
        self._send(peer, Route(bulk=True), proposal_answer=answer)

    # ------------------------------------------------------------ admission
    def _admit(self) -> None:
        """Propose the admission of followers that do not vote, once they have caught up."""
        for peer, progress in self._progress.items():
            if progress.voting or not progress.incarnation or progress.match + NEARLY < self.committed:
                continue
            if self.now < self._admitting.get(peer, 0.0):
                continue
            admission = pb.Admission(name=peer, incarnation=progress.incarnation)
            if self._take(ADMIT + admission.SerializeToString()) is not None:
                self._admitting[peer] = self.now + ADMISSION_RETRY

    # ------------------------------------------------------------ handing over
    def hand_over(self, now: float) -> None:
        """Ask the best follower to lead. Proposals are not taken until it does, or until that takes too long."""
        self._enter(now)
        if self.leading and self._handing_over_until is None and self.peers:
            self._handing_over_until = now + self.timing.election_max
            self._told_to_lead = NEVER

    def _hand_over(self) -> None:
        if self._job_since is not None and self.now - self._job_since > self.timing.ttl and self.peers:
            self._handing_over_until = self._handing_over_until or self.now + self.timing.election_max
        if self._handing_over_until is None:
            return
        if self.now >= self._handing_over_until:
            self._handing_over_until = None
            return
        ready = [(p.answered_round, peer) for peer, p in self._progress.items() if self._can_lead(peer, p)]
        if ready and self.now >= self._told_to_lead + self.timing.heartbeat:  # two at once would split the votes
            self._told_to_lead = self.now
            self._send(max(ready)[1], EVERYWHERE, timeout_now=pb.TimeoutNow())

    def _can_lead(self, peer: str, progress: Progress) -> bool:
        recently = progress.answered_round >= self._round - 2
        complete = progress.match == self._journal.last
        return peer in self.voters and progress.voting and progress.connected and complete and recently
