"""What the agent logs while it works for a group names the group and its epoch, in the tasks that it starts too."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import anyio
import pytest

from hasys.model.lines import JsonLine, Speaker, about, json_line
from hasys.reconciler.runtime import Runtime

pytestmark = pytest.mark.anyio

log = logging.getLogger("hasys.test")


class Lines(logging.Handler):
    """Keeps what would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLine(Speaker("agent", "n1")))
        self.said: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)


def told(line: dict[str, object]) -> tuple[object, ...]:
    return tuple(line.get(key) for key in ("role", "node", "group", "epoch", "message"))


async def test_each_group_speaks_for_itself_and_so_do_its_tasks(lines: Lines) -> None:
    async def step(name: str) -> None:
        log.info("step of %s", name)

    async def reconcile(name: str) -> float | None:
        about(name, {"web": 2, "db": 7}[name])
        tasks.start_soon(step, name)
        return None

    async with anyio.create_task_group() as tasks:
        runtime = Runtime(reconcile)
        tasks.start_soon(runtime.run)
        runtime.wake("web")
        runtime.wake("db")
        await anyio.sleep(1)
        log.info("of nobody")
        tasks.cancel_scope.cancel()
    assert sorted(map(told, lines.said), key=str) == [
        ("agent", "n1", "db", 7, "step of db"),
        ("agent", "n1", "web", 2, "step of web"),
        ("agent", "n1", None, None, "of nobody"),
    ]


def test_what_is_not_known_is_left_out() -> None:
    assert list(json.loads(json_line(0.0, "INFO", "guard", "x"))) == ["time", "level", "part", "message"]
