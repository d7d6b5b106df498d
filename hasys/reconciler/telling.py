"""Tells somebody something each time it may be different, and again when it did not get there."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

import anyio

from hasys.model.errors import HasysError

log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds until what was not told is told again."""


class Telling(ABC):
    """One per thing to tell. ``untold`` says in the log what did not get there."""

    def __init__(self, untold: str) -> None:
        self._untold = untold
        self._news = anyio.Event()

    def look(self) -> None:
        """Something may be different."""
        self._news.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            try:
                await self._tell()
            except HasysError as e:
                log.info("%s: %s", self._untold, e)
                self._news.set()
                await anyio.sleep(AGAIN)

    @abstractmethod
    async def _tell(self) -> None:
        """Tell what differs from what was told. Raises HasysError: to be tried again."""
