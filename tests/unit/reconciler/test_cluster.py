"""The agent's view of the store when its node was removed from the cluster."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from hasys.api.auth import Authenticator
from hasys.api.errors import Denied
from hasys.model.errors import HasysError
from hasys.reconciler.cluster import ApiCluster
from hasys.v1 import api_pb2

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Client:
    """Answers watches as told, then with one object, and hangs."""

    def __init__(self, *answers: HasysError) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def watch(self, kinds: Sequence[str] = (), group: str = "") -> AsyncIterator[api_pb2.WatchResponse]:
        self.asked += 1
        if self.answers:
            raise self.answers.pop(0)
        answer = api_pb2.WatchResponse()
        answer.changes.add(type=api_pb2.WatchResponse.SYNCED).object.operation.metadata.name = "x"
        yield answer
        await anyio.sleep_forever()


def no_member() -> HasysError:
    """What a server says to a node that was removed."""
    try:
        Authenticator("c", {"n1": True}).caller(b"CN=n3,OU=node,O=hasys:c")
    except Denied as e:
        return e
    raise AssertionError("n3 is no member")


async def first(stream: Any) -> None:
    """asyncio closes what is left of it."""
    async with aclosing(stream):
        await anext(stream)


def cluster(client: Client) -> ApiCluster:
    told: Any = client
    return ApiCluster(told, "n3")


async def test_the_agent_of_a_removed_node_says_so_once_waits_and_goes_on_when_the_node_is_added_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasys.reconciler.cluster.REMOVED", 0.001)
    client = Client(*(no_member() for _ in range(6)))
    store = cluster(client)
    with caplog.at_level(logging.INFO):
        async with anyio.create_task_group() as tasks:
            for stream in (store.watch(), store.operations()):
                tasks.start_soon(first, stream)
    assert client.asked == 8
    assert [r.getMessage() for r in caplog.records] == [
        "n3 is no member of the cluster any more: stop hasys here and remove its folder, or add it again",
        "n3 is a member of the cluster again",
    ]


async def test_another_refusal_still_ends_the_agent() -> None:
    with pytest.raises(Denied, match="another cluster"):
        await first(cluster(Client(Denied("the client certificate is of another cluster"))).watch())
