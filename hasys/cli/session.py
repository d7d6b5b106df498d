"""One command's conversation with the cluster: which server, how long, and the event loop around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar

import click

from hasys.api.convert import parse_duration, seconds
from hasys.api.kinds import Ref
from hasys.cli.context import context_path
from hasys.model.errors import TimedOut, Unreached
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

_Result = TypeVar("_Result")


class Cluster(Protocol):
    """What the commands need of a client; ``hasys.api.client.Client`` is the one in use, tests have another."""

    async def apply(
        self, objects: Sequence[pb.Object], *, dry_run: bool = False, prune: bool = False
    ) -> api.ApplyResponse: ...
    async def list(
        self, kind: str = "", group: str = "", *, limit: int = 0, stale: bool = False
    ) -> api.ListResponse: ...
    def watch(self, kinds: Sequence[str] = (), group: str = "") -> AsyncIterator[api.WatchResponse]: ...
    async def delete(self, ref: Ref) -> api.DeleteResponse: ...
    async def create_operation(self, spec: pb.OperationSpec) -> pb.Operation: ...
    async def status(self, group: str = "") -> api.StatusResponse: ...
    def watch_status(self, group: str = "") -> AsyncIterator[api.StatusResponse]: ...


class Connection(Protocol):
    """``async with`` gives the cluster and closes the connection at the end."""

    async def __aenter__(self) -> Cluster: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object: ...


def connect() -> Connection:
    """The cluster of the current context. Raises ``ConfigRefused`` naming the file when its settings are wrong."""
    from hasys.api.client import Client, load_context

    return Client(load_context(context_path()))


def talk(conversation: Callable[[Cluster], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run one conversation with the cluster to its end."""

    async def whole() -> _Result:
        async with connect() as cluster:
            return await conversation(cluster)

    try:
        return asyncio.run(whole())
    except Unreached as silence:
        from hasys.api.client import load_context
        from hasys.cli.reach import explain

        cause = explain(load_context(context_path()))
        raise Unreached(f"{silence}: {cause}" if cause else str(silence)) from None


async def within(limit: float, work: Awaitable[_Result], still: Callable[[], str]) -> _Result:
    """Await at most ``limit`` seconds. Raises :class:`TimedOut` with what ``still`` says is under way."""
    try:
        async with asyncio.timeout(limit):
            return await work
    except TimeoutError:
        raise TimedOut(f"timed out after {limit:g}s: {still()}") from None


class Seconds(click.ParamType[float]):
    """A duration as everywhere in hasys: ``500ms``, ``30s``, ``2m``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return seconds(parse_duration(str(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def timeout_option(default: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--timeout DURATION``."""
    return click.option(
        "--timeout",
        type=Seconds(),
        default=default,
        show_default=True,
        metavar="DURATION",
        help=f"How long to wait {what}.",
    )
