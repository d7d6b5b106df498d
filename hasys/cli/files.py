"""Writing the folders of ``init`` and ``cert``: secrets are 0600 from their first byte, nothing is overwritten."""

from __future__ import annotations

import os
from pathlib import Path


def write_public(path: Path, content: bytes | str) -> None:
    """A new file that anybody may read. Raises FileExistsError."""
    _write(path, content, 0o644)


def write_secret(path: Path, content: bytes | str) -> None:
    """A new file that only its owner may read. Raises FileExistsError."""
    _write(path, content, 0o600)


def replace_together(contents: dict[Path, tuple[bytes, int]]) -> None:
    """Replace several files (path: content and mode); all new contents are on disk before the first is replaced."""
    staged = {}
    for path, (content, mode) in contents.items():
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        _write(draft, content, mode)
        staged[draft] = path
    for draft, path in staged.items():
        draft.replace(path)


def _write(path: Path, content: bytes | str, mode: int) -> None:
    data = content.encode() if isinstance(content, str) else content
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
