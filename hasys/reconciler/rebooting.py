"""Reboots this node when the leader asks for it: a group with ``rebootFailedNode`` has failed over from it.

Off unless node.yaml names a command (``reboot``). Each request is obeyed once, and only by the boot of the machine that
it speaks of: a node that comes back finds its old request in the store and leaves it alone.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from hasys.config import RebootCommand
from hasys.model.errors import HasysError
from hasys.reconciler.cache import Cache
from hasys.reconciler.telling import Telling
from hasys.resources.records import Records

log = logging.getLogger(__name__)

PLACE, NAME = ".reboot", "request"
"""Where the note of an obeyed request is kept: no group can have this name."""


class Rebooting(Telling):
    """One per agent. ``look`` when Node objects changed. ``run`` runs the command and returns why it failed, or "";
    ``failed`` hears that."""

    def __init__(
        self,
        node: str,
        wanted: RebootCommand | None,
        cache: Cache,
        records: Records,
        outside: tuple[Callable[[RebootCommand], Awaitable[str]], Callable[[str], None]],
    ) -> None:
        super().__init__("a request to reboot was not obeyed")
        self._node = node
        self._wanted = wanted
        self._cache = cache
        self._records = records
        self._command, self._failed = outside

    async def _tell(self) -> None:
        request = self._request()
        if request:
            await self._obey(request)

    def _request(self) -> str:
        """The request that is open; "" when there is none."""
        node = self._cache.nodes.get(self._node)
        if node is None or self._cache.stale or not node.status.reboot.due:
            return ""
        reboot = node.status.reboot
        machine = reboot.boot_id.partition(".")[0]  # a guard's boot is one of the machine, and its start
        request = f"{reboot.boot_id} {reboot.group} {reboot.epoch}"
        done = self._records.read(PLACE, NAME)
        return "" if machine != self._records.boot or (done and done.get("request") == request) else request

    async def _obey(self, request: str) -> None:
        self._records.write(PLACE, NAME, {"request": request})
        if self._wanted is None:
            self._failed("node.yaml names no reboot command")
            return
        log.warning("rebooting: %s", " ".join(self._wanted.command))
        try:
            why = await self._command(self._wanted)
        except HasysError as e:
            why = str(e)
        if why:
            log.error("reboot: %s", why)
            self._failed(why)
