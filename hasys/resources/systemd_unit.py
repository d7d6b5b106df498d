"""SystemdUnit: a service of systemd that runs while this node has the group.

A drop-in below /run, made before the first start, hands the decisions to hasys: systemd does not restart the service by
itself, and its processes are in a cgroup whose place is known beforehand, so that the guard can kill them without
systemd.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import anyio

from hasys.resources import settings
from hasys.resources.cgroup import Cgroup
from hasys.resources.port import Permanent, Surroundings, Temporary
from hasys.resources.service import Ending, Home, Service, StartFailed
from hasys.resources.supervised import Supervised, programs_of
from hasys.v1 import objects_pb2

SLICE = "system.slice"
DROP_IN = "50-hasys.conf"
PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "UnitFileState")
UP, COMING = ("active", "reloading"), ("activating", "deactivating")
"""``ActiveState`` of a service that serves, and of one on its way: systemd's org.freedesktop.systemd1(5)."""


class Systemctl(Protocol):
    """systemd, as far as this kind needs it; tests bring their own."""

    @property
    def runtime(self) -> Path:
        """Where drop-ins that last until the next boot are kept: /run/systemd/system."""
        ...

    def trouble(self) -> str:
        """Why there is no systemd here; "" when there is."""
        ...

    async def show(self, unit: str) -> Mapping[str, str]:
        """:data:`PROPERTIES` of a unit. Raises ``Temporary``."""
        ...

    async def call(self, *words: str) -> tuple[int, str]:
        """Exit status, and the last line that was said."""
        ...


@dataclass(frozen=True, slots=True)
class RealSystemctl:
    """The program systemctl."""

    program: str = "systemctl"
    runtime: Path = Path("/run/systemd/system")

    def trouble(self) -> str:
        return "" if self.runtime.is_dir() else "systemd is not process 1 on this node: a SystemdUnit cannot run here"

    async def show(self, unit: str) -> Mapping[str, str]:
        code, text = await self._run("show", f"--property={','.join(PROPERTIES)}", "--", unit)
        if code:
            raise Temporary(f"systemctl show {unit}: {text.strip()[-200:]}")
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    async def call(self, *words: str) -> tuple[int, str]:
        code, text = await self._run(*words)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return code, lines[-1][:200] if lines else ""

    async def _run(self, *words: str) -> tuple[int, str]:
        try:
            done = await anyio.run_process(
                (self.program, "--no-pager", "--no-ask-password", *words), check=False, stderr=subprocess.STDOUT
            )
        except OSError as e:
            raise Temporary(f"{self.program}: {e.strerror}") from None
        return done.returncode, done.stdout.decode(errors="replace")


class SystemdUnit(Supervised):
    """See the module."""

    kind = "SystemdUnit"

    def __init__(
        self, around: Surroundings, spec: objects_pb2.SystemdUnitSpec, home: Home, mount: Path, systemctl: Systemctl
    ) -> None:
        """``mount``: where the cgroup file system is mounted."""
        home = replace(
            home,
            cgroup=Cgroup(mount / SLICE / spec.unit),
            programs=programs_of(objects_pb2.SystemdUnitSpec(unit=spec.unit)),
        )
        super().__init__(around, UnitService(home, spec, systemctl), spec.restart)


class UnitService(Service):
    """Starts, watches and stops the service by systemctl."""

    def __init__(self, home: Home, spec: objects_pb2.SystemdUnitSpec, systemctl: Systemctl) -> None:
        super().__init__(home)
        self._unit = spec.unit
        self._systemctl = systemctl
        self._start_timeout = settings.seconds(spec, "start_timeout")
        self._stop_timeout = settings.seconds(spec, "stop_timeout")
        self._interval = settings.seconds(spec, "check_interval")

    async def adopt(self) -> bool:
        if self._systemctl.trouble() or not self.home.is_now(self.home.remembered()):
            return False
        return (await self._systemctl.show(self._unit)).get("ActiveState") in UP

    async def start(self) -> None:
        trouble = self._systemctl.trouble()
        if trouble:
            raise Permanent(trouble)
        known = await self._systemctl.show(self._unit)
        if known.get("LoadState") != "loaded":
            raise Permanent(f"{self._unit} is {known.get('LoadState', 'unknown')} on this node: install it there")
        if known.get("UnitFileState") in ("enabled", "enabled-runtime"):
            raise Permanent(f"{self._unit} would start at boot on every node: systemctl disable {self._unit}")
        await self._take_charge()
        self.home.remember(unit=self._unit)
        await self._systemctl.call("reset-failed", "--", self._unit)
        code, said = 1, f"did not start within {self._start_timeout:g} s"
        with anyio.move_on_after(self._start_timeout):
            code, said = await self._systemctl.call("start", "--", self._unit)
        if code:
            raise StartFailed(f"{self._unit}: {said}", code)

    async def ended(self) -> Ending:
        while True:
            await anyio.sleep(self._interval)
            now = await self._systemctl.show(self._unit)
            state = now.get("ActiveState", "")
            if state not in (*UP, *COMING):
                status = now.get("ExecMainStatus", "")
                code = int(status) if status.isdecimal() else None
                return Ending(f"{self._unit} is {state} ({now.get('Result', 'unknown')})", code)

    async def ask_to_stop(self) -> str:
        with anyio.move_on_after(self._stop_timeout):
            code, said = await self._systemctl.call("stop", "--", self._unit)
            return f"{self._unit}: {said}" if code else ""
        return f"{self._unit} did not stop within {self._stop_timeout:g} s: killed"

    async def stop(self, *, force: bool) -> str:
        trouble = ""
        if self._systemctl.trouble():
            self.home.forget()
            return trouble
        if (await self._systemctl.show(self._unit)).get("ActiveState") in (*UP, *COMING):
            if not force:
                trouble = await self.ask_to_stop()
            if (await self._systemctl.show(self._unit)).get("ActiveState") in (*UP, *COMING):
                await self._systemctl.call("kill", "--signal=SIGKILL", "--", self._unit)
                await self.ask_to_stop()  # so that systemd calls it stopped, not failed
        if self.home.cgroup.populated():
            self.home.cgroup.kill()
            raise Temporary(f"processes of {self._unit} are still there")
        self.home.forget()
        return trouble

    async def _take_charge(self) -> None:
        """See the module. Raises :class:`Permanent`."""
        text = f"# Made by hasys: the group {self.home.place.group} decides.\n[Service]\nRestart=no\nSlice={SLICE}\n"
        file = self._systemctl.runtime / f"{self._unit}.d" / DROP_IN
        try:
            if file.exists() and file.read_text() == text:
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            fresh = file.with_suffix(".new")
            fresh.write_text(text)
            os.replace(fresh, file)
        except OSError as e:
            raise Permanent(f"{file}: {e.strerror}") from None
        code, said = await self._systemctl.call("daemon-reload")
        if code:
            raise Permanent(f"systemctl daemon-reload: {said}")
