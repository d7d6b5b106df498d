"""Small notes under runDir about what was started: read by the next agent to adopt it, gone after a reboot."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Records:
    """One JSON file per resource. Written by rename, so a reader sees the old or the new one; not synced, because a
    power loss ends what it speaks of too."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.boot = _boot()

    def read(self, group: str, name: str) -> dict[str, Any] | None:
        """The record of this boot, or None: none, unreadable or of an earlier boot."""
        try:
            raw = json.loads(self._file(group, name).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return raw if isinstance(raw, dict) and raw.get("boot") == self.boot else None

    def write(self, group: str, name: str, record: dict[str, Any]) -> None:
        file = self._file(group, name)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps({**record, "boot": self.boot}))
        os.replace(fresh, file)

    def forget(self, group: str, name: str) -> None:
        self._file(group, name).unlink(missing_ok=True)

    def forget_group(self, group: str) -> None:
        directory = self.directory / group
        if directory.is_dir():
            shutil.rmtree(directory, ignore_errors=True)

    def _file(self, group: str, name: str) -> Path:
        return self.directory / group / f"{name}.json"


def _boot() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
