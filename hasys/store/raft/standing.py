"""May this member vote? "Never started" is told from "lost its journal" by asking the others.

A member that votes has promised never to forget. One that comes without a journal may have forgotten, so:
- if any other member has ever voted or taken entries, the cluster runs: this one becomes a new *incarnation*, which
  copies the log but neither votes nor counts, until a leader that the others elected has committed its admission;
- if every other voter says that it has never started either, it takes part in the first election of the cluster. All
  of them must be there once: a majority is not enough, because the one that is missing might hold acknowledged writes
  while these have merely lost theirs. Every later start needs a majority only.

Why a committed admission is enough: the others committed it after the loss, so each of a majority has it in its log,
and none of them votes any more for a candidate of a later term that could still use a vote of the earlier incarnation
(such a candidate lacks the admission). The member votes only after it has applied its admission, that is with every
entry committed before it.
"""

from __future__ import annotations

from typing import Any

from hasys.store.raft.foundation import BEST, Foundation
from hasys.store.raft.journal import FIRST_INDEX
from hasys.v1 import raft_pb2 as pb

ASK_PERIOD = 0.1
"""Seconds between questions of a member without a journal."""
PATIENCE = 2.0
"""Seconds after which a member that waits for others before the first election says so."""


class Standing(Foundation):
    """Incarnations, first start, admission: the member's own side."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        opened = named["opened"]
        self._joining = bool(opened.lost)
        """The cluster runs and this member waits for its admission."""
        self._lost = opened.lost
        self._fresh_peers: set[str] = set()
        self._next_question = self._started

    def _undecided(self) -> bool:
        return not self.voting and not self._joining

    def _has_started(self) -> bool:
        return self.term > 0 or self._journal.last > FIRST_INDEX or self._joining

    def _ask_standing(self) -> None:
        """Timer of a member that knows neither that the cluster runs nor that it never did."""
        if not self._undecided():
            return
        if self._has_started():
            self._joining = True
            return
        if self.now >= self._next_question:
            self._next_question = self.now + ASK_PERIOD
            self._broadcast(greeting=pb.Greeting(ask=True, started=False))
        if not self._unheard():
            self._become_voter()

    def _unheard(self) -> tuple[str, ...]:
        """The voters that have not said yet that they never started."""
        return tuple(v for v in self.voters if v != self.name and v not in self._fresh_peers)

    def waits_for(self, now: float) -> tuple[str, ...]:
        """Who is missing for the first election of the cluster, when it has been waited for long enough to say so."""
        if not self._undecided() or now < self._started + PATIENCE:
            return ()
        return self._unheard()

    def _on_greeting(self, peer: str, message: pb.Message) -> None:
        greeting = message.greeting
        if greeting.ask:
            self._send(peer, BEST, greeting=pb.Greeting(ask=False, started=self._has_started()))
        if not self._undecided():
            return
        if greeting.started:
            self._joining = True
        else:
            self._fresh_peers.add(peer)
            self._ask_standing()

    def _on_admission(self, payload: bytes) -> None:
        admission = pb.Admission.FromString(payload)
        mine = admission.name == self.name and admission.incarnation == self._journal.incarnation
        if mine and not self.voting:
            self._become_voter()

    def _become_voter(self) -> None:
        self._joining = False
        self._journal.become_voter()
        self._deadline = self.now + self._SyncObj__generateRaftTimeout()
