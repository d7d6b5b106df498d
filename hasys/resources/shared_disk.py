"""SharedDisk: a file system on storage that several nodes reach, mounted while this node has the group.

That no other node has it mounted is what the permit says: the group is granted to this node only after the other one
released it, which its guard confirms when the mount is gone, or after its lease and ``unmountTimeout`` have passed. On
this machine the kernel is asked: a device that anything has claimed is not mounted a second time.
"""

from __future__ import annotations

from pathlib import Path

import anyio
from anyio import to_thread

from hasys.model import mounts as tables
from hasys.model.mounts import Mount
from hasys.resources import output, scripts, settings
from hasys.resources.mounts import Mounts
from hasys.resources.port import Driver, MountTrace, Permanent, State, Surroundings, Temporary, Trace
from hasys.resources.process import Command
from hasys.resources.service import Home
from hasys.v1 import objects_pb2

WATCH_PERIOD = 1.0
"""Seconds between looks at the mount table."""
IN_USE_AGAIN = 0.2
"""Seconds between attempts while the device is claimed."""
CHECKED = (0, 1)
"""Exit statuses of fsck(8) after which the file system is sound: nothing found, everything corrected."""


class SharedDisk(Driver):
    """See the module."""

    kind = "SharedDisk"

    def __init__(
        self,
        around: Surroundings,
        spec: objects_pb2.SharedDiskSpec | objects_pb2.ReplicatedVolumeSpec,
        home: Home,
        mounts: Mounts,
    ) -> None:
        super().__init__(around)
        self._spec = spec
        self._home = home
        self._mounts = mounts
        self._device, self._point = spec.device, spec.mount_point
        self._type = settings.text(spec, "fs_type")
        self._kill_after = settings.seconds(spec, "kill_after")
        self._busy_since: float | None = None
        self._unmounted = False
        """This driver has taken the mount away: nothing else may claim the device either."""

    def traces(self) -> tuple[Trace, ...]:
        return (MountTrace(self._device, self._point),)

    async def adopt(self) -> bool:
        return self._mount() is not None

    def continues(self, earlier: Driver) -> bool:
        return (
            isinstance(earlier, SharedDisk)
            and (earlier._device, earlier._point) == (self._device, self._point)
        )  # fmt: skip

    async def run(self) -> None:
        while True:
            if self._mount() is None:
                self.become(State.STARTING)
                try:
                    await self._bring_up()
                except Permanent as e:
                    self.become(State.FAILED, str(e), output=output.tail(self._log))
                    return
            mount = self._mount()
            if mount is not None and not mount.writable and "ro" not in self._spec.options:
                why = f"{self._point} became read-only: the kernel's log says why; the next start checks it"
                self.become(State.FAILED, why)
                return
            if mount is not None:
                self.become(State.RUNNING)
                await self._watch(mount)
            if self._mount() is None:
                self.around.record("DriftRepaired", f"{self._device} was unmounted from {self._point}")

    async def stop(self, *, force: bool) -> None:
        if self._mount() is not None:
            await self._unmount(force=force)
            self._unmounted = True
        if self._unmounted and self._mounts.in_use(self._device):
            raise Temporary(f"{self._device} is still in use on this machine{self._elsewhere()}")
        self._unmounted, self._busy_since = False, None

    # ------------------------------------------------------------------------------------------------ up

    async def _bring_up(self) -> None:
        """Check and mount. Raises :class:`Permanent`."""
        await self.around.permitted()
        await self._claim()
        if not self._mounts.number(self._device):
            raise Permanent(f"{self._device} is no block device on this node: connect it or correct spec.device")
        other = tables.at(self._mounts.table(), self._point)
        if other is not None:
            raise Permanent(f"{other.source} is mounted on {self._point} already: unmount it there")
        await self._until_free()
        if self._spec.check != objects_pb2.SharedDiskSpec.Never:
            await self._check()
        await self.around.permitted()
        await to_thread.run_sync(lambda: Path(self._point).mkdir(parents=True, exist_ok=True))
        options = ["-o", ",".join(self._spec.options)] if self._spec.options else []
        await self._do(("mount", "-t", self._type, *options, self._device, self._point), "mount_timeout", (0,))
        if self._mount() is None:
            raise Permanent(f"mount ended well, but {self._device} is not on {self._point}")

    async def _claim(self) -> None:
        """Whatever makes the device ready for use here. Raises :class:`Permanent`."""
        return

    async def _until_free(self) -> None:
        """Wait while something on this machine has claimed the device."""
        with anyio.move_on_after(settings.seconds(self._spec, "mount_timeout")):
            while self._mounts.in_use(self._device):
                self.become(State.STARTING, f"waiting: {self._device} is in use on this machine{self._elsewhere()}")
                await anyio.sleep(IN_USE_AGAIN)
            return
        raise Permanent(f"{self._device} stays in use on this machine{self._elsewhere()}: a second mount is refused")

    async def _check(self) -> None:
        self.become(State.STARTING, f"checking {self._device}")
        full = ("-f",) if self._spec.check == objects_pb2.SharedDiskSpec.Full else ()
        await self._do((f"fsck.{self._type}", *full, "-p", self._device), "check_timeout", CHECKED)

    async def _do(self, argv: tuple[str, ...], timeout: str, good: tuple[int, ...]) -> None:
        """Run a tool. Raises :class:`Permanent` with the last thing it said."""
        file = self._log
        limit = settings.seconds(self._spec, timeout)
        ended = await scripts.run(Command(argv), self._home.helpers, output.pipe_of(file), limit)
        self._home.outputs.drain(file)
        if ended.code not in good:
            said = output.last_line(file)
            raise Permanent(f"{argv[0]} {ended.cause}{': ' + said if said else ''}")

    async def _watch(self, mount: Mount) -> None:
        """Returns when the mount is not as it was."""
        while self._mount() == mount:  # noqa: ASYNC110  # the kernel announces changes by POLLPRI alone
            await anyio.sleep(WATCH_PERIOD)

    # ------------------------------------------------------------------------------------------------ down

    async def _unmount(self, *, force: bool) -> None:
        """Ask first; after the grace time kill who uses it. Raises :class:`Temporary` naming them."""
        if self._busy_since is None:
            self._busy_since = anyio.current_time()
        blocker = await self._mounts.unmount(self._device, self._point, kill=False)
        if blocker and (force or anyio.current_time() - self._busy_since >= self._kill_after):
            self.around.record("MountUsersKilled", blocker)
            blocker = await self._mounts.unmount(self._device, self._point, kill=True)
        if blocker:
            raise Temporary(blocker)

    # ------------------------------------------------------------------------------------------------ looks

    @property
    def _log(self) -> Path:
        return self._home.outputs.file(self._home.place.group, self._home.place.name)

    def _mount(self) -> Mount | None:
        """Our mount, if it is there."""
        number = self._mounts.number(self._device)
        found = [m for m in self._mounts.table() if m.point == self._point and tables.is_of(m, self._device, number)]
        return found[-1] if found else None

    def _elsewhere(self) -> str:
        """Where else it is mounted, for people."""
        number = self._mounts.number(self._device)
        points = [m.point for m in self._mounts.table() if tables.is_of(m, self._device, number)]
        return f" (mounted on {', '.join(points[:3])})" if points else ""
