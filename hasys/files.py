"""Files and folders that nobody else may read or write."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from hasys.model.errors import ConfigRefused


def refuse_exposed(file: Path) -> None:
    """Raises :class:`ConfigRefused` for a secret that others may read, like ssh does; OSError when it is missing."""
    mode = file.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigRefused(f"{file} can be read by others (mode {stat.S_IMODE(mode):04o}): chmod 600 it")


def private_folder(path: Path) -> None:
    """Make the folder, for its owner alone. Raises :class:`ConfigRefused` for one that somebody else could have
    prepared: a link, of another user, or one that others may write to."""
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=0o755, exist_ok=True)
            parent.chmod(0o755)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        return
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ConfigRefused(f"{path} is a symbolic link: remove it, or name the folder itself")
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigRefused(f"{path} belongs to another user (uid {found.st_uid}): remove it")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigRefused(f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):04o}): chmod 700 it")
