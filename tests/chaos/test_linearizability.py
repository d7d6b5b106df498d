"""The real store is linearizable while its processes die and freeze and its networks fail; and we would notice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from hasys.api.client import Client
from hasys.model.errors import TimedOut, Unavailable, Unknown
from tests.chaos import linearize
from tests.chaos.checker import check
from tests.chaos.cluster import NAMES, Cluster
from tests.chaos.linearize import READY
from tests.chaos.nemesis import Nemesis, Proxies
from tests.chaos.registers import INITIAL, LABEL, Recorder, Register
from tests.chaos.server import toxiproxy_server
from tests.chaos.writers import group


@pytest.fixture
def server() -> Iterator[str]:
    with toxiproxy_server() as address:
        yield address


@pytest.mark.slow
def test_a_history_under_faults_is_linearizable(tmp_path: Path, server: str) -> None:
    (result,) = asyncio.run(linearize.run(tmp_path, server, random.Random(1), [20.0]))
    assert not result.refused, linearize.explain(result)
    assert len(set(result.faults)) >= 5
    assert result.outcomes["done"] >= 50
    assert result.outcomes["read"] >= 100


async def cut_off_and_read(cluster: Cluster, nemesis: Nemesis, node: str) -> tuple[str, str, str]:
    """A value is changed while ``node`` is cut off; answers what it then says: by default, and when any value will do,
    and what is there."""
    await cluster.ready(READY)
    async with Client(cluster.context()) as client:
        await client.apply([group("r", **{LABEL: "old"})], timeout=READY)
    rest = [name for name in NAMES if name != node]
    register = Register(cluster.context([node]))
    try:
        await register.read("r")
        await nemesis.cut_off(node)
        async with Client(cluster.context(rest)) as client:
            await client.apply([group("r", **{LABEL: "new"})], timeout=READY)
            now = (await client.get("Group", "r", timeout=READY)).group.metadata.labels[LABEL]
        try:
            answer, _ = await register.read("r")
        except (Unavailable, Unknown, TimedOut):
            answer = "refused"
        whatever, _ = await register.read("r", stale=True)
    finally:
        await register.close()
    return answer, whatever, now


@pytest.mark.slow
@pytest.mark.parametrize("node", ["n1", "n3"])
def test_a_member_that_is_cut_off_gives_an_old_value_only_to_who_asks_for_any(
    tmp_path: Path, server: str, node: str
) -> None:
    cluster = Cluster(tmp_path)
    proxies = Proxies(server, cluster)
    try:
        proxies.create()
        cluster.write()
        cluster.start()
        nemesis = Nemesis(cluster, proxies, random.Random(1))
        assert asyncio.run(cut_off_and_read(cluster, nemesis, node)) == ("refused", "old", "new")
    finally:
        cluster.close()
        proxies.remove()


class Replica:
    """A register of one process, with a second copy that follows late."""

    def __init__(self, state: dict[str, tuple[str, int]], *, late: bool) -> None:
        self._state, self._late = state, late
        self._copy = dict(state)

    async def read(self, name: str) -> tuple[str, int]:
        answer = (self._copy if self._late else self._state)[name]
        await asyncio.sleep(0)
        self._copy = dict(self._state)
        return answer

    async def change(self, name: str, version: int, value: str) -> bool:
        if self._state[name][1] != version:
            return False
        self._state[name] = (value, version + 1)
        return True


class Deaf(Replica):
    """Makes every change and never says so."""

    def __init__(self, state: dict[str, tuple[str, int]], changed: asyncio.Event) -> None:
        super().__init__(state, late=False)
        self._changed = changed

    async def change(self, name: str, version: int, value: str) -> bool:
        await super().change(name, version, value)
        self._changed.set()
        await asyncio.Event().wait()
        return True


def test_a_change_that_its_client_gave_up_waiting_for_may_have_happened() -> None:
    """The end of a round cancels its clients: what one of them was just changing belongs to the history."""

    async def work() -> Recorder:
        state = {"r": (INITIAL, 1)}
        changed = asyncio.Event()
        servers = {"n1": Deaf(state, changed)}
        recorder = Recorder(cast(dict[str, Register], servers), ["r"], random.Random(3))
        client = asyncio.create_task(recorder.work("c1"))
        await changed.wait()
        await recorder.read_everything(1.0)
        client.cancel()
        await asyncio.gather(client, return_exceptions=True)
        return recorder

    recorder = asyncio.run(work())
    assert recorder.history[-1].value != INITIAL
    assert all(check(recorder.history, INITIAL))


def recorded(*, late: bool) -> Recorder:
    """Two clients at two servers for a while."""

    async def work() -> Recorder:
        state = {"r": (INITIAL, 1)}
        servers = {"n1": Replica(state, late=False), "n2": Replica(state, late=late)}
        recorder = Recorder(cast(dict[str, Register], servers), ["r"], random.Random(3))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5), asyncio.TaskGroup() as group:
                for client in ("c1", "c2"):
                    group.create_task(recorder.work(client))
        return recorder

    return asyncio.run(work())


def test_a_server_that_answers_from_an_old_copy_is_found_out() -> None:
    good, bad = recorded(late=False), recorded(late=True)
    assert min(len(good.history), len(bad.history)) > 20
    assert all(check(good.history, INITIAL))
    assert not all(check(bad.history, INITIAL))
