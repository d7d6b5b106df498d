"""Agent and guard, both real processes, between a real API and a store that grants: they must agree on every step."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasys.guard.client import connect
from tests.lab.network import ip, own_network
from tests.lab.standin import NODE, Node, guarded_node
from tests.lab.test_agent_process import app, group, vip

pytestmark = [
    pytest.mark.lab,
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with own_network():
        yield


def on_eth0(address: str = "10.9.0.100/24") -> bool:
    return f" {address} " in ip("address", "show", "dev", "eth0")


async def holding(n: Node) -> int:
    """Group web runs here; returns its program's process number."""
    n.put(group(), vip(), app())
    await n.start_agent()
    await n.until_state("Application", "app", "Running")
    assert on_eth0()
    (pid,) = n.base.pids_of("web", "app")
    return pid


async def guard_says(n: Node) -> dict[str, object]:
    async with connect(n.folder / "run" / "guard.sock") as guard:
        return await guard.status()


async def released(n: Node, epoch: int) -> None:
    begun = time.monotonic()
    while (await guard_says(n))["released"] != {"web": epoch}:
        assert time.monotonic() - begun < 5, n.log()
        await asyncio.sleep(0)


async def test_a_granted_group_comes_up(tmp_path: Path) -> None:
    async with guarded_node(tmp_path) as (n, _):
        await holding(n)
        assert (await guard_says(n))["armed"]


async def test_a_planned_move_is_released_and_the_guard_agrees(tmp_path: Path) -> None:
    async with guarded_node(tmp_path) as (n, _):
        await holding(n)
        agent = n.agent
        n.put(group(node="n2", epoch=2, previous_node=NODE, previous_epoch=1))
        await released(n, 1)
        assert not on_eth0()
        assert n.base.pids_of("web", "app") == []
        assert agent is not None
        assert agent.returncode is None


async def test_it_comes_back_at_a_newer_epoch(tmp_path: Path) -> None:
    async with guarded_node(tmp_path) as (n, _):
        await holding(n)
        n.put(group(node="n2", epoch=2, previous_node=NODE, previous_epoch=1))
        await released(n, 1)
        n.put(group(epoch=3))
        await n.until(lambda: n.status("Application", "app").epoch == 3, "epoch 3")
        await n.until_state("Application", "app", "Running")
        assert on_eth0()


async def test_a_revoked_group_is_fenced_and_the_next_agent_finds_it_so(tmp_path: Path) -> None:
    async with guarded_node(tmp_path) as (n, _):
        await holding(n)
        n.put(group(node="n2", epoch=2, previous_node=NODE, previous_epoch=1, revoked=True))
        await released(n, 1)
        assert not on_eth0()
        assert n.base.pids_of("web", "app") == []


async def test_a_lost_store_means_fencing_and_the_agent_dies_first(tmp_path: Path) -> None:
    async with guarded_node(tmp_path) as (n, granting):
        await holding(n)
        granting.silent = True
        agent = n.agent
        assert agent is not None
        async with asyncio.timeout(3):
            assert await agent.wait() == -signal.SIGKILL
        await n.until(lambda: not on_eth0() and not n.base.pids_of("web", "app"), "fenced", within=1)


async def test_after_a_fence_the_group_runs_again_at_the_next_epoch(tmp_path: Path) -> None:
    async with guarded_node(tmp_path) as (n, granting):
        await holding(n)
        granting.silent = True
        assert n.agent is not None
        async with asyncio.timeout(3):
            await n.agent.wait()
        granting.silent = False
        await n.start_agent()
        await n.until(lambda: "gave up epoch 1" in n.status("VirtualIP", "ip").message, "word of the fence")
        n.put(group(epoch=2, previous_node=NODE, previous_epoch=1, revoked=True))
        await n.until(lambda: n.status("Application", "app").epoch == 2, "epoch 2")
        await n.until_state("Application", "app", "Running")


async def test_a_guard_that_is_killed_and_restarted_finds_the_agent_again(tmp_path: Path) -> None:
    async with guarded_node(tmp_path) as (n, _):
        pid = await holding(n)
        guard = n.processes["guard"]
        guard.kill()
        await guard.wait()
        await n.start_process("guard")
        n.put(vip("second", "10.9.0.101/24"))
        await n.until_state("VirtualIP", "second", "Running")
        assert n.base.pids_of("web", "app") == [pid]


async def test_a_killed_agent_is_followed_by_one_that_adopts(tmp_path: Path) -> None:
    async with guarded_node(tmp_path) as (n, _):
        pid = await holding(n)
        await n.stop_agent(signal.SIGKILL)
        await n.start_agent()
        n.put(vip("second", "10.9.0.101/24"))
        await n.until_state("VirtualIP", "second", "Running")
        assert n.base.pids_of("web", "app") == [pid]


async def test_resources_added_changed_and_removed_in_operation_touch_nothing_else(tmp_path: Path) -> None:
    async with guarded_node(tmp_path) as (n, _):
        pid = await holding(n)
        n.put(app("other", after=""))
        await n.until_state("Application", "other", "Running")
        async with n.cluster.stack:
            client = await n.cluster.client()
            await client.delete(n.ref("Application", "other"))
            await n.until(lambda: n.cluster.machine.get(n.ref("Application", "other")) is None, "the purge")
        assert n.base.pids_of("web", "app") == [pid]
        assert on_eth0()
