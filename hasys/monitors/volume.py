"""A file system or a block device: does it answer, may it be written, is there space?

Everything that may wait for a disk happens in a process of its own, which is killed when it takes too long: hung
storage must not hang the agent. One that cannot even be killed is left behind, and no second one is sent after it.
"""

from __future__ import annotations

from hasys.model.errors import HasysError
from hasys.monitors.mount import TABLE, mounts
from hasys.monitors.port import Check, Commands, Found
from hasys.v1 import monitors_pb2 as mpb

PROBE = ".hasys-probe"
"""The file that a write look leaves on the volume: one block."""


class VolumeCheck(Check):
    """See the module."""

    def __init__(self, spec: mpb.VolumeMonitor, commands: Commands, table: str = TABLE) -> None:
        self._spec = spec
        self._commands = commands
        self._table = table

    async def look(self) -> Found:
        if self._spec.device:
            return await self._device(self._spec.device)
        return await self._path(self._spec.path.rstrip("/") or "/")

    async def _device(self, device: str) -> Found:
        """Read a block past every cache."""
        argv = ("dd", f"if={device}", "of=/dev/null", "bs=4096", "count=1", "iflag=direct")
        ended = await self._commands.run(argv)
        return Found("" if ended.code == 0 else f"{device} cannot be read", _last(ended.output))

    async def _path(self, path: str) -> Found:
        known = mounts(self._table)
        if path not in known:
            return Found(f"nothing is mounted at {path}")
        if known[path]:
            return Found(f"{path} is read-only")
        used = await self._used(path)
        if self._spec.write:
            probe = f"{path if path != '/' else ''}/{PROBE}"
            argv = ("dd", "if=/dev/zero", f"of={probe}", "bs=512", "count=1", "conv=notrunc,fsync")
            ended = await self._commands.run(argv)
            if ended.code != 0:
                return Found(f"{path} cannot be written", _last(ended.output), used, "%")
        limit = self._spec.used_limit if self._spec.HasField("used_limit") else 0
        full = limit and used >= limit
        return Found(f"{path} is at or over {limit} % full" if full else "", f"{used:.0f} %", used, "%")

    async def _used(self, path: str) -> float:
        """Percent of space, or of inodes when that is more, that ordinary users cannot have any more."""
        ended = await self._commands.run(("stat", "--file-system", "--format", "%b %f %a %c %d", path))
        try:
            blocks, free, available, files, files_free = map(int, ended.output.split())
        except ValueError:
            raise HasysError(f"{path} does not tell its space: {_last(ended.output)}") from None
        space = 100.0 * (blocks - free) / max(1, blocks - free + available)
        return max(space, 100.0 * (files - files_free) / files if files else 0.0)


def _last(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "")[:200]
