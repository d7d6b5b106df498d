"""The event loop of the tests themselves."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.loops import Loop

pytestmark = pytest.mark.anyio

IDLE = grpc.ChannelConnectivity.IDLE
NOBODY = "127.0.0.1:1"


async def given_up() -> grpc.aio.Channel:
    """A connection whose watcher was cancelled: gRPC tells of it when the connection is closed."""
    channel = grpc.aio.insecure_channel(NOBODY)
    watching = asyncio.ensure_future(channel.wait_for_state_change(IDLE))
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait([watching])
    return channel


def begin(loop: asyncio.AbstractEventLoop) -> grpc.aio.Channel:
    """Run :func:`given_up` in a loop that has ended when this returns."""
    try:
        return loop.run_until_complete(given_up())
    finally:
        loop.close()


async def faults_of_others(loop: asyncio.AbstractEventLoop) -> list[str]:
    """What this loop is blamed for when gRPC is done with a connection of another one that has ended."""
    blamed: list[str] = []
    here = asyncio.get_running_loop()
    before = here.get_exception_handler()
    here.set_exception_handler(lambda _, context: blamed.append(str(context["exception"])))
    try:
        left = await asyncio.to_thread(begin, loop)
        await left.close(None)
        own = grpc.aio.insecure_channel(NOBODY)
        own.get_state(try_to_connect=True)
        await own.wait_for_state_change(IDLE)  # told after the other: it is one queue
        await own.close(None)
    finally:
        here.set_exception_handler(before)
    return blamed


async def test_what_grpc_completes_for_a_loop_that_ended_is_no_fault_of_the_next_test() -> None:
    assert await faults_of_others(asyncio.new_event_loop()) == []


async def test_a_loop_without_that_is_refused() -> None:
    """Why there is one at all; when this fails, gRPC no longer does so."""
    assert await faults_of_others(asyncio.SelectorEventLoop()) == ["Event loop is closed"]


def test_anything_else_is_refused_by_a_loop_that_ended() -> None:
    loop = Loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)
