"""Starts a program in its own cgroup and session, waits for its end, recognises it again after a restart of the agent.

The program is started through ``/bin/sh``, which puts itself into the cgroup before it becomes the program: so nothing
that it forks can be outside, and nothing of Python runs between fork and exec. An agent that dies leaves it running.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import to_thread

from hasys.resources.cgroup import Cgroup
from hasys.resources.port import Permanent, Temporary

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LAUNCHER = 'echo 0 >"$1" || exit 125; cd "$2" || exit 124; shift 2; exec "$@"'
"""Arguments: cgroup.procs, working directory, command. Runs as root; setpriv then drops to the user."""
EXPLAINED = {
    124: "the working directory cannot be entered",
    125: "the cgroup cannot be joined",
    126: "the command cannot be executed",
    127: "the command was not found",
}
"""Exit statuses that the launcher uses when the program never ran."""
LOOKUP = 5.0
"""Seconds that the user database, and the file system with the working directory and the command, may take."""
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run and how."""

    argv: tuple[str, ...]
    user: str = "root"
    directory: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """Who a program runs as."""

    uid: int
    gid: int
    name: str
    home: str
    known: bool
    """In the user database, so that its supplementary groups can be looked up."""


async def _look_up(command: Command) -> Account:
    """Everything that may block (a slow user database, a hung network mount) happens here, in a thread."""

    def look() -> Account:
        who = _account(command.user)
        _check(command, command.environment.get("PATH", PATH))
        return who

    try:
        with anyio.fail_after(LOOKUP):
            return await to_thread.run_sync(look, abandon_on_cancel=True)
    except TimeoutError:
        what = f"user {command.user}, {command.directory} and {command.argv[0]}"
        raise Temporary(f"looking up {what} takes longer than {LOOKUP:g} s") from None


def _account(user: str) -> Account:
    try:
        found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal():
            return Account(int(user), int(user), user, "/", known=False)
        raise Permanent(f"user {user} does not exist on this node") from None
    return Account(found.pw_uid, found.pw_gid, found.pw_name, found.pw_dir, known=True)


class Process:
    """A running program, or one that ended. Held by a pidfd: its number cannot come to mean another process."""

    def __init__(self, pid: int, pidfd: int, started: int) -> None:
        self.pid = pid
        self.started = started
        """Start time in clock ticks since boot (/proc/pid/stat field 22)."""
        self.code: int | None = None
        """Once ended: exit status or minus signal; None when it was not our child or still runs."""
        self.over = False
        self._pidfd = pidfd

    async def wait(self) -> int | None:
        """Wait for the end; may be cancelled and called again. Returns :attr:`code`."""
        if not self.over:
            await anyio.wait_readable(self._pidfd)
            self._reap()
        return self.code

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        if not self.over:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    def _reap(self) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            result = None  # adopted: its parent is another process
        if result is not None:
            exited = result.si_code == os.CLD_EXITED
            self.code = result.si_status if exited else -result.si_status
        self.over = True
        os.close(self._pidfd)


async def start(command: Command, cgroup: Cgroup, output: Path) -> Process:
    """Start a program that prints into a pipe (its path). Raises :class:`Permanent` or :class:`Temporary`."""
    who = await _look_up(command)
    cgroup.create()
    launch = ["/bin/sh", "-c", LAUNCHER, "hasys-launch", str(cgroup.procs_file), command.directory, *_drop(who)]
    launch += command.argv
    try:
        pid = os.posix_spawn(  # noqa: ASYNC221  # returns when the child has become sh: under 1 ms
            launch[0],
            launch,
            _environment(command, who),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_RDWR, 0),  # reading too: no agent, yet no broken pipe
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=_IGNORED_BY_PYTHON,
        )
    except OSError as e:
        raise Temporary(f"cannot start {command.argv[0]}: {e.strerror}") from None
    return Process(pid, os.pidfd_open(pid), started_at(pid) or 0)


def adopt(pid: int, started: int, cgroup: Cgroup) -> Process | None:
    """The process that an earlier agent started, if it is still that one and lives in its cgroup."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # The pidfd is taken first: what is verified now is what it holds.
    if started_at(pid) == started and pid in cgroup.pids():
        return Process(pid, pidfd, started)
    os.close(pidfd)
    return None


def started_at(pid: int) -> int | None:
    """Start time in clock ticks since boot; None when there is no such process, or only its corpse."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def ended(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "ended"
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    said = f" ({EXPLAINED[code]})" if code in EXPLAINED else ""
    return f"exit status {code}{said}"


def signal_number(text: str) -> int:
    """SIGTERM, TERM or 15. Raises :class:`Permanent`."""
    try:
        if text.isdecimal():
            return signal.Signals(int(text)).value
        return signal.Signals["SIG" + text.upper().removeprefix("SIG")].value
    except (KeyError, ValueError):
        raise Permanent(f"stopSignal {text!r} is no signal: use SIGTERM, TERM or 15") from None


def _environment(command: Command, who: Account) -> dict[str, str]:
    base = {"PATH": PATH, "HOME": who.home, "USER": who.name, "LOGNAME": who.name}
    return {**base, **command.environment}


def _check(command: Command, path: str) -> None:
    """Refuse in clear words what can be known to fail."""
    if not os.path.isdir(command.directory):
        raise Permanent(f"working directory {command.directory} does not exist on this node")
    name = command.argv[0]
    found = os.path.join(command.directory, name) if "/" in name else shutil.which(name, path=path)
    if found is None or not os.path.exists(found):
        raise Permanent(f"command {name} does not exist on this node")
    if not os.access(found, os.X_OK):
        raise Permanent(f"command {found} is not executable")


def _drop(who: Account) -> list[str]:
    """The words that become the user before the program runs."""
    if who.uid == os.geteuid():
        return []
    groups = "--init-groups" if who.known else "--clear-groups"
    return ["setpriv", f"--reuid={who.uid}", f"--regid={who.gid}", groups, "--"]
