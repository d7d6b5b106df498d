"""The agent's side of the guard socket, against a scripted guard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from hasys.guard import client
from hasys.guard.protocol import Address, AddressEntry, Plan
from hasys.model.errors import Refused

pytestmark = pytest.mark.anyio


Answer = Callable[[asyncio.StreamWriter, dict[str, Any]], Awaitable[None]]


@asynccontextmanager
async def scripted(tmp_path: Path, answer: Answer) -> AsyncIterator[client.GuardClient]:
    """A connected client whose requests the given function answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            await answer(writer, json.loads(line))
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "guard.sock")
    async with server, client.connect(tmp_path / "guard.sock", timeout=2) as guard:
        yield guard


async def say(writer: asyncio.StreamWriter, *messages: dict[str, Any]) -> None:
    writer.write(b"".join(json.dumps(m).encode() + b"\n" for m in messages))
    await writer.drain()


PLAN = Plan("web", 7, 120, (AddressEntry("eth0", "10.77.0.100", "web-ip"),))


async def test_a_plan_that_the_grant_names_is_permitted_at_once(tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        assert (request["group"], request["epoch"], request["version"]) == ("web", 7, 120)
        await say(writer, {"id": request["id"], "ok": True, "state": "permitted"})

    async with scripted(tmp_path, answer) as guard:
        assert await guard.plan(PLAN) is True


async def test_a_pending_plan_is_followed_by_its_event(tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        pushed = {"event": "permitted", "group": "web", "epoch": 7}
        await say(writer, {"id": request["id"], "ok": True, "state": "pending"}, pushed, {"event": "unheard of"})

    async with scripted(tmp_path, answer) as guard:
        assert await guard.plan(PLAN) is False
        assert await guard.events.receive() == client.Permitted("web", 7)


@pytest.mark.parametrize(
    ("code", "error"), [("stale", client.Stale), ("blocked", client.ReleaseBlocked), ("refused", Refused)]
)
async def test_each_refusal_has_its_own_error_class(tmp_path: Path, code: str, error: type[Exception]) -> None:
    async def answer(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        await say(writer, {"id": request["id"], "ok": False, "error": "because", "code": code})

    async with scripted(tmp_path, answer) as guard:
        with pytest.raises(error, match="guard: because") as caught:
            await guard.release("web", 7)
        assert type(caught.value).__name__ == error.__name__


async def test_answers_may_come_in_another_order_than_requests(tmp_path: Path) -> None:
    waiting: list[dict[str, Any]] = []

    async def answer(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        waiting.append(request)
        if len(waiting) == 2:
            for r in reversed(waiting):
                state = "permitted" if r["group"] == "web" else "pending"
                await say(writer, {"id": r["id"], "ok": True, "state": state})

    seen: dict[str, bool] = {}
    async with scripted(tmp_path, answer) as guard:

        async def ask(group: str) -> None:
            seen[group] = await guard.permit(group, 1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "web")
            tasks.start_soon(ask, "db")
    assert seen == {"web": True, "db": False}


async def test_a_guard_that_goes_away_ends_requests_and_events(tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        writer.close()

    async with scripted(tmp_path, answer) as guard:
        with pytest.raises(client.GuardGone):
            await guard.gate([Address("eth0", "10.77.0.100")])
        with pytest.raises(anyio.EndOfStream):
            await guard.events.receive()
        with pytest.raises(client.GuardGone):
            await guard.permit("web", 7)


async def test_an_answer_that_is_not_understood_ends_the_connection(tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        writer.write(b"[]\n")

    async with scripted(tmp_path, answer) as guard:
        with pytest.raises(client.GuardGone, match="not understood"):
            await guard.status()


async def test_a_guard_of_a_version_without_oaths_is_understood(tmp_path: Path) -> None:
    """In an upgrade, the agent of a node may be restarted before its guard."""

    async def answer(writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        told = {"instance": "demo-n1", "lease": {"valid": True, "epoch": 3, "remaining_ms": 900}, "plans": []}
        await say(writer, {"id": request["id"], "ok": True, **told, "permitted": [["web", 7]], "released": []})

    async with scripted(tmp_path, answer) as guard:
        known = await guard.hello(1, "")
        assert (known.permitted, known.oaths, known.reports) == ((("web", 7),), (), ())
        assert client.reports_of(await guard.status()) == ()


async def test_nobody_listening_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(client.GuardGone, match="is 'hasys guard run' running"):
        async with client.connect(tmp_path / "guard.sock"):
            pass
