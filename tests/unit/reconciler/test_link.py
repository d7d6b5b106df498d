"""The lasting connection to the guard, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from hasys.guard.client import GuardEvent, GuardGone, Known, LeaseChanged, Permitted, Revoked
from hasys.guard.protocol import Plan
from hasys.reconciler.link import RECONNECT, GuardLink

pytestmark = pytest.mark.anyio

PLAN = Plan("web", 3, 7, ())


class FakeClient:
    """One connection: answers as told, ends when told."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.permits = True
        self.say, self.events = anyio.create_memory_object_stream[GuardEvent](10)

    async def hello(self, pid: int, cgroup: str, networks: object = None) -> Known:
        return self.known

    async def plan(self, plan: Plan) -> bool:
        return self.permits

    async def permit(self, group: str, epoch: int) -> bool:
        return self.permits

    async def release(self, group: str, epoch: int) -> None:
        return


class Socket:
    """Where connections come from; each attempt takes the next one, None is a refusal."""

    def __init__(self, *clients: FakeClient | None) -> None:
        self.clients = list(clients)
        self.attempts = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        self.attempts += 1
        client = self.clients.pop(0) if self.clients else None
        if client is None:
            raise GuardGone("guard: nobody listens")
        with client.say, client.events:
            yield client


def known(**more: Any) -> Known:
    facts: dict[str, Any] = {"plans": (), "permitted": (), "released": ()} | more
    return Known("demo-n1", True, 1, 900, **facts)


@asynccontextmanager
async def linked(socket: Socket) -> AsyncIterator[tuple[GuardLink, list[str | None]]]:
    woken: list[str | None] = []
    link = GuardLink(socket.connect, 1, "/cg", woken.append)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(link.run)
        await anyio.sleep(0.001)
        yield link, woken
        tasks.cancel_scope.cancel()


async def test_what_the_guard_knew_is_known_after_the_hello() -> None:
    client = FakeClient(known(plans=(PLAN,), permitted=(("web", 3),), released=(("db", 2),)))
    async with linked(Socket(client)) as (link, woken):
        assert link.connected
        assert link.session == 1
        assert link.planned("web") == PLAN
        assert link.permits("web", 3)
        assert not link.permits("web", 4)
        assert link.released("db") == 2
        assert woken == [None]


async def test_without_a_guard_it_tries_again_for_ever_and_every_request_says_so() -> None:
    socket = Socket()
    async with linked(socket) as (link, _):
        await anyio.sleep(10 * RECONNECT)
        assert socket.attempts >= 10
        assert not link.connected
        with pytest.raises(GuardGone, match="is 'hasys guard run' running"):
            await link.plan(PLAN)


async def test_a_lost_connection_takes_every_permit_with_it_until_the_next_hello() -> None:
    first = FakeClient(known(permitted=(("web", 3),)))
    second = FakeClient(known(permitted=(("web", 3),)))
    async with linked(Socket(first, None, second)) as (link, _):
        first.say.close()
        await anyio.sleep(0.001)
        assert not link.permits("web", 3)
        await anyio.sleep(3 * RECONNECT)
        assert link.session == 2
        assert link.permits("web", 3)


async def test_a_permit_wakes_its_group_and_a_lost_lease_takes_all_permits() -> None:
    client = FakeClient(known())
    async with linked(Socket(client)) as (link, woken):
        await client.say.send(Permitted("web", 3))
        await anyio.sleep(0.001)
        assert link.permits("web", 3)
        await client.say.send(LeaseChanged(False))
        await anyio.sleep(0.001)
        assert not link.permits("web", 3)
        assert woken == [None, "web", None]


async def test_a_revoked_epoch_counts_as_released() -> None:
    client = FakeClient(known(permitted=(("web", 3),)))
    async with linked(Socket(client)) as (link, woken):
        await client.say.send(Revoked("web", 3, "moved"))
        await anyio.sleep(0.001)
        assert not link.permits("web", 3)
        assert link.released("web") == 3
        assert woken == [None, "web"]


async def test_a_release_forgets_plan_and_permit() -> None:
    async with linked(Socket(FakeClient(known()))) as (link, _):
        assert await link.plan(PLAN)
        assert link.groups() == {"web"}
        await link.release("web", 3)
        assert link.released("web") == 3
        assert link.groups() == frozenset()
        assert not link.permits("web", 3)


async def test_a_pending_answer_takes_an_older_permit_away() -> None:
    client = FakeClient(known(permitted=(("web", 3),)))
    async with linked(Socket(client)) as (link, _):
        client.permits = False
        assert not await link.permit("web", 3)
        assert not link.permits("web", 3)
