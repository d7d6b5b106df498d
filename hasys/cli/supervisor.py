"""``hasys node run``: keeps the processes of a node running, and stops them in the right order.

It holds no authority and no state that matters. When it is killed its children go on; the next one finds them by their
role locks and adopts them. A plain poll loop: no threads, no event loop library, nothing that grows.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from hasys.cli.ears import Ear
from hasys.cli.tail import Tail, Terminal
from hasys.config import Log
from hasys.notify import ALIVE, READY, STOPPING, Notifier
from hasys.processes import AlreadyRuns, Identity, RoleLock

_LOOK, _REST = 0.25, 1.0
"""Seconds between looks at the children's output and signs of life; when all is well and nobody sits before it."""

_HEALTHY = 10.0
"""A child that lived this long is restarted at once when it ends."""

_BACKOFF = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the first, second ... restart in a row."""

_URGENT = 40
"""SCHED_FIFO priority of an urgent role: above ordinary work, below the kernel's own threads."""

_AT_ONCE = 1.0
"""Seconds that a child gets when there is no time: after the second Ctrl-C, and after SIGKILL."""


@dataclass(frozen=True, slots=True)
class Role:
    """One process of a node."""

    name: str
    command: Sequence[str]
    stop_grace: float = 5.0
    """Seconds between SIGTERM and SIGKILL."""
    urgent: bool = False
    """It must be back before others even notice: real-time priority from its first instruction, where allowed."""
    vital: bool = False
    """Its signs of life are passed on to whoever started the supervisor."""
    longest_wait: float = 5.0
    """Most seconds before it is started again, however often it ended: below what the others forgive its absence."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and what to do before it stops."""

    roles: Sequence[Role]
    """In start order; they are stopped in reverse."""
    run_dir: Path
    hand_over: Sequence[str] = ()
    """A command that gives this node's groups away; empty: nothing to give."""
    hand_over_limit: float = 3700.0
    """Seconds; the command has its own, shorter bound."""
    log: Log = field(default_factory=Log)
    """How much of what they print is kept in the run directory."""
    after: dict[str, Callable[[], None]] = field(default_factory=dict)
    """To do once the role of that name has stopped, before the next one is asked to."""


class _Phase(Enum):
    RUNNING = auto()
    HANDING_OVER = auto()
    STOPPING = auto()
    STOPPED = auto()


class _Child:
    """One role: the process that has it now, ours or adopted, and when it is started again."""

    def __init__(self, role: Role, run_dir: Path, terminal: Terminal, log: Log) -> None:
        self.role = role
        self.lock = RoleLock(run_dir, role.name)
        self.tail = Tail(run_dir / f"{role.name}.log", f"{role.name:5} | ", terminal, log)
        self.ear = Ear(run_dir / f"{role.name}.notify")
        self.process: Identity | None = None
        self.pidfd = -1
        self.start_at = 0.0
        self._started = 0.0
        self._failures = 0

    @property
    def runs(self) -> bool:
        return self.process is not None

    @property
    def over(self) -> bool:
        """Has the process ended? Its descriptor says so for one system call: this is asked several times a second."""
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def begin(self, now: float) -> str:
        """Adopt the process that has the role, or start one. Returns what was done."""
        self._started = now
        holder = self.lock.holder()
        if holder and self._watch(holder):
            return f"adopted pid {holder.pid}"
        output = self.tail.open_for_child()
        try:
            pid = _spawn(self.role.command, output, self.ear.environment, urgent=self.role.urgent)
        finally:
            os.close(output)
        self.process, self.pidfd = Identity.of_child(pid), os.pidfd_open(pid)
        return f"started pid {pid}"

    def ended(self, now: float) -> float:
        """The process is gone. Returns the seconds until the next start."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pidfd, self.process = -1, None
        self.ear.ended()
        self._failures = 0 if now - self._started >= _HEALTHY else self._failures + 1
        backoff = _BACKOFF[min(max(self._failures - 1, 0), len(_BACKOFF) - 1)]
        wait = min(backoff, self.role.longest_wait)
        self.start_at = now + wait
        return wait

    def signal(self, number: signal.Signals) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def _watch(self, process: Identity) -> bool:
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return False
        if not process.alive:  # the pid was reused between reading and opening
            os.close(pidfd)
            return False
        self.process, self.pidfd = process, pidfd
        return True


class Supervisor:
    """Runs a plan until it is told to stop. Use once, from the main thread."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = RoleLock(plan.run_dir, "supervisor")
        self._terminal = Terminal(sys.stderr.fileno())
        self._children: list[_Child] = []
        self._phase = _Phase.RUNNING
        self._helper: Identity | None = None
        self._deadline = 0.0
        self._wake, self._signalled = socket.socketpair()
        self._interrupts = 0
        self._above = Notifier.from_environment()
        self._ready = False
        self._next_sign = 0.0

    def run(self) -> int:
        """Serve until every child has stopped on request. Raises :class:`AlreadyRuns`."""
        self._lock.take()
        self._catch_signals()
        self._children = [_Child(role, self._plan.run_dir, self._terminal, self._plan.log) for role in self._plan.roles]
        while self._step(time.monotonic()):
            pass
        self._say("stopped")
        return 0

    def _step(self, now: float) -> bool:
        """Do what is due, then wait for the next event. False when all is done."""
        self._reap(now)
        self._start_due(now)
        self._advance(now)
        self._tell(now)
        for child in self._children:
            child.tail.follow()
        if self._phase is _Phase.STOPPED:
            return False
        self._wait(now)
        return True

    # -- signals and waiting

    def _catch_signals(self) -> None:
        for end in (self._wake, self._signalled):
            end.setblocking(False)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def _wait(self, now: float) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for child in self._children:
            if child.runs:
                poll.register(child.pidfd, select.POLLIN)
        due = [c.start_at - now for c in self._children if not c.runs and self._keeps_running]
        due += [max(self._next_sign - now, _LOOK)] if self._above.period else []
        poll.poll(max(0.0, min([_REST if self._rests else _LOOK, *due])) * 1000 + 1)
        with contextlib.suppress(BlockingIOError):
            for number in self._wake.recv(256):
                self._on_signal(number)

    @property
    def _rests(self) -> bool:
        well = self._ready and all(child.runs for child in self._children)
        return well and self._phase is _Phase.RUNNING and not self._terminal.watched

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts == 2:
                self._stop_at_once()
                return
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) and self._phase is _Phase.RUNNING:
            self._begin_to_stop()

    def _tell(self, now: float) -> None:
        """Pass on to whoever started us what the children say: see :mod:`hasys.cli.ears`."""
        for child in self._children:
            child.ear.listen(now, runs=child.runs)
        if not self._ready and self._children and all(child.ear.ready for child in self._children):
            self._ready = True
            self._above.say(READY)
        vital = [child for child in self._children if child.role.vital]
        if self._above.period and now >= self._next_sign and all(child.ear.alive(now) for child in vital):
            self._next_sign = now + self._above.period
            self._above.say(ALIVE)

    # -- children

    @property
    def _keeps_running(self) -> bool:
        return self._phase in (_Phase.RUNNING, _Phase.HANDING_OVER)

    def _start_due(self, now: float) -> None:
        if not self._keeps_running:
            return
        for child in self._children:
            if not child.runs and now >= child.start_at:
                self._say(f"{child.role.name}: {child.begin(now)}")

    def _reap(self, now: float) -> None:
        """Collect every ended process: as PID 1 of a container, orphans of others too."""
        how = {}
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                how[ended[0]] = os.waitstatus_to_exitcode(ended[1])
        if self._helper and not self._helper.alive:
            self._helper = None
        for child in self._children:
            if child.process and child.over:
                pid = child.process.pid
                wait = child.ended(now)
                again = f"; again in {wait:g} s" if wait else ""
                self._say(f"{child.role.name}: pid {pid} ended{_in_words(how.get(pid))}{again * self._keeps_running}")

    # -- stopping

    @property
    def _at_once(self) -> bool:
        return self._interrupts >= 2

    def _begin_to_stop(self) -> None:
        self._above.say(STOPPING)
        if not self._plan.hand_over:
            self._phase = _Phase.STOPPING
            return
        self._say("stopping: handing the groups over (Ctrl-C again: stop at once)")
        self._phase = _Phase.HANDING_OVER
        self._deadline = time.monotonic() + self._plan.hand_over_limit
        pid = _spawn(self._plan.hand_over, sys.stderr.fileno(), os.environ)
        self._helper = Identity.of_child(pid)

    def _stop_at_once(self) -> None:
        self._say("stopping at once")
        if self._helper:
            _kill(self._helper)
        self._phase = _Phase.STOPPING
        for child in self._children:
            child.signal(signal.SIGTERM)
        self._deadline = time.monotonic() + _AT_ONCE

    def _advance(self, now: float) -> None:
        """One step towards the end: hand over, then one role after the other, the last started first."""
        if self._phase is _Phase.HANDING_OVER:
            if self._helper and now >= self._deadline:
                _kill(self._helper)
            if not self._helper:
                self._phase = _Phase.STOPPING
                self._deadline = 0.0
        if self._phase is _Phase.STOPPING:
            self._stop_next(now)

    def _stop_next(self, now: float) -> None:
        while self._children:
            child = self._children[-1]
            if child.runs:
                if not self._deadline:
                    child.signal(signal.SIGTERM)
                    self._deadline = now + child.role.stop_grace
                elif now >= self._deadline:
                    self._say(f"{child.role.name}: did not stop in time, killed")
                    child.signal(signal.SIGKILL)
                    self._deadline = now + _AT_ONCE
                return
            child.tail.follow()
            child.ear.close()
            self._children.pop()
            self._plan.after.get(child.role.name, lambda: None)()
            self._deadline = self._deadline if self._at_once else 0.0
        self._phase = _Phase.STOPPED

    def _say(self, text: str) -> None:
        if self._terminal.ready:
            self._terminal.print(f"node  | {text}\n".encode())


def _spawn(command: Sequence[str], output: int, environment: Mapping[str, str], *, urgent: bool = False) -> int:
    """Start a process in its own session (a terminal's Ctrl-C is for the supervisor alone) with this output."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]

    def start(**more: Any) -> int:
        return os.posix_spawn(
            command[0],
            list(command),
            environment,
            file_actions=actions,
            setsid=True,
            setsigdef=[signal.SIGPIPE],
            **more,
        )

    if urgent:
        with contextlib.suppress(PermissionError):
            return start(scheduler=(os.SCHED_FIFO, os.sched_param(_URGENT)))
    return start()


def _kill(process: Identity) -> None:
    if process.alive:
        os.kill(process.pid, signal.SIGKILL)


def _in_words(status: int | None) -> str:
    if status is None:
        return ""
    return f" by {signal.Signals(-status).name}" if status < 0 else f" with status {status}"


__all__ = ["AlreadyRuns", "Plan", "Role", "Supervisor"]
