"""The event loops of a test process: like asyncio's, where many end one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

Arguments = TypeVarTuple("Arguments")


class Loop(asyncio.SelectorEventLoop):
    """gRPC has one queue for all loops of a process. What completes late, for a loop that ended with its test, it hands
    to that loop from within whichever runs then, where the refusal would count as a fault of another test.

    The price: a test is not told of what it left under way in gRPC when its loop ended."""

    def call_soon_threadsafe(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        if self.is_closed() and getattr(callback, "__name__", "") == "_handle_callback_wrapper":
            late = asyncio.Handle(callback, args, self, context)
            late.cancel()
            return late
        return super().call_soon_threadsafe(callback, *args, context=context)


class Policy(asyncio.DefaultEventLoopPolicy):
    """Every loop is one of these, those of commands that a test runs in its own process too."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return Loop()
