"""The event loops of the tests themselves."""

from __future__ import annotations

import asyncio

import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from tests.loops import Loop


def ended() -> asyncio.AbstractEventLoop:
    """As every loop of a test is made, and left behind."""
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


def test_every_loop_is_one_of_these() -> None:
    assert isinstance(ended(), Loop)


def test_what_grpc_tells_a_loop_that_ended_is_dropped() -> None:
    """By gRPC's own function: another name there would let its errors through again."""
    assert ended().call_soon_threadsafe(cygrpc._handle_callback_wrapper, None, 1).cancelled()


def test_anything_else_is_refused_by_a_loop_that_ended() -> None:
    with pytest.raises(RuntimeError, match="closed"):
        ended().call_soon_threadsafe(print)
