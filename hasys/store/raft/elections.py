"""Elections: timeout slots, pre-vote, the vote with its ``silence``, stepping down, asking for an election.

The vote itself is PySyncObj's. Added around it: a pre-vote, so that a member that was cut off does not disturb a living
leader; slots instead of random timeouts, so that two candidates do not meet; refusal while a leader is heard (stability
only); each voter counts once, however many networks its answer takes; and silence (design, "A new leader does not know
earlier grants").
"""

from __future__ import annotations

from typing import Any

from hasys.store.raft.foundation import BEST, EVERYWHERE, SafetyViolated
from hasys.store.raft.membership import Membership
from hasys.store.raft.pysyncobj_shim import RAFT_STATE, Node
from hasys.store.raft.standing import Standing
from hasys.v1 import raft_pb2 as pb

NEVER = float("-inf")
AFTER_CLOSE = 0.01
"""Seconds between the leader's connection closing and a pre-vote: the others should have seen it close too."""


class Elections(Standing):
    """Who leads."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self._leader_heard = NEVER
        self._last_ack = float(named["now"])
        """When this member last acknowledged a leader's round or, leading, sent one; at first: when it started."""
        self._attempt = 0
        self._pre_votes: set[str] = set()
        self._votes: set[str] = set()
        self._silent_since = self._last_ack
        self.hint: Membership | None = None
        """Members that another one knows while our log is behind: to be reached and heard, never to be counted."""
        super().__init__(*args, **named)

    # ------------------------------------------------------------ time
    def _slot_width(self) -> float:
        return (self.timing.election_max - self.timing.election_min) / len(self.voters)

    def _slot(self) -> int:
        """Rotates with the term, so that one slow voter does not always come first."""
        if self.name not in self.voters:
            return len(self.voters)
        return (self.voters.index(self.name) + self.term) % len(self.voters)

    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802  # their name
        return self.timing.election_min + self._slot() * self._slot_width()

    def hears_leader(self) -> bool:
        """A leader was heard so lately that no election is wanted."""
        if self.leading:
            return True
        return self.leader is not None and self.now - self._leader_heard < self.timing.leader_fallback

    def _election_timer(self) -> None:
        if self.leading or self.now < self._deadline:
            return
        if not self.electable:  # a learner, or who was removed: it only ceases to name a leader that it does not hear
            self._leader_lost()
            return
        if self.disk_stuck():  # our vote could not become durable: let the others do it
            self._deadline = self.now + self.timing.election_min
            return
        if self.candidate:
            self._SyncObj__setState(RAFT_STATE.FOLLOWER)
        if self.now - self._leader_heard >= self.timing.election_min:
            self._leader_lost()
        self._ask_pre_votes()

    # ------------------------------------------------------------ pre-vote
    def _ask_pre_votes(self) -> None:
        """Would a majority vote for us? Nothing changes by asking."""
        self._attempt += 1
        self._pre_votes = {self.name}
        turns = min(self._attempt, 2 * len(self.voters))
        self._deadline = self.now + turns * self._slot_width() + self._slot_width() / 2
        journal = self._journal
        self._broadcast(
            pre_vote=pb.PreVote(attempt=self._attempt, last_index=journal.last, last_term=journal.last_term)
        )
        self._count_pre_votes()

    def _on_pre_vote(self, peer: str, message: pb.Message) -> None:
        if not self.voting:
            return
        asked = message.pre_vote
        granted = (
            not self.hears_leader()
            and message.term >= self.term
            and (asked.last_term, asked.last_index) >= (self._journal.last_term, self._journal.last)
        )
        answer = pb.PreVoteAnswer(attempt=asked.attempt, granted=granted)
        if asked.last_index < self._memberships[-1][0]:  # it does not know all members, maybe not even the leader
            answer.members.ParseFromString(self.membership.encode())
        self._send(peer, EVERYWHERE, pre_vote_answer=answer)
        if not granted and message.term < self.term and self.leading:
            self._next_round = self.now  # it has missed the election: show it the leader

    def _on_pre_vote_answer(self, peer: str, message: pb.Message) -> None:
        answer = message.pre_vote_answer
        if answer.HasField("members"):
            self.hint = Membership.from_message(answer.members)
        if message.term > self.term and not self.leading:
            self._step_down(message.term)
            return
        counts = message.voting and peer in self.voters
        if answer.granted and answer.attempt == self._attempt and counts and not self.leading:
            self._pre_votes.add(peer)
            self._count_pre_votes()

    def _count_pre_votes(self) -> None:
        if len(self._pre_votes) >= self.majority and not self.hears_leader() and not self.candidate:
            self._start_election(handed_over=False)

    # ------------------------------------------------------------ vote
    def _start_election(self, *, handed_over: bool) -> None:
        self._pre_votes = set()
        self._leader_lost()
        self._SyncObj__setState(RAFT_STATE.CANDIDATE)
        self._SyncObj__setCurrentTerm(self.term + 1, self.name)
        self._SyncObj__votesCount = 1
        self._votes = {self.name}
        self._silent_since = self._last_ack
        self._deadline = self.now + self._SyncObj__generateRaftTimeout()
        journal = self._journal
        request = pb.VoteRequest(last_index=journal.last, last_term=journal.last_term, handed_over=handed_over)
        self._broadcast(vote_request=request)
        if self.majority == 1:
            self._SyncObj__onBecomeLeader()

    def _on_vote_request(self, peer: str, message: pb.Message) -> None:
        asked = message.vote_request
        if not self.voting or (self.hears_leader() and not asked.handed_over):
            return
        if message.term > self.term:
            self._step_down(message.term)
        self._SyncObj__onMessageReceived(
            Node(peer),
            {
                "type": "request_vote",
                "term": message.term,
                "last_log_index": asked.last_index,
                "last_log_term": asked.last_term,
            },
        )

    def _send_inherited(self, peer: str, message: dict[str, Any]) -> None:
        """The inherited vote rule has said yes. Silence is taken now: what delays the vote only makes it count less."""
        if message["type"] != "response_vote":
            super()._send_inherited(peer, message)
        self._leader_lost()
        self._send(peer, EVERYWHERE, vote=pb.Vote(silence=self.now - self._last_ack))

    def _on_vote(self, peer: str, message: pb.Message) -> None:
        if not self.candidate or message.term != self.term or peer in self._votes or not message.voting:
            return
        if peer not in self.voters:
            return
        self._votes.add(peer)
        self._silent_since = max(self._silent_since, self.now - message.vote.silence)
        self._SyncObj__onMessageReceived(Node(peer), {"type": "response_vote", "term": message.term})

    def _on_timeout_now(self, peer: str, message: pb.Message) -> None:
        """The leader asks us to lead."""
        if peer == self.leader and message.term == self.term and self.electable and not self.disk_stuck():
            self._start_election(handed_over=True)

    # ------------------------------------------------------------ changes
    def _follow(self, peer: str, term: int) -> None:
        """A message of the leader of ``term``, which is not behind our own."""
        if term == self.term and (self.leading or self.leader not in (None, peer)):
            raise SafetyViolated(f"two leaders in term {term}: {self.leader} and {peer}")
        if term > self.term or self.candidate:
            self._step_down(term)
        if self.leader != peer:
            self._leader_lost()
            self._set_leader(peer)
        self._leader_heard = self.now
        self._attempt = 0
        self._joining = self._joining or not self.voting
        self._deadline = self.now + self._SyncObj__generateRaftTimeout()

    def _step_down(self, term: int) -> None:
        """Become a follower, of nobody yet, in ``term``."""
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
        if self.leading:
            self._stopped_leading()
        self._SyncObj__setState(RAFT_STATE.FOLLOWER)
        self._leader_lost()
        self._deadline = max(self._deadline, self.now + self._SyncObj__generateRaftTimeout())

    def _leader_lost(self) -> None:
        """Nobody is known to lead."""
        self._set_leader(None)

    def _members_changed(self) -> None:
        super()._members_changed()
        self.hint = None

    def _stopped_leading(self) -> None:
        """Hook of the layers above."""

    def peer_closed(self, now: float, peer: str) -> None:
        """Every connection from that member was closed by its end: its process is gone."""
        self._enter(now)
        if peer == self.leader and self.electable and not self.leading:
            self._leader_heard = NEVER
            self._leader_lost()
            self._deadline = min(self._deadline, now + AFTER_CLOSE + self._slot() * self._slot_width())

    def _enter(self, now: float) -> None:
        raise NotImplementedError

    def _refuse_old_term(self, peer: str) -> None:
        """Tell a leader of the past which term it is."""
        self._send(peer, BEST, heartbeat_answer=pb.HeartbeatAnswer(round=0))
