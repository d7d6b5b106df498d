"""The real store is linearizable while its processes die and freeze and its networks fail; and we would notice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from tests.chaos import linearize
from tests.chaos.checker import check
from tests.chaos.registers import INITIAL, Recorder, Register
from tests.chaos.server import toxiproxy_server


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
