"""``hasys top``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import click

from hasys.cli.context import context_option
from hasys.cli.session import Cluster, talk
from hasys.model.errors import Refused


@click.command()
@context_option
def top() -> None:
    """The cluster on a whole screen, live, with the commands of an operator.

    Tab goes from table to table, Enter shows all about a line, / looks for words. What changes something asks first;
    the keys stand at the foot of the screen. When no server answers it says so and goes on trying.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        raise Refused("top needs a terminal; in a script or a pipe use 'hasys status -w'")
    talk(_run)


async def _run(cluster: Cluster) -> None:
    """Raises what keeps it from showing anything before it takes the terminal, so that the line can be read."""
    status = await cluster.status()
    from hasys.cli.top.app import TopApp  # the library is large: only who asks for it pays

    app = TopApp(cluster)
    app.feed.picture = app.feed.picture.with_status(status)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, app.exit)
    await app.run_async()
    if app.failure is not None:
        raise app.failure
