"""The common start: what every node runs once per boot, before it may have any role (node.yaml: ``commonStart``).

Until it is over the agent does not introduce itself to the guard, so the node is not ready and gets no group.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from hasys.config import CommonStart
from hasys.model.errors import HasysError
from hasys.resources import output, scripts
from hasys.resources.cgroup import Cgroup
from hasys.resources.output import Outputs
from hasys.resources.process import Command
from hasys.resources.records import Records

log = logging.getLogger(__name__)

PLACE, NAME = ".common", "start"
AGAIN = 10.0
"""Seconds until a common start that failed is tried again."""


async def common_start(
    wanted: CommonStart, cgroup: Cgroup, records: Records, outputs: Outputs, failed: Callable[[str], None]
) -> None:
    """Run it, unless it was done since the machine booted; returns when roles may begin. ``failed`` hears each failure.

    What it leaves running stays in ``cgroup``, which no fence touches.
    """
    if records.read(PLACE, NAME) is not None:
        return
    while True:
        cause = await once(wanted.command, wanted.timeout, cgroup, outputs, NAME)
        if not cause:
            break
        log.error("common start: %s", cause)
        failed(cause)
        if wanted.go_on:
            break
        await anyio.sleep(AGAIN)
    await anyio.sleep(wanted.wait)
    records.write(PLACE, NAME, {"command": list(wanted.command)})


async def once(command: tuple[str, ...], timeout: float, cgroup: Cgroup, outputs: Outputs, name: str) -> str:
    """Run a command of this node's own, with at most ``timeout`` seconds. Why it failed; "" when it did not."""
    file = outputs.file(PLACE, name)
    try:
        ended = await scripts.run(Command(command), cgroup, output.pipe_of(file), timeout, keep=True)
    except HasysError as e:
        return str(e)
    outputs.drain(file)
    if ended.code == 0:
        return ""
    said = output.last_line(file)
    return f"{ended.cause}{': ' + said if said else ''}"
