"""The two ways an Application runs: a foreground process that is supervised, or scripts for a program that detaches."""

from __future__ import annotations

import contextlib
import math
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio

from hasys.resources import output, process, scripts, settings
from hasys.resources.cgroup import Cgroup
from hasys.resources.output import Outputs
from hasys.resources.port import Place, Temporary
from hasys.resources.process import Command, Process
from hasys.resources.records import Records
from hasys.v1 import objects_pb2


class StartFailed(Exception):
    """It did not come up; the text says why."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Ending:
    """It is over, though nobody asked."""

    cause: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Home:
    """Where the traces of one application are on this node."""

    place: Place
    cgroup: Cgroup
    """Its processes."""
    helpers: Cgroup
    """Its stop and status scripts: below the agent's cgroup, because they must not outlive a fenced agent."""
    records: Records
    outputs: Outputs
    programs: str = ""
    """Tells one set of programs from another: what was started from other ones is not adopted."""

    def remember(self, **facts: object) -> None:
        self.records.write(self.place.group, self.place.name, {**self._now(), **facts})

    def remembered(self) -> dict[str, object]:
        return self.records.read(self.place.group, self.place.name) or {}

    def is_now(self, record: Mapping[str, object]) -> bool:
        """Does the record speak of this epoch and these programs?"""
        return self._now().items() <= record.items()

    def _now(self) -> dict[str, object]:
        return {"epoch": self.place.epoch, "programs": self.programs}

    def forget(self) -> None:
        self.records.forget(self.place.group, self.place.name)

    def environment(self) -> dict[str, str]:
        """What a program may know of where it runs."""
        p = self.place
        return {"HASYS_NODE": p.node, "HASYS_GROUP": p.group, "HASYS_RESOURCE": p.name, "HASYS_EPOCH": str(p.epoch)}


class Service(ABC):
    """Start once, notice the end, stop. Not concurrent with itself."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.since = -math.inf
        """When it was started, on anyio's clock; an adopted one counts as started long ago."""

    @property
    def log(self) -> Path:
        """What it printed, up to now."""
        file = self.home.outputs.file(self.home.place.group, self.home.place.name)
        self.home.outputs.drain(file)
        return file

    @property
    def pipe(self) -> Path:
        """What it prints into."""
        return output.pipe_of(self.home.outputs.file(self.home.place.group, self.home.place.name))

    @abstractmethod
    async def adopt(self) -> bool:
        """Does it run from before this agent, under this epoch?"""

    def take_over(self, earlier: Service) -> None:
        """Go on with what ``earlier``, of the same programs, runs."""
        self.since = earlier.since
        known = earlier.home.remembered()
        if known:  # under another epoch, perhaps
            self.home.remember(**{key: value for key, value in known.items() if key not in ("epoch", "programs")})

    @abstractmethod
    async def start(self) -> None:
        """Returns when it was started. Raises :class:`StartFailed`."""

    @abstractmethod
    async def ended(self) -> Ending:
        """Returns when it has ended by itself."""

    async def stop(self, *, force: bool) -> str:
        """Returns when nothing of it is left: what went wrong when it was asked, before it was killed; "" nothing.
        Raises ``Temporary`` naming what is left."""
        trouble = "" if force else await self.ask_to_stop()
        await self.home.cgroup.empty()
        self.home.forget()
        return trouble

    @abstractmethod
    async def ask_to_stop(self) -> str:
        """Let it end in its own way, for as long as its settings allow. Returns what went wrong; "" nothing."""


class Foreground(Service):
    """A process that stays in the foreground. Its stop signal goes to that process alone; what it leaves behind is
    killed."""

    def __init__(self, home: Home, run: objects_pb2.Run) -> None:
        super().__init__(home)
        self._command = command_of(run, home)
        self._signal = settings.text(run, "stop_signal")
        self._stop_timeout = settings.seconds(run, "stop_timeout")
        self._process: Process | None = None

    async def adopt(self) -> bool:
        return self._find() and self.home.is_now(self.home.remembered())

    def take_over(self, earlier: Service) -> None:
        super().take_over(earlier)
        if isinstance(earlier, Foreground):
            self._process, earlier._process = earlier._process, None

    async def start(self) -> None:
        await self.ask_to_stop()  # what an earlier agent started from other programs or under another epoch
        await self.home.cgroup.empty()
        self._process = await process.start(self._command, self.home.cgroup, self.pipe)
        self.home.remember(pid=self._process.pid, started=self._process.started)
        self.since = anyio.current_time()

    async def ended(self) -> Ending:
        assert self._process is not None, "nothing was started"
        code = await self._process.wait()
        return Ending(process.ended(code), code)

    async def ask_to_stop(self) -> str:
        if not self._find():
            return ""
        assert self._process is not None
        self._process.signal(process.signal_number(self._signal))
        with anyio.move_on_after(self._stop_timeout):
            await self._process.wait()
            return ""
        return f"did not end within {self._stop_timeout:g} s of {self._signal}: killed"

    def _find(self) -> bool:
        """Does the process that was started last still run, whoever started it?"""
        if self._process is None:
            record = self.home.remembered()
            pid, started = record.get("pid"), record.get("started")
            if isinstance(pid, int) and isinstance(started, int):
                self._process = process.adopt(pid, started, self.home.cgroup)
        return self._process is not None and not self._process.over

    async def stop(self, *, force: bool) -> str:
        trouble = "" if force else await self.ask_to_stop()
        if self._process is not None:
            self._process.signal(signal.SIGKILL)  # it may be so young that it is not in its cgroup yet
        await super().stop(force=True)
        if self._process is not None:
            await self._process.wait()  # reaped: it leaves no corpse
            self._process = None
        return trouble


class Scripted(Service):
    """Start, stop and status scripts. What the start script leaves running belongs to the application's cgroup; without
    a status script the application counts as dead when that cgroup, once inhabited, is empty."""

    WATCH_PERIOD = 0.5
    """Seconds between looks at the cgroup when there is no status script."""

    def __init__(
        self,
        home: Home,
        start: objects_pb2.Script,
        stop: objects_pb2.Script | None,
        status: objects_pb2.Script | None,
        interval: float,
    ) -> None:
        """``interval``: seconds between two runs of the status script."""
        super().__init__(home)
        self._start = start
        self._stop = stop
        self._status = status
        self._interval = interval
        self._inhabited = False

    async def adopt(self) -> bool:
        record = self.home.remembered()
        self._inhabited = self.home.cgroup.populated()
        return record.get("script") == "started" and self.home.is_now(record)

    def take_over(self, earlier: Service) -> None:
        super().take_over(earlier)
        self._inhabited = self.home.cgroup.populated()

    async def start(self) -> None:
        with contextlib.suppress(Temporary):
            await self.ask_to_stop()  # what is left of an earlier start
        await self.home.cgroup.empty()
        self.home.remember(script="starting")
        # Not cancelled half way: a start script may have a half-made world to finish. Its own timeout bounds it.
        with anyio.CancelScope(shield=True):
            ending = await self._run(self._start, "start")
        if ending is not None:
            raise StartFailed(ending.cause, ending.code)
        self.home.remember(script="started")
        self._inhabited = self.home.cgroup.populated()
        self.since = anyio.current_time()

    async def ended(self) -> Ending:
        while True:
            if self._status is None:
                await anyio.sleep(self.WATCH_PERIOD)
                if self._inhabited and not self.home.cgroup.populated():
                    return Ending("no process of it is left")
                continue
            await anyio.sleep(self._interval)
            ending = await self._run(self._status, "status")
            if ending is not None:
                return ending

    async def ask_to_stop(self) -> str:
        if self._stop is None or not self.home.remembered():
            return ""
        ending = await self._run(self._stop, "stop")
        if ending is None:
            return ""
        if self.home.cgroup.populated():
            return ending.cause  # what it did not stop is killed
        if not self._inhabited:
            raise Temporary(f"{ending.cause}; nothing else is known to stop it")
        return ""

    async def _run(self, script: objects_pb2.Script, name: str) -> Ending | None:
        """Run a script to its end; None when it succeeded. What the start script leaves running is the application."""
        own = self.home.cgroup if name == "start" else self.home.helpers
        timeout = settings.seconds(script, "timeout")
        ended = await scripts.run(command_of(script, self.home), own, self.pipe, timeout, keep=name == "start")
        if ended.code == 0:
            return None
        said = output.last_line(self.log) if ended.code is not None else ""
        return Ending(
            f"{name} script{'' if ended.code is None else ':'} {ended.cause}{': ' + said if said else ''}", ended.code
        )


def command_of(source: objects_pb2.Run | objects_pb2.Script, home: Home) -> Command:
    """The command of a manifest, with the environment that hasys adds."""
    return Command(
        tuple(source.command),
        settings.text(source, "user"),
        settings.text(source, "working_directory"),
        {**home.environment(), **source.env},
    )
