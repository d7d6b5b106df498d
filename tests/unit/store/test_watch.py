"""Watches: nothing missed, nothing twice, bounded memory, a clear word when resuming is impossible."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import pytest

from hasys.api.kinds import Ref, metadata
from hasys.store import watch
from hasys.store.watch import Ended, Relist, WatchHub
from hasys.v1 import objects_pb2 as pb
from hasys.v1.api_pb2 import WatchResponse
from hasys.v1.store_pb2 import Mutation
from tests.unit.store.build import GROUP, Log, delay, group, vip

pytestmark = pytest.mark.anyio

ADDED, MODIFIED, DELETED, SYNCED = (
    WatchResponse.ADDED, WatchResponse.MODIFIED, WatchResponse.DELETED, WatchResponse.SYNCED,
)  # fmt: skip


def told(answer: WatchResponse) -> list[tuple[int, str]]:
    """Type and name of each change."""
    return [
        (change.type, metadata(change.object).name if change.object.WhichOneof("kind") else "")
        for change in answer.changes
    ]


async def take(stream: AsyncIterator[WatchResponse], count: int) -> list[tuple[int, str]]:
    """The next changes, at least so many."""
    seen: list[tuple[int, str]] = []
    while len(seen) < count:
        seen += told(await anext(stream))
    return seen


async def test_first_what_there_is_then_synced_then_changes_in_order() -> None:
    log = Log()
    hub = WatchHub(log.machine)
    log.must(group(), vip())
    stream = hub.watch()
    assert await take(stream, 3) == [(ADDED, "web"), (ADDED, "ip"), (SYNCED, "")]
    log.must(delay("a"))
    log.delete(Ref("Delay", "web", "a"))
    assert await take(stream, 4) == [(ADDED, "a"), (MODIFIED, "web"), (DELETED, "a"), (MODIFIED, "web")]


async def test_a_watch_keeps_nothing_of_what_it_listed() -> None:
    """Else each watch would hold the whole state of its beginning for as long as it lives."""
    log = Log()
    hub = WatchHub(log.machine)
    log.must(group(), vip())
    listed = log.machine.get(Ref("VirtualIP", "web", "ip"))
    references = sys.getrefcount(listed)
    stream = hub.watch()
    await take(stream, 3)
    log.must(delay("a"))
    await take(stream, 2)
    assert sys.getrefcount(listed) == references


async def test_a_change_between_list_and_first_wait_is_not_missed() -> None:
    log = Log()
    hub = WatchHub(log.machine)
    stream = hub.watch(["Group"])
    assert await take(stream, 1) == [(SYNCED, "")]
    log.must(group("a"))
    log.must(group("b"))
    assert await take(stream, 2) == [(ADDED, "a"), (ADDED, "b")]


async def test_kinds_and_group_select() -> None:
    log = Log()
    hub = WatchHub(log.machine)
    stream = hub.watch(["VirtualIP", "Event"], "web")
    await take(stream, 1)
    log.must(group(), group("db"), vip(), vip("other", "db", "10.77.0.9/24"), delay("d"))
    log.apply(Mutation(record=pb.Event(reason="X", regarding=GROUP.key())))
    log.apply(Mutation(record=pb.Event(reason="Y", regarding=pb.Key(kind="Group", name="db"))))
    log.must(vip("last", "web", "10.77.0.8/24"))
    assert await take(stream, 3) == [(ADDED, "ip"), (ADDED, "e1"), (ADDED, "last")]


async def test_resuming_gives_exactly_what_came_after() -> None:
    log = Log()
    hub = WatchHub(log.machine)
    for number in range(6):
        log.must(group(f"g{number}"))
    stream = hub.watch(start=4)
    assert await take(stream, 2) == [(ADDED, "g4"), (ADDED, "g5")]


async def test_resuming_from_before_the_history_must_relist() -> None:
    log = Log()
    hub = WatchHub(log.machine, history=3)
    for number in range(6):
        log.must(group(f"g{number}"))
    with pytest.raises(Relist):
        hub.watch(start=2)
    assert await take(hub.watch(start=3), 3) == [(ADDED, "g3"), (ADDED, "g4"), (ADDED, "g5")]


async def test_resuming_from_a_version_of_the_future_must_relist() -> None:
    log = Log()
    hub = WatchHub(log.machine)
    log.must(group())
    with pytest.raises(Relist):
        hub.watch(start=2)


async def test_a_watcher_that_is_too_slow_is_cut_and_costs_no_memory() -> None:
    log = Log()
    hub = WatchHub(log.machine, history=10)
    stream = hub.watch()
    await take(stream, 1)
    for number in range(11):
        log.must(group(f"g{number}"))
    with pytest.raises(Relist, match="behind"):
        await anext(stream)


async def test_large_objects_do_not_make_the_history_large() -> None:
    log = Log()
    hub = WatchHub(log.machine, history_bytes=20_000)
    for number in range(30):
        large = group(f"g{number}")
        large.group.metadata.labels["text"] = "x" * 4_000
        log.must(large)
    assert 1 <= len(hub._history) <= 5
    with pytest.raises(Relist):
        hub.watch(start=10)
    assert await take(hub.watch(start=29), 1) == [(ADDED, "g29")]


async def test_a_snapshot_ends_every_watch_and_history_begins_anew() -> None:
    log = Log()
    hub = WatchHub(log.machine)
    log.must(group("first"))
    log.must(group())
    stream = hub.watch()
    await take(stream, 3)
    log.machine.restore(9, log.machine.snapshot())
    with pytest.raises(Ended):
        await anext(stream)
    with pytest.raises(Relist):
        hub.watch(start=1)


async def test_a_command_larger_than_a_batch_can_be_resumed_in_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "BATCH", 2)
    log = Log()
    hub = WatchHub(log.machine)
    log.must(group("first"))
    log.must(*(group(f"g{number}") for number in range(5)))
    stream = hub.watch(start=1)
    answers = [await anext(stream) for _ in range(3)]
    assert [len(answer.changes) for answer in answers] == [2, 2, 1]
    assert [answer.resource_version for answer in answers] == [1, 1, 2]
    assert len(await take(hub.watch(start=answers[0].resource_version), 5)) == 5


async def test_a_quiet_watcher_is_told_how_far_it_has_seen_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PROGRESS", 0.0)
    log = Log()
    hub = WatchHub(log.machine)
    stream = hub.watch(["Delay"])
    await take(stream, 1)
    log.must(group())
    answer = await anext(stream)
    assert told(answer) == [(WatchResponse.PROGRESS, "")]
    assert answer.resource_version == 1


async def test_watchers_leave_nothing_behind() -> None:
    log = Log()
    hub = WatchHub(log.machine)
    stream = hub.watch()
    await take(stream, 1)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not hub._waiting


async def test_ten_thousand_changes_reach_a_watcher_for_less_than_five_seconds_of_processor() -> None:
    log = Log()
    hub = WatchHub(log.machine)
    log.must(group())
    stream = hub.watch(["Delay"])
    await take(stream, 1)
    begun = time.process_time()
    for number in range(10_000):
        log.must(delay("d", seconds=number + 1))
    assert len(await take(stream, 10_000)) == 10_000
    assert time.process_time() - begun < 5.0
