"""What the cluster tells, folded into one picture. A lost server is no end: the client goes on to another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hasys.api.kinds import MEMBER_KINDS
from hasys.cli.session import Cluster
from hasys.cli.top.picture import Picture
from hasys.model.errors import Refused, Unavailable, Unknown

_WATCHED = ("Group", "Event", *MEMBER_KINDS)
_AGAIN = 1.0
"""Seconds until a watch that could not begin is tried again: without a majority there is none."""


class Feed:
    """The latest picture; ``changed`` is called after each change of it."""

    def __init__(self, cluster: Cluster, changed: Callable[[], None]) -> None:
        self.picture = Picture()
        self.heard = asyncio.get_running_loop().time()
        """When a server answered last, on the loop's clock."""
        self._cluster = cluster
        self._changed = changed

    async def follow(self) -> None:
        """Until cancelled. Raises what trying again cannot mend: a certificate that is refused."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_again(self._follow_status))
            tasks.create_task(_again(self._follow_objects))

    async def _follow_status(self) -> None:
        async for status in self._cluster.watch_status():
            self.heard = asyncio.get_running_loop().time()
            self.picture = self.picture.with_status(status)
            self._changed()

    async def _follow_objects(self) -> None:
        self.picture = self.picture.forgetting_objects()  # what is there comes first, what went meanwhile does not
        async for answer in self._cluster.watch(_WATCHED):
            self.picture = self.picture.with_changes(answer.changes)
            self._changed()


async def _again(follow: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await follow()
        except Refused:
            raise
        except (Unavailable, Unknown):
            pass
        await asyncio.sleep(_AGAIN)
