"""The engine: one core, its disk thread, its connections and its timers, in the event loop that calls it.

Everything that happens in one turn of the loop (messages, proposals, a finished disk job) is handled by one advance of
the core at the end of that turn: one append, one message per follower, one disk job for all of it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hasys.config import Member, NodeConfig
from hasys.model.errors import HasysError, Refused, Unavailable, Unknown
from hasys.model.timing import Timing, show
from hasys.store.port import Applied, Authority, EngineStatus, StateMachine
from hasys.store.raft.core import Core
from hasys.store.raft.disk import Folder
from hasys.store.raft.following import Done, Failure
from hasys.store.raft.journal import Job, Opened, open_journal
from hasys.store.raft.links import TlsContexts
from hasys.store.raft.membership import Membership
from hasys.store.raft.transport import Callbacks, Transport

log = logging.getLogger(__name__)

MAX_COMMAND = 4 * 1024 * 1024
"""Bytes of one command; a frame carries it whole."""
MAX_WAITING = 4096
"""Proposals that wait for a leader."""
SIBLINGS = 4
"""With so many proposals open, or in the last batch, their callers are many: new ones are gathered, so that one disk
job, one message to each follower and one wake-up of their callers serve several. Few callers never wait."""
GATHER, GATHER_MANY, MANY = 0.006, 0.010, 20
"""Seconds between two batches then, and from so many proposals in one on."""
RETRY = 0.02
"""Seconds before a proposal that was not accepted is handed in again."""


class DiskFailed(HasysError):
    """The journal's disk failed: this member must stop. The text names folder and error."""


@dataclass(slots=True, eq=False, repr=False)
class _Proposal:
    command: bytes
    future: asyncio.Future[Applied | Failure]
    handed_in: bool = False
    """The core has it: its outcome is open until the core answers."""


class RaftEngine:
    """See ``hasys.store.port.Engine``. Use within one event loop; :meth:`run` serves until it is cancelled."""

    def __init__(self, config: NodeConfig, timing: Timing, machine: StateMachine, *, data_dir: Path) -> None:
        if not config.me.votes:
            raise Refused(f"{config.name} is no voter: it keeps no log")
        self._config = config
        self._timing = timing
        self._machine = machine
        self._folder = data_dir
        self._core: Core | None = None
        self._transport: Transport | None = None
        self._disk = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: deque[_Proposal] = deque()
        self._open = 0
        """Proposals that the core has and has not answered."""
        self._batch_at = float("-inf")
        """When the core was given proposals last, and how many."""
        self._batch = 0
        self._gathering: asyncio.TimerHandle | None = None
        self._pump_due = False
        self._authority: tuple[Authority | None, ...] = ()
        """As of the last event; empty: to be worked out."""
        self._timer: asyncio.TimerHandle | None = None
        self._failure: asyncio.Future[None] | None = None
        self._on_change: list[Callable[[], None]] = []
        self._on_applied: list[Callable[[int], None]] = []
        self._seen: tuple[object, ...] = ()
        self._seen_applied = 0
        self._missed: tuple[str, ...] = ()
        self._members: Membership | None = None
        self._on_members: list[Callable[[], None]] = []

    # ------------------------------------------------------------ the port
    async def run(self) -> None:
        """Serve until cancelled. Ends with :class:`DiskFailed`, or any other exception, when it cannot go on."""
        loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        folder: Folder | None = None
        try:
            folder = await loop.run_in_executor(self._disk, self._lock)
            opened = await loop.run_in_executor(self._disk, open_journal, folder)
            contexts = await loop.run_in_executor(self._disk, TlsContexts.load, self._config)
            await self._serve(opened, contexts)
        except OSError as e:
            raise DiskFailed(f"{self._folder}: {e.strerror or e}: this member cannot keep its log") from e
        finally:
            self._core, self._authority = None, ()
            self._fail_waiting()
            await asyncio.shield(loop.run_in_executor(None, self._disk.shutdown))
            if folder is not None:
                folder.close()

    async def propose(self, command: bytes, *, timeout: float) -> Applied:
        if len(command) > MAX_COMMAND:
            raise Refused(f"a change of {len(command)} bytes: the limit is {MAX_COMMAND}")
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING} changes already wait for a leader")
        loop = asyncio.get_running_loop()
        now = loop.time()
        proposal = _Proposal(command, loop.create_future())
        self._waiting.append(proposal)
        if self._batch_due(now):
            self._pump_soon()
        timer = loop.call_at(now + timeout, _expire, proposal, timeout)
        try:
            result = await proposal.future
        finally:
            timer.cancel()
            if not proposal.handed_in:
                with suppress(ValueError):
                    self._waiting.remove(proposal)
        if isinstance(result, Failure):
            raise Unknown("the leader changed before it answered: the change may have been made")
        return result

    async def confirm(self, *, timeout: float) -> None:
        core, loop = self._begun(), asyncio.get_running_loop()
        confirmed: asyncio.Future[bool] = loop.create_future()
        core.confirm(loop.time(), lambda led: None if confirmed.done() else confirmed.set_result(led))
        self._pump_soon()
        try:
            async with asyncio.timeout(timeout):
                led = await confirmed
        except TimeoutError:
            raise Unavailable(f"no majority confirmed within {show(timeout)} that this member still leads") from None
        if not led:
            raise Unavailable("this member does not lead any more")

    def authority(self) -> Authority | None:
        """Worked out once between two events that reach the core: every call to the API asks for it several times."""
        if not self._authority:
            self._authority = (self._core.authority() if self._core is not None else None,)
        return self._authority[0]

    def status(self) -> EngineStatus:
        voters = self._core.voters if self._core is not None else tuple(v.name for v in self._config.voters)
        core, transport = self._core, self._transport
        if core is None or transport is None:
            return EngineStatus("Follower", None, 0, 0, 0, voters, (), quorum=False, message="starting")
        connected = tuple(p.name for p in transport.peers.values() if p.reachable)
        return EngineStatus(
            role=core.role,
            leader=core.leader,
            term=core.term,
            committed=core.committed,
            applied=core.applied,
            voters=voters,
            connected=connected,
            quorum=core.leader is not None and core.hears_leader(),
            message=core.why_not_voting() or _unwanted(transport),
            cut=transport.cut(),
            levels=transport.levels(),
            member=core.name in core.membership.names and (not transport.unwanted_by or core.hears_leader()),
        )

    def on_change(self, callback: Callable[[], None]) -> None:
        self._on_change.append(callback)

    def on_applied(self, callback: Callable[[int], None]) -> None:
        self._on_applied.append(callback)

    async def hand_over(self) -> None:
        """Ask a caught-up member to lead, and wait until one does; gives up after a few elections' time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * self._timing.election_max
        while self._core is not None and self._core.leading and loop.time() < until:
            self._core.hand_over(loop.time())
            self._pump_soon()
            changed = loop.create_future()
            callback = _resolve(changed)
            self._on_change.append(callback)
            try:
                async with asyncio.timeout(self._timing.election_min):
                    await changed
            except TimeoutError:
                pass
            finally:
                self._on_change.remove(callback)

    # ------------------------------------------------------------ beyond the port
    def set_timing(self, timing: Timing) -> None:
        """Use other durations from now on; the caller sees to the order of changes (design, "Timings")."""
        self._timing = timing
        if self._core is not None:
            self._core.set_timing(timing)
            self._pump_soon()

    # ------------------------------------------------------------ members
    def members(self) -> tuple[Member, ...] | None:
        named = self._core.explicit_membership if self._core is not None else None
        return named.members if named is not None else None

    def learners(self) -> frozenset[str]:
        """See ``hasys.store.port.ChangingEngine``; so the rest of this section."""
        return self._core.membership.learners if self._core is not None else frozenset()

    def on_members(self, callback: Callable[[], None]) -> None:
        self._on_members.append(callback)

    def living(self) -> frozenset[str]:
        return self._core.living() if self._core is not None else frozenset()

    def settled(self) -> bool:
        return self._core is not None and self._core.members_settled()

    async def add_member(self, member: Member, *, timeout: float) -> None:
        await self._changed_members(lambda core, now: core.add_member(now, member), timeout)

    async def remove_member(self, name: str, *, timeout: float) -> None:
        await self._changed_members(lambda core, now: core.remove_member(now, name), timeout)

    def check_removal(self, name: str) -> None:
        self._begun().check_removal(asyncio.get_running_loop().time(), name)

    def _begun(self) -> Core:
        if self._core is None:
            raise Unavailable("this member is starting, or stops")
        return self._core

    async def _changed_members(self, change: Callable[[Core, float], int], timeout: float) -> None:
        core, loop = self._begun(), asyncio.get_running_loop()
        term, index = core.term, change(core, loop.time())
        self._pump_soon()
        try:
            async with asyncio.timeout(timeout):
                while core.leading and core.term == term and core.applied < index:
                    await self._next(self._on_applied, self._on_change)
        except TimeoutError:
            raise Unknown(f"not committed within {show(timeout)}: the members may still change") from None
        if core.term != term or core.applied < index:
            raise Unknown("the leader changed: the members may have changed")

    async def _next(self, *lists: list[Callable[..., None]]) -> None:
        """The next call of any of these callbacks."""
        called = asyncio.get_running_loop().create_future()
        callback = _resolve(called)
        for one in lists:
            one.append(callback)
        try:
            await called
        finally:
            for one in lists:
                one.remove(callback)

    @property
    def refusals(self) -> int:
        """Connections refused on the consensus port."""
        return self._transport.refusals if self._transport is not None else 0

    # ------------------------------------------------------------ serving
    def _lock(self) -> Folder:
        """Two processes on one journal would each believe in it."""
        folder = Folder(self._folder)
        if not folder.lock():
            raise Refused(f"{self._folder} is in use by another store process")
        folder.probe()
        return folder

    async def _serve(self, opened: Opened, contexts: TlsContexts) -> None:
        loop = asyncio.get_running_loop()
        if opened.lost:
            log.error(
                "%s: %s; it was set aside, this member will not vote until admitted again", self._folder, opened.lost
            )
        assert self._failure is not None
        core = Core(
            self._config.name,
            Membership(self._config.voters),
            timing=self._timing,
            opened=opened,
            machine=self._machine,
            now=loop.time(),
        )
        core.set_timing(self._timing)  # a restored snapshot may have brought another one
        transport = Transport(
            self._config,
            contexts,
            Callbacks(
                message=lambda peer, message, network: self._do(lambda now: core.receive(now, peer, message, network)),
                connected=lambda peer: self._do(lambda now: core.connected(now, peer)),
                disconnected=lambda peer: self._do(lambda now: core.disconnected(now, peer)),
                closed=lambda peer: self._do(lambda now: core.peer_closed(now, peer)),
                failed=self._fail,
                networks=self._tell_change,
                log_state=core.log_state,
                named=lambda: core.explicit_membership is not None,
            ),
        )
        self._core, self._transport, self._members, self._authority = core, transport, None, ()
        self._follow_members(core, transport)
        try:
            await transport.start()
            self._pump_soon()
            await self._failure
        finally:
            for timer in (self._timer, self._gathering):
                if timer is not None:
                    timer.cancel()
            await transport.stop()

    def _do(self, step: Callable[[float], None]) -> None:
        """Hand one event to the core; any exception ends the engine."""
        if self._failure is None or self._failure.done():
            return
        try:
            step(asyncio.get_running_loop().time())
        except Exception as e:
            self._fail(e)
        self._pump_soon()

    def _fail(self, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    def _pump_soon(self) -> None:
        """The core was given something: advance it at the end of this turn."""
        self._authority = ()
        if not self._pump_due and self._core is not None:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """The end of a turn: let the core do what is due, then send, write and sleep as it says."""
        self._pump_due = False
        core, transport, failure = self._core, self._transport, self._failure
        if core is None or transport is None or failure is None or failure.done():
            return
        loop = asyncio.get_running_loop()
        try:
            self._hand_in(core, loop.time())
            core.advance(loop.time())
            self._authority = ()
            self._follow_members(core, transport)
            for out in core.take_outgoing():
                transport.send(out)
            self._write(core, loop)
            self._arm(core, loop)
            self._tell(core)
        except Exception as e:
            self._fail(e)

    def _follow_members(self, core: Core, transport: Transport) -> None:
        """Dial and hear whom the log names."""
        members = core.reachable_members()
        if members == self._members:
            return
        self._members = members
        transport.set_members(members.members)
        for changed in tuple(self._on_members):
            changed()

    def _write(self, core: Core, loop: asyncio.AbstractEventLoop) -> None:
        job = core.take_job(loop.time())
        if job is not None:
            self._disk.submit(job.run).add_done_callback(
                lambda done: _threadsafe(loop, lambda: self._written(job, done.exception()))
            )

    def _written(self, job: Job, error: BaseException | None) -> None:
        core = self._core
        if core is None:
            return
        if error is not None:
            self._fail(error)
        else:
            self._do(lambda now: core.persisted(now, job))

    def _arm(self, core: Core, loop: asyncio.AbstractEventLoop) -> None:
        """One timer. It is moved only to an earlier time; when it comes too early, it is set again."""
        at = core.next_deadline()
        if self._timer is not None and not self._timer.cancelled() and self._timer.when() <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(at, self._on_timer) if at != float("inf") else None

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def _tell(self, core: Core) -> None:
        if (missing := core.waits_for(asyncio.get_running_loop().time())) != self._missed:
            self._missed = missing
            if missing:
                log.warning("%s", core.why_not_voting())
        if core.applied != self._seen_applied:
            self._seen_applied = core.applied
            for applied in tuple(self._on_applied):
                applied(core.applied)
        unwanted = self._transport.unwanted_by if self._transport is not None else None
        seen = (core.role, core.leader, core.term, core.authority() is not None, unwanted)
        if seen != self._seen:
            self._log_change(core)
            self._seen = seen
            self._tell_change()

    def _tell_change(self) -> None:
        for changed in tuple(self._on_change):
            changed()

    def _log_change(self, core: Core) -> None:
        log.info("%s in term %d, leader %s", core.role, core.term, core.leader or "unknown")

    # ------------------------------------------------------------ proposals
    def _batch_due(self, now: float) -> bool:
        """Shall waiting proposals be handed in now? Otherwise the time is set when they will be."""
        callers = max(self._open, self._batch)
        due = self._batch_at + (GATHER if callers < MANY else GATHER_MANY)
        if callers < SIBLINGS or now >= due:
            return True
        if self._waiting and self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_at(due, self._gathered)
        return False

    def _hand_in(self, core: Core, now: float) -> None:
        """Give waiting proposals to the core while it can take them, and when the next batch is due."""
        if not self._waiting or not self._batch_due(now):
            return
        self._batch = len(self._waiting)
        while self._waiting and core.takes_proposals():
            proposal = self._waiting.popleft()
            if proposal.future.done():
                continue
            proposal.handed_in = True
            self._batch_at = now
            self._open += 1
            core.propose(now, proposal.command, self._settle(proposal))

    def _gathered(self) -> None:
        self._gathering = None
        self._pump()

    def _settle(self, proposal: _Proposal) -> Done:
        def done(result: Applied | Failure) -> None:
            self._open -= 1
            loop = asyncio.get_running_loop()
            if self._waiting and not self._pump_due and self._batch_due(loop.time()):
                self._pump_soon()
            if proposal.future.done():
                return
            if result is Failure.NOT_ACCEPTED:  # nothing has changed: try again while its caller waits
                proposal.handed_in = False
                loop.call_later(RETRY, self._again, proposal)
            else:
                proposal.future.set_result(result)

        return done

    def _again(self, proposal: _Proposal) -> None:
        if proposal.future.done():
            return
        self._waiting.append(proposal)
        if self._core is None:
            self._fail_waiting()
        self._pump_soon()

    def _fail_waiting(self) -> None:
        for proposal in self._waiting:
            if not proposal.future.done():
                proposal.future.set_exception(Unavailable("this member stops; nothing changed"))
        self._waiting.clear()


def _expire(proposal: _Proposal, timeout: float) -> None:
    if proposal.future.done():
        return
    if proposal.handed_in:
        error: HasysError = Unknown(f"no answer within {show(timeout)}: the change may still be made")
    else:
        error = Unavailable(f"no leader took the change within {show(timeout)}; nothing changed")
    proposal.future.set_exception(error)


def _unwanted(transport: Transport) -> str:
    by = sorted(transport.unwanted_by)
    return f"is no member any more, as {', '.join(by)} says" if by else ""


def _threadsafe(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)


def _resolve(future: asyncio.Future[None]) -> Callable[..., None]:
    def callback(*_: object) -> None:
        if not future.done():
            future.set_result(None)

    return callback
