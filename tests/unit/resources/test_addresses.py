"""Who is woken by a change of the machine's addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from hasys.resources.addresses import BURST, Held, KernelAddresses, Link

pytestmark = pytest.mark.anyio


class Waiters:
    """Each waits for one thing; ``woken`` tells whose wait ended."""

    def __init__(self) -> None:
        self.addresses = KernelAddresses()
        self.woken: set[str | None] = set()

    async def wait(self, key: str | None) -> None:
        await self.addresses.changed(self.addresses.revision, key)
        self.woken.add(key)


async def test_a_change_of_one_address_among_hundreds_wakes_who_waits_for_it_and_nobody_else() -> None:
    waiters = Waiters()
    names = [f"10.0.1.{i}" for i in range(1, 200)]
    async with anyio.create_task_group() as tasks:
        for key in (None, "", *names):
            tasks.start_soon(waiters.wait, key)
        await anyio.wait_all_tasks_blocked()
        waiters.addresses._take(frozenset({Held("eth0", names[7], 32)}))
        await anyio.wait_all_tasks_blocked()
        assert waiters.woken == {None, names[7]}
        assert waiters.addresses.holders(names[7]) == (Held("eth0", names[7], 32),)
        waiters.addresses._take_links({"eth0": Link("eth0", 2, b"", True, True)})
        await anyio.wait_all_tasks_blocked()
        assert waiters.woken == {None, "", *names}
    await waiters.addresses.close()


async def test_what_changed_before_the_wait_began_ends_it_at_once() -> None:
    addresses = KernelAddresses()
    before = addresses.revision
    addresses._take(frozenset({Held("eth0", "10.0.0.1", 24)}))
    addresses._take(frozenset({Held("eth0", "10.0.0.1", 24), Held("eth0", "10.0.0.2", 24)}))
    addresses._take(frozenset({Held("eth0", "10.0.0.2", 24)}))
    with anyio.fail_after(1):
        await addresses.changed(before, "10.0.0.1")
        await addresses.changed(before, "10.0.0.2")
    assert addresses.holders("10.0.0.1") == ()
    with anyio.move_on_after(1) as waiting:
        await addresses.changed(before, "10.0.0.3")
    assert waiting.cancelled_caught
    await addresses.close()


class SlowKernel(KernelAddresses):
    """Every call of the kernel takes 10 ms; ``looks`` counts those that only read."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self._take_links({"eth0": Link("eth0", 2, b"", True, True)})
        self.written = anyio.Event()

    async def _call(self, work: Callable[[Any], Any], what: str) -> Any:
        await anyio.sleep(0.01)
        self.written.set()
        self.written = anyio.Event()

    async def _heard(self) -> bool:
        await self.written.wait()
        return False

    async def read(self, *, links: bool = True) -> None:
        self.looks += 1
        async with self._serial:
            await anyio.sleep(0.05)


async def test_a_burst_of_own_writes_is_read_back_a_few_times_and_not_after_each() -> None:
    kernel = SlowKernel()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.run)
        await anyio.sleep(1)
        before, begun = kernel.looks, anyio.current_time()
        async with anyio.create_task_group() as burst:
            for i in range(1, 129):
                burst.start_soon(kernel.add, Held("eth0", f"10.0.1.{i}", 32))
        took = anyio.current_time() - begun
        assert took == pytest.approx(128 * 0.01 + (kernel.looks - before) * 0.05, abs=0.1)
        assert 1 <= kernel.looks - before <= took / BURST + 1
        tasks.cancel_scope.cancel()
