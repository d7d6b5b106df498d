"""A folder in memory for the targets that read files. It is gone when ``folder`` ends, however its users end.

The name of the folder goes to child processes by the environment: the fuzzer ends its own process without a clean-up.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

FOLDER = "HASYS_FUZZ_FOLDER"
"""Where this process and its children may write."""
_MEMORY = "/dev/shm"


@contextmanager
def folder() -> Iterator[None]:
    """``path`` works as long as this is open, here and in processes that are started meanwhile."""
    where = _MEMORY if os.path.isdir(_MEMORY) else None
    made = tempfile.TemporaryDirectory(prefix="hasys-fuzz.", dir=where)
    with made, patch.dict(os.environ, {FOLDER: made.name}):
        yield


def path(name: str) -> Path:
    """A file in the folder. Raises ``KeyError`` outside of :func:`folder`: nothing is written that would stay."""
    return Path(os.environ[FOLDER], name)
