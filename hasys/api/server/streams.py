"""How many streams a server keeps open: in all, and for one caller, so that no client keeps the others out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from hasys.api.auth import Caller
from hasys.api.errors import TooLarge

STREAMS = 1_500
"""Most watches at once, of objects and of the status; below the server's limit of calls, so that writes always fit."""
STREAMS_OF_ONE = 1_024
"""Most of one caller (role and name in the certificate)."""


class Streams:
    """Counts what is open."""

    def __init__(self, total: int = STREAMS, of_one: int = STREAMS_OF_ONE) -> None:
        self._total = total
        self._of_one = of_one
        self._open: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def opened(self, caller: Caller) -> Iterator[None]:
        """Around one stream. Raises ``TooLarge`` when there are too many."""
        who = caller.role, caller.name
        if self._open.total() >= self._total:
            raise TooLarge(f"{self._total} watches are open: close some")
        if self._open[who] >= self._of_one:
            raise TooLarge(f"{caller.actor} has {self._of_one} watches open: close some")
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]
