"""Streams are bounded, for all and for one caller."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from hasys.api.auth import Caller
from hasys.api.errors import TooLarge
from hasys.api.server.serving import CALLS
from hasys.api.server.streams import STREAMS, STREAMS_OF_ONE, Streams


def test_one_caller_cannot_take_every_stream() -> None:
    streams = Streams(total=10, of_one=3)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(streams.opened(Caller("admin", "alice")))
        with pytest.raises(TooLarge, match="alice has 3 watches open"):
            stack.enter_context(streams.opened(Caller("admin", "alice")))
        stack.enter_context(streams.opened(Caller("node", "alice")))  # a node of that name is somebody else


def test_all_together_are_bounded_and_closing_makes_room() -> None:
    streams = Streams(total=4, of_one=3)
    with ExitStack() as others:
        for name in ("a", "b", "c"):
            others.enter_context(streams.opened(Caller("node", name)))
        with streams.opened(Caller("admin", "alice")), pytest.raises(TooLarge, match="4 watches are open"):
            others.enter_context(streams.opened(Caller("node", "d")))
        others.enter_context(streams.opened(Caller("node", "d")))
    assert not streams._open, "nothing is kept of callers that left"


def test_watches_leave_room_for_other_calls() -> None:
    assert STREAMS_OF_ONE < STREAMS < CALLS
